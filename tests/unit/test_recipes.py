"""The recipes of the `recognise` run's profiles are what the trainer takes, those in comments too."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from facesyn.data.faces import parametric_faces
from facesyn.nets.backbones import NETWORKS
from facesyn.nets.margins import MARGINS
from facesyn.nets.recogniser import Recipe, recogniser_recipe, train_recogniser

PROFILES = [
    p for p in sorted((Path(__file__).parents[2] / "nbs/runs/params").glob("*.yaml")) if "\nrecognise:" in p.read_text()
]
OWN = {"epochs", "batch", "lr", "head", "s", "m", "shift", "seed"}  # the run's own parameters and doing


def variants(path):
    "The profile's recognise run as it is, and with each option that stands in a comment inside its recogniser"
    text = path.read_text()
    return [
        yaml.safe_load(variant)["recognise"] or {}
        for variant in [
            text,
            *(
                text.replace(f"      # {option}", f"      {option}")
                for option in re.findall(r"^      # (\w+: \S.*)$", text, re.M)
            ),
        ]
    ]


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_trainer_takes_the_recipe(path):
    faces = parametric_faces(3, 2, 32)
    for given in variants(path):
        told = given.get("recogniser", {})
        more = told.get("more", {})
        assert told.get("net", "tiny32") in NETWORKS and told.get("head", "arcface") in MARGINS
        assert not more.keys() & OWN and more.keys() <= {field.name for field in fields(Recipe)}
        assert all(0 < m < told["epochs"] for m in more.get("milestones", []))
        if more:
            small = told | dict(epochs=1, batch=6, lr=0.001)
            *_, recipe = recogniser_recipe(small)
            assert np.isfinite(train_recogniser(faces, "tiny32", recipe, device="cpu")[1][0]["loss"])


def test_options_in_comments_are_found():
    given = variants(next(p for p in PROFILES if p.stem == "full_idbooth"))
    assert [sorted(v["recogniser"]["more"].get("rand", {})) for v in given] == [
        [],
        ["magnitude", "ops"],
        ["kinds", "magnitude", "ops", "varied"],
    ]
