"""Diversity at the edges: copies and exact ties, crowded sets."""

import numpy as np
import pytest

from facesyn.measure.diversity import frechet_distance, prdc, uniqueness, vendi


@pytest.mark.parametrize("seed", range(6))
def test_prdc_with_copies_and_ties(seed):
    "Points of a small grid: squared distances are integers, so the definitions can be followed exactly"
    g = np.random.default_rng(seed)
    real, fake, k = g.integers(0, 4, (60, 3)), g.integers(0, 5, (45, 3)), 1 + seed % 4

    def between(a, b):
        return ((a[:, None] - b) ** 2).sum(-1)

    r, f = (np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(between(x, x))]) for x in (real, fake))
    d = between(real, fake)
    expected = dict(
        precision=(d < r[:, None]).any(0).mean(),
        recall=(d < f).any(1).mean(),
        density=(d < r[:, None]).sum() / k / len(fake),
        coverage=(d < r[:, None]).any(1).mean(),
    )
    for block in (7, 512):
        assert prdc(real, fake, k, block) == pytest.approx(expected, abs=1e-12)


def test_many_copies_leave_no_ball():
    same = np.repeat(np.random.default_rng(0).normal(size=(5, 300)), 8, 0) + 1000
    assert prdc(same, same, 5) == dict(precision=0, recall=0, density=0, coverage=0)
    assert vendi(same - 1000) < 5.01


def test_frechet_of_more_dimensions_than_images_is_that_of_their_span():
    "Padding and turning change nothing: the distance in 500 dimensions is the one in 20"
    g = np.random.default_rng(1)
    a, b = g.normal(size=(300, 20)), 1.5 * g.normal(size=(400, 20)) + 0.2
    turn = np.linalg.qr(g.normal(size=(500, 20)))[0].T
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_uniqueness_of_a_crowd():
    g = np.random.default_rng(2)
    c, who = g.normal(size=(900, 6)), g.permutation(900)
    kept, unit = [], (c / np.linalg.norm(c, axis=1, keepdims=True))[np.argsort(who)]
    for i in range(900):
        if not kept or (unit[kept] @ unit[i]).max() < 0.3:
            kept.append(i)
    printed = np.mean([i == 0 or (unit[:i] @ unit[i]).max() < 0.3 for i in range(900)])
    for block in (64, 1024):
        assert uniqueness(c, who, block=block) == pytest.approx(dict(packing=len(kept) / 900, printed=printed))
