"""Every run notebook runs to its end with its default, smoke-sized parameters, in the order of the profile `smoke`, in
a folder of its own."""

import shutil
from pathlib import Path

import papermill
import pytest

from facesyn.core.profiles import read_profile

ROOT = Path(__file__).parents[2]
ORDER = [run.name for run in read_profile("smoke", ROOT).runs]
EXISTING = {p.stem for p in (ROOT / "nbs/runs").glob("*.ipynb")}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "A root of its own (`repo_root` finds settings.ini), so that smoke runs leave no trace in data/"
    root = tmp_path_factory.mktemp("runs")
    shutil.copy(ROOT / "settings.ini", root)
    (root / "data").mkdir()
    (root / "data/models").symlink_to(ROOT / "data/models")
    return root


def test_order_names_every_run():
    assert EXISTING == set(ORDER), "run notebooks missing from nbs/runs/params/smoke.yaml"


@pytest.mark.parametrize("run", ORDER)
def test_smoke(run, root):
    papermill.execute_notebook(
        str(ROOT / "nbs/runs" / f"{run}.ipynb"),
        str(root / f"{run}.ipynb"),
        cwd=str(root),
        kernel_name="python3",
        progress_bar=False,
        log_output=True,
    )


@pytest.mark.parametrize(
    "run, asked, word",
    [
        ("encode", dict(sauce="x"), "sauce"),
        ("encode", dict(source="data/nowhere"), "nowhere"),
        ("id3_train", dict(lr="1e-4"), "1e-4"),
        ("cemiface_generate", dict(similarity=1.0, probes=8), "out of reach"),
    ],
)
def test_wrong_parameters_are_named(run, asked, word, root):
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match=word):
        papermill.execute_notebook(
            str(ROOT / "nbs/runs" / f"{run}.ipynb"),
            str(root / "wrong.ipynb"),
            asked,
            cwd=str(root),
            kernel_name="python3",
            progress_bar=False,
        )
