"""Rates against independent formulas; one bootstrap over people: its intervals cover the truth as often as they say."""

import numpy as np
import pytest

from facesyn.measure.diversity import per_identity
from facesyn.measure.intervals import bootstrap_interval, paired_bootstrap, redrawn
from facesyn.measure.scores import FAR_RULES, ScoreSet, auc, eer, fdr, fnmr_at_fmr, rates, score_set, tar_at_far


@pytest.mark.parametrize("seed", range(5))
def test_auc_and_eer_by_other_formulas(seed):
    rng = np.random.default_rng(seed)
    g, i = np.round(rng.normal(0.5, 0.3, 70), 1 + seed), np.round(rng.normal(0, 0.3, 90), 1 + seed)
    merged = np.concatenate([g, i])
    ranks = np.array([(merged < x).sum() + ((merged == x).sum() + 1) / 2 for x in merged])
    assert np.isclose(auc(g, i), (ranks[:70].sum() - 70 * 71 / 2) / (70 * 90), atol=1e-14)
    assert np.isclose(auc(g, i), np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x in g for y in i]), atol=1e-14)
    points = [(np.mean(i >= t), np.mean(g < t)) for t in [*sorted(set(merged)), np.inf]]
    for (fmr0, fnmr0), (fmr1, fnmr1) in zip(points, points[1:]):
        if fmr0 >= fnmr0 and fmr1 <= fnmr1:
            x = (fmr0 - fnmr0) / ((fmr0 - fnmr0) + (fnmr1 - fmr1)) if fmr0 != fnmr0 or fmr1 != fnmr1 else 0
            assert np.isclose(eer(g, i), fmr0 + x * (fmr1 - fmr0), atol=1e-14)
            break
    else:
        raise AssertionError("no crossing")


def test_three_rules_by_hand():
    g, i = [0.95, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.3], [0.85, 0.65, 0.52, 0.4, 0.35, 0.2, 0.1, 0.05, 0.02, 0.0]
    assert np.allclose(
        [tar_at_far(g, i, 0.16, rule) for rule in FAR_RULES], [4 / 8, 6 / 8, 0.5 + 0.6 * 0.25]
    )  # corners (0.1, 4/8) and (0.2, 6/8)
    assert np.allclose([tar_at_far(g, i, 0.1, rule) for rule in FAR_RULES], 4 / 8)
    for rule in FAR_RULES:
        with pytest.raises(ValueError, match="10 impostor"):
            tar_at_far(g, i, 0.05, rule)


@pytest.mark.parametrize("seed", range(10))
def test_not_exceeding_is_the_best_threshold_that_keeps_far(seed):
    rng = np.random.default_rng(seed)
    g, i = np.round(rng.normal(0.5, 0.3, 50), 2), np.round(rng.normal(0, 0.3, 300), 2)
    for far in (0.005, 0.01, 0.1, 0.37):
        tars = [np.mean(g >= t) for t in [*np.concatenate([g, i]), np.inf] if np.mean(i >= t) <= far]
        assert np.isclose(tar_at_far(g, i, far, "not exceeding"), max(tars))


def test_zero_fmr_when_the_top_score_is_an_impostor():
    assert fnmr_at_fmr([0.5, 0.6, 0.7], [0.9, 0.1], 0) == 1 and fnmr_at_fmr([0.5, 0.6, 0.95], [0.9, 0.1], 0) == 2 / 3
    table = rates([0.5, 0.6, 0.7], np.linspace(0, 0.9, 100))
    assert table["zerofmr"] == 1 and table["fmr1000"] is None and table["fmr100"] is not None


NOISE, STATISTICS = (1.2, 1.3), dict(gap=lambda g, i: g.mean() - i.mean(), genuine=lambda g, i: g.mean(), fdr=fdr)


def generators(people, seed, impostors):
    "Two generators with the same people and nearly the same noise, of which the second has more"
    g = np.random.default_rng(seed)
    y, z = g.normal(size=(people, 1, 24)), g.normal(size=(people, 5, 24))
    emb, who = (
        [(y + noise * z + 0.2 * g.normal(size=z.shape)).reshape(-1, 24) for noise in NOISE],
        np.repeat(np.arange(people), 5),
    )
    return emb, who, [score_set(e, who, max_impostors=impostors, seed=seed) for e in emb]


def coverage(truth, intervals):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.fixture(scope="module")
def large():
    return [generators(1500, 10**6 + k, 300_000)[2] for k in range(3)]


@pytest.mark.parametrize("name", STATISTICS)
def test_intervals_hold_the_truth(large, name):
    "A share of 0.95 is expected of 150 experiments; 0.88 and 0.99 are four and two standard errors away"
    f = STATISTICS[name]
    truth = np.mean([[f(s.genuine, s.impostor) for s in sets] for sets in large], 0)
    found = [paired_bootstrap(*generators(40, seed, 800)[2], f, rounds=120) for seed in range(150)]
    paired, single = (
        coverage(truth[0] - truth[1], [d["interval"] for d in found]),
        coverage(truth[0], [d["a_interval"] for d in found]),
    )
    print(f"{name}: paired {paired:.3f}, single {single:.3f}")
    assert 0.88 <= paired <= 0.99 and 0.88 <= single <= 0.99
    assert np.mean([np.ptp(d["interval"]) for d in found]) < 0.8 * np.mean([np.ptp(d["a_interval"]) for d in found])


def test_intervals_of_numbers_per_person_hold_the_truth():
    def f(x):
        return np.linalg.norm(x - x.mean(0), axis=1).mean()  # how far a person's pictures lie from their mean

    def own(people, seed):
        return [
            per_identity(f, e, who) for e, who in zip(*(lambda e, w, _: (e, [w, w]))(*generators(people, seed, 10)))
        ]

    means = np.mean([[np.mean([*x.values()]) for x in own(2000, 10**6 + k)] for k in range(3)], 0)
    found = [paired_bootstrap(*own(40, seed), np.mean, rounds=200) for seed in range(150)]
    paired = coverage(means[0] - means[1], [d["interval"] for d in found])
    print(f"per person: {paired:.3f}")
    assert 0.88 <= paired <= 0.99


def test_eer_interval_does_not_promise_too_much(large):
    "Wide rather than narrow: a drawn impostor pair's own chance counts more than once"
    truth = np.mean([eer(s[0].genuine, s[0].impostor) for s in large])
    intervals = [bootstrap_interval(generators(40, seed, 800)[2][0], eer, rounds=100) for seed in range(80)]
    print(f"EER: {coverage(truth, intervals):.3f}")
    assert coverage(truth, intervals) >= 0.88


def test_the_order_of_people_and_pictures_does_not_show():
    "Other rows, other order, to the last digit; another name of the same rank changes nothing either"
    emb, who, (a, b) = generators(30, 3, 10**6)
    turn = np.random.default_rng(0).permutation(len(who))
    turned = [score_set(e[turn], who[turn]) for e in emb]
    named = [score_set(e, np.array([f"p{i:03d}" for i in who])) for e in emb]
    for f in (eer, fdr, lambda g, i: g.mean(), lambda g, i: rates(g, i)["fmr100"]):
        assert paired_bootstrap(a, b, f, 40) == paired_bootstrap(*turned, f, 40) == paired_bootstrap(*named, f, 40)
    own = per_identity(lambda x: float(x.std()), emb[0], who)
    shuffled = {k: own[k] for k in np.random.default_rng(1).permutation(list(own)).tolist()}
    assert bootstrap_interval(own, np.mean, 40) == bootstrap_interval(shuffled, np.mean, 40)


def test_one_draw_of_people_for_all_sets():
    "Score sets and numbers per person in one call: the counts of the draw are seen by both"
    emb, who, (a, b) = generators(20, 4, 10**6)
    alike = ScoreSet(
        a.genuine_of.astype(float), np.zeros(len(a.impostor)), a.names, a.genuine_of, a.impostor_of
    )  # a genuine score is its person's number
    sets = [dict(zip(a.names, np.arange(20.0))), dict(zip(a.names, 2 * np.arange(20.0)))]
    one = redrawn(sets, np.mean, 50, seed=7)
    assert np.array_equal(one[:, 1], 2 * one[:, 0]) and np.allclose(
        redrawn((alike,), lambda g, i: g.mean(), 50, seed=7)[:, 0], one[:, 0]
    )
    for seed in (7, 8):
        assert np.array_equal(
            redrawn((a, b), eer, 20, seed), np.concatenate([redrawn((x,), eer, 20, seed) for x in (a, b)], 1)
        )
    assert not np.array_equal(redrawn((a,), eer, 20, 7), redrawn((a,), eer, 20, 8))
    with pytest.raises(ValueError, match="only in one"):
        redrawn((a, score_set(emb[0][:-5], who[:-5])), eer, 5)


def test_a_rate_that_a_round_cannot_tell_is_left_out():
    _, _, (a, _) = generators(10, 5, 120)  # 120 drawn impostor pairs: in some rounds fewer than 100 are left
    values = redrawn((a,), rates, 60)
    left = ~np.isnan(values["fmr100"][:, 0])
    assert 0 < left.sum() < 60 and np.isnan(values["fmr1000"]).all()
    intervals = bootstrap_interval(a, rates, 60)
    assert intervals["fmr1000"] is None and intervals["fmr100"] == tuple(
        np.quantile(values["fmr100"][left, 0], [0.025, 0.975])
    )
