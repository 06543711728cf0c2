"""Bad input to the floor `rendered`: a row is a call and the words that its error must have."""

import pytest
import torch

from facesyn.core.checks import refused
from facesyn.rendered.faces import render_faces
from facesyn.rendered.head import head

ROWS = [
    (lambda: head(jaw=1.0), "no trait jaw"),
    (lambda: render_faces([1, 2], [0]), "2 identities but 1 images"),
    (lambda: render_faces([], []), "0 identities but 0 images"),
    (lambda: render_faces([1], [0], size=8), "size must be at least 16", "8"),
    (lambda: render_faces([1], [0], batch=0), "batch at least 1", "0"),
    (lambda: render_faces([-1], [0]), "-1"),
    (lambda: render_faces([1, 2], [0, 0], yaw=torch.zeros(3)), "yaw has shape (3,), expected (2,)"),
    (lambda: render_faces([1, 2, 3], [0, 0, 0], age=[20, 30, 40]), "age: give (lo, hi)", "not a list of 3"),
    (lambda: render_faces([1], [0], yaws=0.0), "yaws cannot be asked for", "yaw, pitch, roll, age"),
    (lambda: render_faces([1], [0], place=[99]), "place: expected 1 numbers"),
    (lambda: render_faces([1, 2], [0, 0], place=[0]), "place: expected 2 numbers"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)
