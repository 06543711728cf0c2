"""Bad input to the floor `report`: a row is a call and the words that its error must have."""

import json

import numpy as np
import pytest

from facesyn.core.checks import refused
from facesyn.measure.scores import finite
from facesyn.report.accuracies import accuracy_bars, by_dataset, verification_table
from facesyn.report.answers import dataset_answer
from facesyn.report.histograms import attribute_histogram, separation_plot, similarity_histogram
from facesyn.report.logs import read_log, training_curves
from facesyn.report.pieces import picture, picture_rows, table
from facesyn.report.responses import control_plot, curves

RNG = np.random.default_rng(0)
FACES = RNG.normal(0, 20, (50, 4))
PIXELS = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
REAL = dict(name="real", images=100, p_lfw=0.9)
LOW = dict(name="untrained", images=0, p_lfw=0.6)


def spoilt(value):
    "FACES with another value in row 7"
    bad = FACES.copy()
    bad[7, 2] = value
    return bad


def of(**arrays):
    return {"real": dict(dict(genuine=[0.5, 0.6], impostor=[0.1]), **arrays)}


ROWS = [
    (lambda: finite([], "ages"), "ages: no values"),
    (lambda: finite([1, 2, np.inf], "ages"), "ages: value 2 is not finite"),
    (lambda: similarity_histogram({}), "no groups"),
    (lambda: similarity_histogram(of(genuine=[0.5, np.nan])), "real, genuine: value 1 is not finite"),
    (lambda: similarity_histogram(of(impostor=[])), "real, impostor: no values"),
    (lambda: attribute_histogram({}), "no groups"),
    (lambda: attribute_histogram(dict(generated=FACES[:, :3])), "generated: expected attributes (n, 4)", "(50, 3)"),
    (lambda: attribute_histogram(dict(generated=FACES * np.nan)), "generated: no attribute is known"),
    (lambda: attribute_histogram(dict(generated=spoilt(np.inf))), "generated: row 7", "infinite"),
    (lambda: separation_plot({}), "no groups"),
    (lambda: separation_plot(dict(random=[0.3, np.nan])), "random: value 1 is not finite"),
    (lambda: control_plot([1, 1], [1, 2], "age", "years"), "age: all values requested are equal"),
    (lambda: control_plot([1, 2], [3, 3], "age", "years"), "age: all values predicted are equal"),
    (lambda: control_plot([1, 2], [1, 2, 3], "age", "years"), "age: 2 values requested, 3 predicted"),
    (lambda: control_plot([np.nan, 2], [1, np.nan], "age", "years"), "age, requested: no values"),
    (lambda: curves([0, 1], dict(judge=[1]), "m", "s", "t"), "judge: 1 values at 2 places"),
    (lambda: curves([0, 1], dict(judge=[1, np.nan]), "m", "s", "t"), "judge: value 1 is not finite"),
    (lambda: curves([0, np.nan], dict(judge=[1, 2]), "m", "s", "t"), "x: value 1 is not finite"),
    (lambda: read_log([]), "log is empty"),
    (lambda: read_log([dict(step=1), dict(loss=2)]), "row 1", "no 'step'", "loss"),
    (lambda: read_log([5]), "row 0", "no 'step'"),
    (lambda: training_curves([dict(step=1, loss=2)], terms=["kl"]), "no finite 'kl'"),
    (lambda: training_curves([dict(step=1, loss=np.nan)]), "no finite 'loss'"),
    (lambda: table(["a", "b"], [[1, 2], [3]]), "row 1 has 1 cells", "head has 2"),
    (lambda: picture(PIXELS / 255), "uint8", "got float64 (3, 8, 8, 3)"),
    (lambda: picture(PIXELS[0]), "(n, h, w, 3)", "(8, 8, 3)"),
    (lambda: picture(PIXELS[:0]), "n > 0", "(0, 8, 8, 3)"),
    (lambda: picture_rows({"ann": PIXELS}, columns=["a", "b"]), "ann: 3 images under 2 headings"),
    (lambda: by_dataset([]), "no rows"),
    (lambda: by_dataset([dict(name="real", images=1)]), "no rows with accuracies"),
    (lambda: by_dataset([dict(REAL, p_lfw=98.5)]), "row 0 (real): p_lfw = 98.5", "0..1"),
    (lambda: by_dataset([dict(REAL, p_lfw=np.nan)]), "row 0 (real): p_lfw = nan"),
    (lambda: by_dataset([dict(REAL, p_lfw="0.9")]), "row 0 (real): p_lfw = 0.9"),
    (lambda: by_dataset([REAL, dict(name="fake", images=100)]), "row 1 (fake) lacks p_lfw"),
    (lambda: by_dataset([REAL, dict(images=100, p_lfw=0.9)]), "row 1 (None) lacks name"),
    (lambda: accuracy_bars([REAL, REAL]), "two rows for real, 100 images, seed None"),
    (lambda: verification_table([REAL], "CASIA"), "0 datasets named 'CASIA'", "real"),
    (lambda: verification_table([REAL], "real"), "0 datasets named 'untrained'"),
    (lambda: verification_table([REAL, dict(REAL, images=9), LOW], "real"), "2 datasets named 'real'"),
    (lambda: dataset_answer([REAL, LOW], 0.1), "0 datasets named 'synthetic'", "real, untrained"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


def test_a_log_that_is_not_there(tmp_path):
    refused(lambda: training_curves(tmp_path / "log.jsonl"), "log.jsonl", kind=FileNotFoundError)


@pytest.mark.parametrize("end", ["{", '{"step": 2, "lo', "nan nan", "\x00"])
def test_a_log_with_half_a_line(tmp_path, end):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(dict(step=1, loss=1)) + "\n" + end)
    refused(lambda: read_log(path), "log.jsonl line 2 is not JSON")
