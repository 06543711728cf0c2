"""Bad input to the floor `measure`: a row is a call and the words that its error must have."""

import numpy as np
import pytest

from facesyn.core.checks import refused
from facesyn.measure.diversity import attribute_spread, centres, frechet_distance, per_identity, prdc, vendi
from facesyn.measure.intervals import bootstrap_interval, paired_bootstrap
from facesyn.measure.leakage import nearest_pictures
from facesyn.measure.scores import (
    FAR_RULES,
    ScoreSet,
    check_differ,
    cross_pairs,
    eer,
    fdr,
    fmr_threshold,
    fnmr_at_fmr,
    score_pairs,
    score_set,
    tar_at_far,
    unit_rows,
)
from facesyn.measure.templates import template_features, template_scores, template_tar
from facesyn.measure.verification import recovered, verify

RNG = np.random.default_rng(0)
EMB, WHO = RNG.normal(size=(60, 8)), np.repeat([f"p{i:02d}" for i in range(12)], 5)
SCORES = score_set(EMB, WHO)
GENUINE, IMPOSTOR = RNG.normal(0.6, 0.15, 1000), RNG.normal(0.05, 0.1, 500)
X = RNG.normal(size=(80, 6))
S, T = np.where(np.arange(200) % 2, -1.0, 1.0), np.arange(200) % 2 == 0  # alternately genuine and impostor
ONE = RNG.normal(size=(200, 8))
TWO = ONE * S[:, None] + 0.1 * RNG.normal(size=(200, 8))
AGES = dict.fromkeys(map(str, range(10)), 1.0)
ATTRIBUTES, PEOPLE = RNG.normal(0, 10, (36, 4)), np.repeat([0, 1, 2], 12)
FEATURES, TEMPLATE, MEDIA = RNG.normal(size=(60, 8)), np.repeat(np.arange(12), 5), np.arange(60)
IDS, UNIT = template_features(FEATURES, TEMPLATE, MEDIA)
PIXELS = RNG.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def spoilt(x, row, value):
    bad = np.array(x, float)
    bad[row] = value
    return bad


def scores(genuine_of=SCORES.genuine_of, names=SCORES.names, impostor_of=SCORES.impostor_of):
    return ScoreSet(SCORES.genuine, SCORES.impostor, names, genuine_of, impostor_of)


ROWS = [
    (lambda: unit_rows([[3, 4], [np.nan, 2]], "image {}".format), "image 1", "not finite"),
    (lambda: unit_rows([[3, 4], [0, 0]], "image {}".format), "image 1", "zero"),
    (lambda: check_differ(unit_rows([[3, 4], [6, 8]], str)), "constant"),
    (lambda: score_pairs([1, 1]), "1 identities with 1 genuine pairs"),
    (lambda: cross_pairs(["a", "b"], ["c"]), "no identity", "'a'", "'c'"),
    (lambda: cross_pairs([1, 1], [1]), "no impostor"),
    (lambda: score_set(spoilt(EMB, 9, np.inf), WHO), "image 9", "not finite"),
    (lambda: score_set(EMB, np.arange(60)), "0 genuine"),
    (lambda: score_set(EMB, WHO, EMB[:, :5], WHO), "set 0 has 8", "set 1 5"),
    (lambda: score_set(EMB, WHO, spoilt(EMB, 6, np.nan), WHO), "image 6 of set 1"),
    (lambda: score_set(EMB, WHO, EMB, WHO[1:]), "set 1", "60 embeddings", "(59,)"),
    (lambda: score_set(EMB, WHO, EMB, np.repeat(["x", "y"], 30)), "no identity"),
    (lambda: scores(names=SCORES.names[::-1]), "rise"),
    (lambda: scores(impostor_of=SCORES.impostor_of[1:]), "impostor scores"),
    (lambda: eer([], [0.1]), "genuine scores: no values"),
    (lambda: eer([0.1], [0.2, np.nan]), "impostor scores: value 1 is not finite"),
    (lambda: fmr_threshold(IMPOSTOR, 1.0), "[0, 1)", "1.0"),
    (lambda: fnmr_at_fmr(GENUINE, IMPOSTOR, 0.001), "500 impostor", "0.002"),
    *((lambda rule=rule: tar_at_far(GENUINE, IMPOSTOR, 0.001, rule), "500 impostor") for rule in FAR_RULES),
    (lambda: tar_at_far(GENUINE, IMPOSTOR, 0.01, "best"), "nearest"),
    (lambda: fdr([1, 1], [0, 0]), "constant"),
    (lambda: paired_bootstrap(AGES, {k: 1.0 for k in AGES if k != "7"}, np.mean), "'7'"),
    (lambda: bootstrap_interval(dict(ann=1.0, bob=2.0), np.mean), "2 identities", "at least 8"),
    (lambda: verify(ONE, spoilt(TWO, 17, np.nan), T), "pair 17", "side 2", "not finite"),
    (lambda: verify(spoilt(ONE, 3, 0), ONE, T), "pair 3", "side 1", "zero"),
    (lambda: verify(np.ones((20, 4)), 3 * np.ones((20, 4)), np.arange(20) % 2), "constant"),
    (lambda: verify(ONE, TWO, np.sort(T)), "unbalanced fold 0", "impostor"),
    (lambda: verify(ONE, TWO[:-1], T), "(200, 8)", "(199, 8)"),
    (lambda: verify(ONE, TWO, T * 2), "0 and 1"),
    (lambda: verify(ONE[:5], TWO[:5], T[:5]), "n_folds"),
    (lambda: verify(np.r_[ONE, TWO[7:8]], np.r_[TWO, ONE[7:8]], np.r_[T, T[7]]), "pair 200 repeats pair 7"),
    (lambda: verify(ONE, TWO, T, far=1e-3), "far 0.001", "90 impostor"),
    (lambda: recovered(dict(a=0.9), dict(b=0.9), dict(a=0.6)), "'b'"),
    (lambda: recovered(dict(a=0.9), dict(a=0.6), dict(a=0.6)), "nothing to recover"),
    (lambda: template_features(spoilt(FEATURES, 17, np.nan), TEMPLATE, MEDIA), "image 17"),
    (lambda: template_features(spoilt(FEATURES, 17, np.nan), TEMPLATE, MEDIA, norm=False), "image 17"),
    (lambda: template_features(FEATURES, TEMPLATE, MEDIA[:-1]), "media", "(59,)"),
    (lambda: template_features(np.array([[1.0, 0], [-1, 0]]), np.array([4, 4]), [0, 1]), "template 4", "zero"),
    (lambda: template_scores(IDS, UNIT, [0, 300], [1, 2]), "pair 1", "template 300"),
    (lambda: template_tar(IDS, UNIT, [0, 2], [1, 4], np.arange(12) // 2, (1e-7,)), "cannot be measured"),
    (lambda: per_identity(np.std, [30, 50, 32], ["bob", "ann", "bob"], least=2), "'ann'", "1 images", "2"),
    (lambda: per_identity(np.mean, [1, 2, 3], [0, 1]), "3 rows", "(2,)"),
    (lambda: vendi(spoilt(X, 4, np.nan)), "row 4", "not finite"),
    (lambda: vendi(spoilt(X, 11, 0)), "row 11", "zero"),
    (lambda: vendi(X[:0]), "0 rows"),
    (lambda: vendi(X[0]), "(6,)"),
    (lambda: prdc(X[:5], X, 5), "real", "5 rows", "at least 6"),
    (lambda: prdc(X, X[:, :4]), "real has 6", "fake 4"),
    (lambda: prdc(X, spoilt(X, 7, np.inf)), "fake", "row 7"),
    (lambda: prdc(X, X, 0), "k must be"),
    (lambda: frechet_distance(X[:1], X), "a: 1 rows", "covariance", "at least 2"),
    (lambda: frechet_distance(X, X[:, :3]), "a has 6", "b 3"),
    (lambda: centres([[1.0, 0.0], [-1.0, 0.0]], ["ann", "ann"]), "'ann'", "zero"),
    (lambda: attribute_spread(ATTRIBUTES[:13], PEOPLE[:13]), "identity 1", "1 images"),
    (lambda: attribute_spread(ATTRIBUTES[:, :3], PEOPLE), "(n, 4)", "(36, 3)"),
    (lambda: attribute_spread(ATTRIBUTES, PEOPLE[1:]), "36 rows", "35 labels"),
    (lambda: attribute_spread(spoilt(ATTRIBUTES, 8, np.inf), PEOPLE), "row 8"),
    (lambda: nearest_pictures(PIXELS[:1]), "1 pictures"),
    (lambda: nearest_pictures(PIXELS, PIXELS[:, :8]), "(16, 16, 3)"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)
