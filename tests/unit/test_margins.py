"""Margins and heads against the papers' formulas and hand-written gradients in NumPy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facesyn.nets.margins import MarginHead


def slow(x, w, labels, kind, s, m, straight=False, mean=20.0, std=100.0):
    "(cross-entropy, d/dx, d/dw) in float64: logits and their derivative by the formulas, the rest by the chain rule"
    n, norm = len(x), np.linalg.norm(x, axis=1, keepdims=True)
    e, length = x / norm, np.linalg.norm(w, axis=1, keepdims=True)
    v = w / length
    cos = e @ v.T
    own = cos[np.arange(n), labels]
    theta = np.arccos(own)
    if kind == "arcface":
        target, slope = np.cos(theta + m), np.sin(theta + m) / np.sin(theta)
    if kind == "cosface":
        target, slope = own - m, np.ones(n)
    if kind == "adaface":
        z = np.clip(0.333 * (np.clip(norm[:, 0], 1e-3, 100) - mean) / (std + 1e-3), -1, 1)
        target, slope = np.cos(theta - m * z) - (m + m * z), np.sin(theta - m * z) / np.sin(theta)
    if straight:
        slope = np.ones(n)
    logits = s * cos
    logits[np.arange(n), labels] = s * target
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(n), labels]).mean()
    d = s * (p - np.eye(len(w))[labels]) / n
    d[np.arange(n), labels] *= slope
    de, dv = d @ v, d.T @ e
    return loss, (de - e * (de * e).sum(1, keepdims=True)) / norm, (dv - v * (dv * v).sum(1, keepdims=True)) / length


def example(seed=0, n=24, classes=6, dim=10):
    "Features near their class's weight, with norms from 0.5 to 90: angles of 20 to 80 degrees to the own class"
    rng = np.random.default_rng(seed)
    w, labels = rng.normal(size=(classes, dim)), rng.integers(0, classes, n)
    x = (
        w[labels] / np.linalg.norm(w[labels], axis=1, keepdims=True)
        + rng.uniform(0.1, 0.9, (n, 1)) * rng.normal(size=(n, dim)) / np.sqrt(dim) * 2
    )
    return x / np.linalg.norm(x, axis=1, keepdims=True) * np.geomspace(0.5, 90, n)[:, None], w, labels


def by_head(x, w, labels, kind, s, m, straight=False, training=False):
    head = MarginHead(w.shape[1], len(w), kind, s, m, straight).train(training)
    head.weight.data = torch.tensor(w, dtype=torch.float32)
    t = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    loss = F.cross_entropy(head(t, torch.tensor(labels)), torch.tensor(labels))
    loss.backward()
    return loss.item(), t.grad.double().numpy(), head.weight.grad.double().numpy()


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("kind,m", [("arcface", 0.5), ("cosface", 0.35), ("cosface", 0.4), ("adaface", 0.4)])
def test_loss_and_gradients(kind, m, straight):
    x, w, labels = example()
    ours, expected = by_head(x, w, labels, kind, 8.0, m, straight), slow(x, w, labels, kind, 8.0, m, straight)
    for a, b in zip(ours, expected):
        assert np.allclose(a, b, rtol=2e-4, atol=1e-5 * np.abs(b).max())


def test_straight_through_differs_for_angles_only():
    x, w, labels = example()

    def difference(kind):
        return np.abs(by_head(x, w, labels, kind, 8.0, 0.5)[1] - by_head(x, w, labels, kind, 8.0, 0.5, True)[1]).max()

    assert difference("cosface") == 0 and difference("arcface") > 1e-3 and difference("adaface") > 1e-4


def test_adaface_takes_the_true_norm_without_gradient():
    x, w, labels = example()
    head = MarginHead(w.shape[1], len(w), "adaface").eval()
    z = head.quality(torch.tensor(x)).numpy()
    assert (
        np.allclose(z, 0.333 * (np.linalg.norm(x, axis=1) - 20) / 100.001) and (np.diff(z) > 0).all()
    )  # longer is better
    assert np.allclose(head.quality(torch.tensor(x) * 1e6), 0.333 * 80 / 100.001) and np.allclose(
        head.quality(torch.tensor(x) * 0), 0.333 * (1e-3 - 20) / 100.001
    )
    loss, grad, _ = by_head(x, w, labels, "adaface", 8.0, 0.4)
    assert np.abs((grad * x).sum(1)).max() < 1e-5 < np.abs(grad).max()  # nothing pulls along the feature itself
    assert (
        abs(loss - by_head(x * 2, w, labels, "adaface", 8.0, 0.4)[0]) > 1e-3
        and abs(by_head(x * 2, w, labels, "cosface", 8.0, 0.4)[0] - by_head(x, w, labels, "cosface", 8.0, 0.4)[0])
        < 1e-6
    )


def test_adaface_of_unit_features_is_cosface_once_the_statistics_know():
    "What a training code gets that normalises the features first: no quality left, an additive margin only"
    x, w, labels = example()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    head, cos = (
        MarginHead(w.shape[1], len(w), "adaface", 64.0, 0.4).eval(),
        MarginHead(w.shape[1], len(w), "cosface", 64.0, 0.4),
    )
    head.weight.data = cos.weight.data = torch.tensor(w, dtype=torch.float32)
    head.norm_mean.fill_(1.0)
    head.norm_std.fill_(0.0)
    f, y = torch.tensor(x, dtype=torch.float32), torch.tensor(labels)
    assert torch.allclose(head(f, y), cos(f, y), atol=64 * 1e-3)


def test_adaface_statistics_run_in_training_only():
    x, w, labels = example()
    f, y = torch.tensor(x, dtype=torch.float32), torch.tensor(labels)
    head = MarginHead(w.shape[1], len(w), "adaface")
    head.eval()(f, y)
    assert (head.norm_mean, head.norm_std) == (20, 100)
    mean, std, norms = 20.0, 100.0, np.linalg.norm(x, axis=1)
    head.train()
    for k in range(5):
        head(f * (k + 1), y)
        clipped = np.clip(norms * (k + 1), 1e-3, 100)
        mean, std = 0.99 * mean + 0.01 * clipped.mean(), 0.99 * std + 0.01 * clipped.std(ddof=1)
    assert math.isclose(head.norm_mean, mean, rel_tol=1e-5) and math.isclose(head.norm_std, std, rel_tol=1e-5)
    assert {"norm_mean", "norm_std"} <= head.state_dict().keys()  # a resumed run keeps them
