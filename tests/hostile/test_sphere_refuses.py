"""Bad input to the floor `sphere`: a row is a call and the words that its error must have."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from facesyn.core.checks import refused
from facesyn.sphere.anchors import describe, principal_space, tammes_anchors
from facesyn.sphere.codes import finite_field, kerdock_forms, quadratic_codes, reed_solomon
from facesyn.sphere.fitted_codes import best_code
from facesyn.sphere.galleries import gallery_anchors, select_distinct
from facesyn.sphere.geometry import check_size, levenshtein_bound, max_cosine, random_anchors
from facesyn.sphere.large_sets import code_anchors, s_iso, search_large
from facesyn.sphere.small_sets import search_small
from facesyn.sphere.spreading import nearest_other, spread, spread_rows

ANCHORS = random_anchors(12, 512)
FEW = random_anchors(9, 8)
FLAT = torch.nn.functional.normalize(random_anchors(200, 3) @ random_anchors(3, 16))  # uses three directions only
ZERO = FEW * (torch.arange(9) != 7)[:, None]

ROWS = [
    (lambda: check_size(2.5, 3), "n must be a whole number >= 1, got 2.5"),
    (lambda: check_size(3, 1), "dim must be a whole number >= 2"),
    (lambda: check_size(True, 3), "got True"),
    (lambda: random_anchors(2.5, 8), "2.5"),
    (lambda: max_cosine(ANCHORS * torch.tensor([1.0] * 11 + [math.nan])[:, None]), "anchor 11", "finite"),
    (lambda: max_cosine(ANCHORS[:1]), "2 or more anchors"),
    (lambda: max_cosine(2 * ANCHORS), "anchor 0", "unit"),
    (lambda: levenshtein_bound(0, 3), "n must"),
    (lambda: finite_field(6), "a power of a prime", "6"),
    (lambda: kerdock_forms(5), "even"),
    (lambda: reed_solomon(5, 9, 2), "length=9"),
    (lambda: best_code(10.5, 8), "n must"),
    (lambda: best_code(0, 5), "n must"),
    (lambda: best_code(5, 0), "dim must"),
    (lambda: code_anchors(10**9, 3), "no code of 1000000000 points in 3"),
    (lambda: s_iso(100, 64), "n=100"),
    (lambda: search_large(60, 8, start=random_anchors(50, 8)), "start (60, 8)", "(50, 8)"),
    (lambda: search_small(0, 3), "n must"),
    (lambda: tammes_anchors(0, 8), "n must be", "0"),
    (lambda: tammes_anchors(10, 1), "dim must be", "1"),
    (lambda: tammes_anchors(10, 8, method="best"), "method", "best", "search"),
    (lambda: tammes_anchors(10**9, 3, method="code"), "no code of 1000000000 points in 3"),
    (lambda: tammes_anchors(10, 8, space=torch.eye(3)), "space (k, 8)", "(3, 3)"),
    (lambda: tammes_anchors(10, 8, space=torch.zeros(3, 8)), "3 directions", "independent"),
    (lambda: tammes_anchors(10, 8, space=torch.full((3, 8), math.nan)), "3 directions", "independent"),
    (lambda: describe(10, 8, method="best"), "method", "best"),
    (lambda: describe(10, 8, anchors=FEW), "(10, 8)", "(9, 8)"),
    (lambda: principal_space(FLAT, 9, whiten=True), "only 3", "9"),
    (lambda: principal_space(ANCHORS, 13), "13 dimensions", "allow 2 to 12"),
    (lambda: principal_space(ANCHORS, 2.5), "2.5"),
    (lambda: principal_space(ANCHORS[0], 2), "(n, dim)", "(512,)"),
    (lambda: principal_space(ANCHORS * math.nan, 3), "embedding 0", "finite"),
    (lambda: gallery_anchors(5, 2 * FEW, 0.5), "gallery embedding 0", "unit"),
    (lambda: gallery_anchors(10, FEW, 0.5), "9 gallery embeddings for 10"),
    (lambda: gallery_anchors(5, FEW, 0.5, protected=random_anchors(3, 7)), "8 dimensions", "7"),
    (lambda: gallery_anchors(5, FEW, math.nan), "limit=nan"),
    (lambda: select_distinct(ANCHORS, math.nan), "limit=nan"),
    (lambda: select_distinct(ANCHORS[0]), "(512,)"),
    (lambda: select_distinct(ZERO), "embedding 7"),
    (lambda: nearest_other(FEW[:1]), "2 or more anchors"),
    (lambda: nearest_other(FEW * torch.tensor([[1.0], [2.0]] + [[1.0]] * 7)), "anchor 1 is not"),
    (lambda: spread(ANCHORS, 5, 0.9, 0.7), "lb=0.9", "ub=0.7"),
    (lambda: spread(ANCHORS, 5, 0.5, 1.2), "ub=1.2"),
    (lambda: spread(ANCHORS, 5, 0.5, 0.7, rule="gauss"), "gauss", "interpolate"),
    (lambda: spread(ANCHORS, 0, 0.5, 0.7), "m=0"),
    (lambda: spread(2 * ANCHORS, 5, 0.5, 0.7), "anchor 0", "unit"),
    (lambda: spread(ANCHORS[0], 5, 0.5, 0.7), "(512,)"),
    (lambda: spread(FEW, 2, 0.5, 0.7, "additive", cone=True), "cosine"),
    (lambda: spread_rows(ANCHORS, [0, 12], [0, 0], 0.5, 0.7), "identity 12"),
    (lambda: spread_rows(ANCHORS, [0.0, 1.0], [0, 1], 0.5, 0.7), "float32"),
    (lambda: spread_rows(ANCHORS, [0, 1], [0], 0.5, 0.7), "(2,)", "(1,)"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


@pytest.mark.parametrize("code", [next(quadratic_codes(7, 1, 2)), reed_solomon(5, 4, 2)], ids=lambda c: c.name)
def test_a_row_beyond_the_last(code):
    refused(lambda: code.rows([0, code.size]), f"row {code.size:,} of a code of {code.size:,}", kind=IndexError)
    refused(lambda: code.rows([-1]), "row -1", kind=IndexError)


def test_no_checkpoint_of_a_search(tmp_path):
    path = tmp_path / "kept.safetensors"
    path.write_text("not one")
    refused(lambda: search_large(60, 8, checkpoint=path), "kept.safetensors is not a checkpoint")
    save_file(dict(x=torch.zeros(2)), path)
    refused(lambda: search_large(60, 8, checkpoint=path), "kept.safetensors is not a checkpoint")
    refused(lambda: search_large(60, 8, checkpoint=tmp_path), "is not a checkpoint")


def test_what_looks_odd_is_accepted():
    assert spread_rows(ANCHORS, [], [], 0.5, 0.7).shape == (0, 512)
    assert torch.equal(search_large(np.int64(60), np.int64(8), np.int64(1)), search_large(60, 8, 1))
