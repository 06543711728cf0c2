"""The 10-fold protocol against its loops, to the last digit."""

import numpy as np
import pytest
import torch

from facesyn.measure.scores import unit_rows
from facesyn.measure.verification import verify
from facesyn.nets.encoders import embed


def original(emb1, emb2, issame, far_target=1e-3, n_folds=10):
    """As the evaluation code of FaceNet and InsightFace does it: for every fold and every threshold, counts over the
    pairs"""
    normalised = [e / np.sqrt(np.einsum("nd,nd->n", e, e))[:, None] for e in (emb1, emb2)]
    dist = np.sum(np.square(normalised[0] - normalised[1]), 1)
    n, folds, start = len(issame), [], 0
    for k in range(n_folds):
        stop = start + n // n_folds + (1 if k < n % n_folds else 0)
        folds.append((np.concatenate([np.arange(0, start), np.arange(stop, n)]), np.arange(start, stop)))
        start = stop

    def accuracy(threshold, d, same):
        accept = np.less(d, threshold)
        tp, tn = (
            np.sum(np.logical_and(accept, same)),
            np.sum(np.logical_and(np.logical_not(accept), np.logical_not(same))),
        )
        return float(tp + tn) / d.size

    def val_far(threshold, d, same):
        accept = np.less(d, threshold)
        return float(np.sum(np.logical_and(accept, same))) / float(np.sum(same)), float(
            np.sum(np.logical_and(accept, np.logical_not(same)))
        ) / float(np.sum(np.logical_not(same)))

    accuracies, best, vals, fars = [], [], [], []
    thresholds = np.arange(0, 4, 0.01)
    for train, test in folds:
        scores = np.zeros(len(thresholds))
        for j, t in enumerate(thresholds):
            scores[j] = accuracy(t, dist[train], issame[train])
        best.append(thresholds[np.argmax(scores)])
        accuracies.append(accuracy(best[-1], dist[test], issame[test]))
    thresholds = np.arange(0, 4, 0.001)
    for train, test in folds:
        far = np.zeros(len(thresholds))
        for j, t in enumerate(thresholds):
            _, far[j] = val_far(t, dist[train], issame[train])
        threshold = interpolated(far_target, far, thresholds) if np.max(far) >= far_target else 0.0
        v, f = val_far(threshold, dist[test], issame[test])
        vals.append(v)
        fars.append(f)
    return dict(
        accuracy=np.mean(accuracies),
        std=np.std(accuracies),
        folds=accuracies,
        thresholds=best,
        val=np.mean(vals),
        val_std=np.std(vals),
        far=np.mean(fars),
    )


def interpolated(x, xs, ys):
    "The straight line between the last point at or below x and its successor"
    k = max(j for j, v in enumerate(xs) if v <= x)
    if k == len(xs) - 1 or xs[k] == x:
        return ys[k]
    return (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k]) * (x - xs[k]) + ys[k]


def random_pairs(n, noise, seed, dim=16):
    rng = np.random.default_rng(seed)
    issame = np.arange(n) % 2 == 0
    a = rng.normal(size=(n, dim))
    b = np.where(issame[:, None], a, rng.normal(size=(n, dim)))
    return a + noise * rng.normal(size=a.shape), b + noise * rng.normal(size=a.shape), issame


@pytest.mark.parametrize(
    "n, noise, far", [(2400, 0.5, None), (2251, 1.0, 1e-3), (637, 2.0, 1e-2), (1004, 4.0, 5e-3), (109, 0.2, 0.1)]
)
def test_equal_to_the_loops_to_the_last_digit(n, noise, far):
    pairs = random_pairs(n, noise, n)
    ours, loops = verify(*pairs, far=far), original(*pairs, far_target=far or 1e-3)
    assert ours == loops


def test_one_fold_trains_on_itself():
    emb1, emb2, issame = random_pairs(40, 1.0, 0)
    dist = (
        (emb1 / np.linalg.norm(emb1, axis=1, keepdims=True) - emb2 / np.linalg.norm(emb2, axis=1, keepdims=True)) ** 2
    ).sum(1)
    assert verify(emb1, emb2, issame, n_folds=1)["accuracy"] == max(
        ((dist < t) == issame).mean() for t in np.arange(0, 4, 0.01)
    )


def test_errors_name_the_index():
    emb1, emb2, issame = random_pairs(200, 1.0, 0)
    spoilt = emb2.copy()
    spoilt[123, 3] = np.nan
    twice1, twice2 = emb1.copy(), emb2.copy()
    twice1[150], twice2[150] = emb2[30], emb1[30]
    for call, words in (
        (lambda: verify(emb1, spoilt, issame), "pair 123, side 2 is not finite"),
        (lambda: verify(emb1 * 0 + 1, emb1 * 0 + 1, issame), "constant"),
        (lambda: verify(emb1, emb2, np.sort(issame)[::-1]), "unbalanced fold 0: pairs 0..19"),
        (lambda: verify(twice1, twice2, issame), "pair 150 repeats pair 30"),
        (lambda: verify(emb1, emb2, issame, far=1e-3), "far 0.001 cannot be measured: fold 0 .* 90 impostor"),
        (lambda: verify(emb1, emb2, issame, far=0), "far 0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert verify(twice1, twice2, issame, repeats=True)["accuracy"] > 0.5 and verify(emb1, emb2, issame)["val"] is None


def test_embed_adds_the_mirror_image_in_double_precision():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.w = torch.zeros(3), torch.randn(3 * 8 * 8, 32, generator=torch.Generator().manual_seed(0))

        def features(self, x):
            return x.flatten(1) @ self.w

    net, x = Net(), torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        a, b = net.features(x), net.features(x.flip(-1))
    both = unit_rows(a.double() + b.double(), str)
    assert np.array_equal(embed(net, x), both.astype(np.float32))
