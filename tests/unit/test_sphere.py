"""Anchors against the best known arrangements (tests/data/spherical_codes.csv: d, N, largest cosine; `achieved`: by a
search, not from the literature), and the guarantees of large codes, by algebra and on samples.

python -m pytest tests/unit/test_sphere.py              # a few rows
python tests/unit/test_sphere.py [first] [last line]  # every row with at most 5,000 points, with its seconds: an
hour or more
"""

import csv
import itertools
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from facesyn.sphere import large_sets, small_sets
from facesyn.sphere.anchors import describe, tammes_anchors
from facesyn.sphere.codes import check_code, kerdock_forms, quadratic_codes, trace_forms
from facesyn.sphere.fitted_codes import best_code, known_codes
from facesyn.sphere.geometry import levenshtein_bound, max_cosine, rankin_bound
from facesyn.sphere.large_sets import search_large
from facesyn.sphere.small_sets import search_small

ROWS = [
    (int(r["d"]), int(r["N"]), float(r["max_cosine"]), r["kind"])
    for r in csv.DictReader((Path(__file__).parents[1] / "data/spherical_codes.csv").open())
]
SMALL = [r for r in ROWS if r[1] <= 5000]
QUICK = [
    r
    for r in SMALL
    if r[3] in ("closed", "structured")
    and r[:2] != (6, 98)
    and r[1] < 3000
    and r[0] < 128
    or r[:2] in ((3, 24), (3, 38), (4, 10), (5, 12))
]


def miss(dim, n, cosine, kind):
    """How much the anchors' largest cosine exceeds the table's; a smaller one, which must respect the bounds, counts as
    0 where the table's is only the best known"""
    found = max_cosine(tammes_anchors(n, dim))
    assert found > max(rankin_bound(n, dim), levenshtein_bound(n, dim)) - 1e-6
    return abs(found - cosine) if kind == "closed" else max(found - cosine, 0.0)


@pytest.mark.parametrize("row", QUICK, ids=lambda r: f"{r[1]} x {r[0]}")
def test_best_known(row):
    assert miss(*row) < 1e-6


@pytest.mark.parametrize("row", [r for r in ROWS if r[1] > 5000], ids=lambda r: f"{r[1]} x {r[0]}")
def test_large_codes_on_samples(row):
    dim, n, cosine, _ = row
    code = best_code(n, dim)
    assert code.size >= n and code.cosine < cosine + 1e-12
    x = code.rows(np.sort(np.random.default_rng(0).choice(code.size, 10_000, replace=False)))
    assert np.abs(np.linalg.norm(x, axis=1) - 1).max() < 1e-12
    assert max_cosine(x.astype(np.float32)) < code.cosine + 1e-6


def largest_of_forms(q, p):
    """The largest cosine that words q(x)+u.x+c have with 0, over all u and c, for the forms q (k, p^m)

    Cosines of two words depend on the difference of their forms alone, and those of one difference with every linear
    function are one discrete Fourier transform (for p = 2 a product with Hadamard's matrix).
    """
    q = np.asarray(q, int)  # multiplied by numbers up to p below
    places = q.shape[1]
    digits = np.arange(places)[:, None] // p ** np.arange(round(math.log(places, p))) % p
    root = np.exp(2j * np.pi / p * np.arange(p)) if p > 2 else np.array([1.0, -1.0], np.float32)
    total = np.array(
        [(root[a * q % p] @ root[a * (digits @ digits.T) % p]).ravel() for a in range(1, p)]
    )  # the sum over x of exp(2 pi i a (q(x)+u.x)/p) for every u
    return max(float((root[np.arange(1, p) * c % p] @ total).real.max()) for c in range(p)) / ((p - 1) * places)


@pytest.mark.parametrize("p, m, exponent", [(2, 9, 3), (2, 7, 3), (5, 3, 2), (3, 5, 2), (13, 1, 2), (3, 4, 2)])
def test_guarantee_of_forms_by_algebra(p, m, exponent):
    "These forms are closed under addition, so every difference of two is one of them"
    code = next(quadratic_codes(p, m))
    found = largest_of_forms(trace_forms(p, m, [exponent])(np.arange(1, p**m)), p)
    assert abs(found - code.cosine) < 1e-12
    check_code(code)


@pytest.mark.parametrize("m", [4, 6, 8])
def test_every_pair_of_kerdock_forms(m):
    q = kerdock_forms(m)(np.arange(2 ** (m - 1)))
    a, b = np.triu_indices(len(q), 1)
    assert abs(largest_of_forms(q[a] ^ q[b], 2) - 2 ** (-m / 2)) < 1e-12


@pytest.mark.parametrize(
    "m, forms, count", [(8, kerdock_forms(8, True), 2**14), (9, trace_forms(2, 9, [3, 5]), 2**18)], ids=["DG", "BCH"]
)
def test_some_pairs_of_many_forms(m, forms, count):
    code = list(quadratic_codes(2, m))[1]
    a, b = np.random.default_rng(0).integers(0, count, (2, 4000))
    assert largest_of_forms((forms(a) ^ forms(b))[a != b], 2) < code.cosine + 1e-12
    check_code(code)


def test_every_pair_of_forms():
    """All differences of forms, not a sample: for every linear function and constant, so every pair of 2^28 and of 2^23
    vectors"""

    def largest(q):
        return max(largest_of_forms(part, 2) for part in np.array_split(q, -(-len(q) // 4096)))

    dual = next(c for c in quadratic_codes(2, 9) if c.name == "dual BCH 2")
    assert (
        abs(largest(trace_forms(2, 9, [3, 5])(np.arange(1, 2**18))) - dual.cosine) < 1e-12
    )  # closed under addition: a difference is a form
    both = kerdock_forms(6, True)(np.arange(2**10))
    delsarte = list(quadratic_codes(2, 6))[1]
    a, b = np.triu_indices(len(both), 1)
    assert abs(largest(both[a] ^ both[b]) - delsarte.cosine) < 1e-12


@pytest.mark.parametrize(
    "n, dim, least",
    [
        (1000, 512, 89.999),
        (4617, 512, 89.10),
        (10_000, 512, 87.57),
        (100_000, 512, 86.81),
        (250_000, 512, 86.52),
        (500_000, 512, 86.41),
        (1_000_000, 512, 83.62),
        (10_000, 256, 86.83),
        (10_000, 128, 83.21),
        (2000, 128, 84.52),
    ],
)
def test_promised_angles(n, dim, least):
    about = describe(n, dim)
    assert about["degrees"]["guaranteed"] >= least and about["bound"] <= about["guaranteed"]


def test_no_code_beats_the_bound():
    for dim in (3, 4, 8, 24, 64, 128, 512):
        for c in known_codes(dim):
            assert c.cosine > levenshtein_bound(c.size, c.dim) - 1e-9, c
        for n in np.unique(np.geomspace(2 * dim + 1, 1e6, 40).astype(int)):
            if c := best_code(int(n), dim):
                assert c.cosine > levenshtein_bound(int(n), dim) - 1e-9, (n, dim, c)


MADE = """
import hashlib, torch
from facesyn.sphere.large_sets import code_anchors, search_large
from facesyn.sphere.small_sets import search_small
codes = [code_anchors(*shape, 3) for shape in ((756, 105), (2752, 301), (3000, 256))]
for x in (search_small(20, 3, 3, effort=.02), search_large(400, 16, 3), *codes):
    print(hashlib.sha256(x.numpy().tobytes()).hexdigest())
"""


def test_same_anchors_with_any_number_of_threads(tmp_path):
    """In processes of their own, since the libraries read their number of threads at the start; the first compiles, the
    others find what it compiled"""
    made = [
        subprocess.run(
            [sys.executable, "-c", MADE],
            env=os.environ
            | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), k)
            | dict(NUMBA_CACHE_DIR=str(tmp_path)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-5:]
        for k in ("1", "2", "3")
    ]
    assert len(made[0]) == 5 and made[0] == made[1] == made[2]
    before = torch.get_num_threads()
    tammes_anchors(400, 16)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "search",
    [lambda **kw: search_large(200, 16, 3, **kw), lambda **kw: search_small(20, 3, 3, effort=0.06, **kw)],
    ids=["large", "small"],
)
@pytest.mark.parametrize("rounds", [1, 5])
def test_stopped_search_goes_on_to_the_same_set(search, rounds, tmp_path, monkeypatch):
    whole, keep, calls = search(), large_sets.save_checkpoint, []

    def stop(*a, **kw):
        keep(*a, **kw)
        calls.append(1)
        if len(calls) == rounds:
            raise KeyboardInterrupt

    for room in (large_sets, small_sets):
        monkeypatch.setattr(room, "save_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        search(checkpoint=tmp_path / "a.safetensors")
    assert torch.equal(search(checkpoint=tmp_path / "a.safetensors"), whole) and torch.equal(
        search(checkpoint=tmp_path / "a.safetensors"), whole
    )
    with pytest.raises(ValueError, match=r"a.safetensors was made with other settings.*\bn: "):
        tammes_anchors(300, 12, checkpoint=tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors was made with other settings.*\bn: "):
        tammes_anchors(21, 3, checkpoint=tmp_path / "a.safetensors")


WITHOUT_NUMBA = """
import sys


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "numba":
            raise ModuleNotFoundError("No module named 'numba'", name="numba")


sys.meta_path.insert(0, Hidden())
from facesyn.sphere import max_cosine, spread, tammes_anchors
from facesyn.sphere.small_sets import search_small

assert max_cosine(tammes_anchors(250, 12)) < 0.44 and abs(max_cosine(tammes_anchors(240, 8)) - 0.5) < 1e-6
assert spread(tammes_anchors(24, 12), 2, 0.7, 0.9).shape == (24, 2, 12)
for search in (lambda: tammes_anchors(30, 4), lambda: search_small(20, 3, 3)):
    try:
        search()
    except ImportError as e:
        print(e)
    else:
        raise AssertionError("searched without numba")
"""


def test_without_numba():
    "Codes and springs need none; a search of a small set says how to install it"
    said = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    error = "the search of small sets needs numba: pip install 'facesyn[anchors]'"
    assert said.stdout.splitlines()[-2:] == [error] * 2


@pytest.mark.parametrize(
    "n, dim",
    [
        (1, 2),
        (2, 2),
        (3, 2),
        (1, 5),
        (2, 3),
        (7, 3),
        (9, 4),
        (17, 8),
        (65, 32),
        (300, 12),
        (220, 6),
        (600, 3),
        (1000, 2),
    ],
)
def test_small_and_odd_sizes(n, dim):
    x = tammes_anchors(n, dim)
    about = describe(n, dim, x)
    assert x.shape == (n, dim) and (x.norm(dim=1) - 1).abs().max() < 1e-6
    assert n == 1 or about["bound"] - 1e-6 < about["measured"] <= about["random"] + 1e-6


def test_describe_says_how_far_a_search_is_trusted():
    for n, dim, words in ((90, 6, "compare seeds"), (120, 3, "compare seeds"), (33, 16, "annealed")):
        assert words in describe(n, dim)["trust"]
    assert "trust" not in describe(5000, 512)


def test_small_set_of_many_dimensions():
    "Beyond the linear programs, by annealing alone"
    assert max(rankin_bound(33, 16), levenshtein_bound(33, 16)) < max_cosine(search_small(33, 16, effort=0.05)) < 0.12


if __name__ == "__main__":
    torch.set_num_threads(1)
    for row in itertools.islice(SMALL, *map(int, sys.argv[1:3])) if len(sys.argv) > 2 else SMALL:
        start = time.process_time()
        far = miss(*row)
        print(
            f"{'ok' if far < 1e-6 else 'MISSED':6} {row[1]:5} x {row[0]:3}  off by {far:.1e} "
            f" {time.process_time() - start:5.1f} s of a core  {describe(row[1], row[0])['how']}",
            flush=True,
        )
