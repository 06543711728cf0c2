"""The pictures at the heads of notebooks: small, shown, and drawn by a notebook."""

import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).parents[2] / "nbs"
PICTURES = sorted((NBS / "images").iterdir())
LEADS = [
    "rendered/07_faces",
    "sphere/10_anchors",
    "diffusion/01_schedule",
    "methods/01_id3",
    "methods/06_cemiface",
    "methods/10_idbooth",
    "measure/03_verification",
    "data/21_conversion",
]


def cells(path, kind):
    return ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: p.name)
def test_a_picture_is_small_and_a_notebook_draws_it(picture):
    assert picture.stat().st_size < 60_000
    drawn = re.compile(rf'lead_picture\(.+, "{re.escape(picture.name)}"\)')
    assert any(drawn.search(source) for path in NBS.rglob("*.ipynb") for source in cells(path, "code"))


@pytest.mark.parametrize("name", LEADS)
def test_a_lead_notebook_opens_with_a_picture(name):
    shown = re.findall(r"!\[[^\]]+\]\(\.\./images/([^)]+)\)", cells(NBS / f"{name}.ipynb", "markdown")[0])
    assert shown and (NBS / "images" / shown[0]).is_file()
    assert any(f'"{shown[0]}"' in source for source in cells(NBS / f"{name}.ipynb", "code"))


@pytest.mark.parametrize("path", sorted(NBS.rglob("*.ipynb")), ids=lambda p: str(p.relative_to(NBS)))
def test_no_cell_is_empty(path):
    for kind in ("markdown", "code"):
        assert all(source.strip() for source in cells(path, kind))
