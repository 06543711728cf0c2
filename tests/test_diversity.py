"""Diversity at the edges: copies and exact ties, crowded sets, and whether bootstrap intervals hold the truth as often as they say."""
import numpy as np
import pytest
from facesyn.diversity import bootstrap_interval, frechet_distance, paired_bootstrap, per_identity, prdc, score_set, uniqueness, vendi
from facesyn.verification import eer, fdr


@pytest.mark.parametrize("seed", range(6))
def test_prdc_with_copies_and_ties(seed):
    "Points of a small grid: squared distances are integers, so the definitions can be followed exactly"
    g = np.random.default_rng(seed)
    real, fake, k = g.integers(0, 4, (60, 3)), g.integers(0, 5, (45, 3)), 1+seed%4
    between = lambda a, b: ((a[:, None]-b)**2).sum(-1)
    r, f = (np.array([sorted(np.delete(row, i))[k-1] for i, row in enumerate(between(x, x))]) for x in (real, fake))
    d = between(real, fake)
    expected = dict(precision=(d < r[:, None]).any(0).mean(), recall=(d < f).any(1).mean(), density=(d < r[:, None]).sum()/k/len(fake), coverage=(d < r[:, None]).any(1).mean())
    for block in (7, 512): assert prdc(real, fake, k, block) == pytest.approx(expected, abs=1e-12)


def test_many_copies_leave_no_ball():
    same = np.repeat(np.random.default_rng(0).normal(size=(5, 300)), 8, 0)+1000
    assert prdc(same, same, 5) == dict(precision=0, recall=0, density=0, coverage=0)
    assert vendi(same-1000) < 5.01


def test_frechet_of_more_dimensions_than_images_is_that_of_their_span():
    "Padding and turning change nothing: the distance in 500 dimensions is the one in 20"
    g = np.random.default_rng(1)
    a, b = g.normal(size=(300, 20)), 1.5*g.normal(size=(400, 20))+.2
    turn = np.linalg.qr(g.normal(size=(500, 20)))[0].T
    assert frechet_distance(a@turn, b@turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_uniqueness_of_a_crowd():
    g = np.random.default_rng(2)
    c, who = g.normal(size=(900, 6)), g.permutation(900)
    kept, unit = [], (c/np.linalg.norm(c, axis=1, keepdims=True))[np.argsort(who)]
    for i in range(900):
        if not kept or (unit[kept]@unit[i]).max() < .3: kept.append(i)
    printed = np.mean([i == 0 or (unit[:i]@unit[i]).max() < .3 for i in range(900)])
    for block in (64, 1024): assert uniqueness(c, who, block=block) == pytest.approx(dict(packing=len(kept)/900, printed=printed))


NOISE, STATISTICS = (1.2, 1.3), dict(gap=lambda g, i: g.mean()-i.mean(), genuine=lambda g, i: g.mean(), fdr=fdr)

def generators(people, seed, impostors):
    "Two generators with the same people and nearly the same noise, of which the second has more"
    g = np.random.default_rng(seed)
    y, z = g.normal(size=(people, 1, 24)), g.normal(size=(people, 5, 24))
    emb, who = [(y+noise*z+.2*g.normal(size=z.shape)).reshape(-1, 24) for noise in NOISE], np.repeat(np.arange(people), 5)
    return emb, who, [score_set(e, who, max_impostors=impostors, seed=seed) for e in emb]


def coverage(truth, intervals): return np.mean([low <= truth <= high for low, high in intervals])


@pytest.fixture(scope="module")
def large(): return [generators(1500, 10**6+k, 300_000)[2] for k in range(3)]


@pytest.mark.parametrize("name", STATISTICS)
def test_intervals_hold_the_truth(large, name):
    "A share of 0.95 is expected of 150 experiments; 0.88 and 0.99 are four and two standard errors away"
    f = STATISTICS[name]
    truth = np.mean([[f(s.genuine, s.impostor) for s in sets] for sets in large], 0)
    found = [paired_bootstrap(*generators(40, seed, 800)[2], f, rounds=120) for seed in range(150)]
    paired, single = coverage(truth[0]-truth[1], [d["interval"] for d in found]), coverage(truth[0], [d["a_interval"] for d in found])
    print(f"{name}: paired {paired:.3f}, single {single:.3f}")
    assert .88 <= paired <= .99 and .88 <= single <= .99
    assert np.mean([np.ptp(d["interval"]) for d in found]) < .8*np.mean([np.ptp(d["a_interval"]) for d in found])


def test_intervals_of_numbers_per_person_hold_the_truth():
    f = lambda x: np.linalg.norm(x-x.mean(0), axis=1).mean()                       # how far a person's pictures lie from their mean
    own = lambda people, seed: [per_identity(f, e, who) for e, who in zip(*(lambda e, w, _: (e, [w, w]))(*generators(people, seed, 10)))]
    means = np.mean([[np.mean([*x.values()]) for x in own(2000, 10**6+k)] for k in range(3)], 0)
    found = [paired_bootstrap(*own(40, seed), np.mean, rounds=200) for seed in range(150)]
    paired = coverage(means[0]-means[1], [d["interval"] for d in found])
    print(f"per person: {paired:.3f}")
    assert .88 <= paired <= .99


def test_eer_interval_does_not_promise_too_much(large):
    "Wide rather than narrow: a drawn impostor pair's own chance counts more than once"
    truth = np.mean([eer(s[0].genuine, s[0].impostor) for s in large])
    intervals = [bootstrap_interval(generators(40, seed, 800)[2][0], eer, rounds=100) for seed in range(80)]
    print(f"EER: {coverage(truth, intervals):.3f}")
    assert coverage(truth, intervals) >= .88
