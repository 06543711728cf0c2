"""The notebooks are clean, the package is exactly what they export, and every run has one cell of parameters."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "nbs/runs").glob("*.ipynb"))


def name(p):
    return str(p.relative_to(ROOT))


def files(root, *patterns):
    "Path -> bytes of the files under `root` that match"
    return {
        str(p.relative_to(root)): p.read_bytes()
        for pattern in patterns
        for p in root.glob(pattern)
        if ".ipynb_checkpoints" not in p.parts
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The repository's notebooks without the modules that they export"
    copy = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "settings.ini", copy)
    shutil.copytree(ROOT / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (copy / "facesyn").mkdir()
    for door in [*(ROOT / "facesyn").rglob("__init__.py"), ROOT / "facesyn/__main__.py"]:  # written by hand
        (copy / door.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(door, copy / door.relative_to(ROOT))
    return copy


def nbdev(command, cwd):
    subprocess.run([Path(sys.executable).with_name(command)], cwd=cwd, check=True)


def test_notebooks_are_clean(copy):
    before = files(ROOT, "nbs/**/*.ipynb")
    nbdev("nbdev_clean", copy)
    after = files(copy, "nbs/**/*.ipynb")
    assert before, "no notebooks found"
    dirty = [p for p in before if before[p] != after[p]]
    assert not dirty, f"run nbdev_clean: {dirty}"


def test_package_is_what_the_notebooks_export(copy):
    nbdev("nbdev_export", copy)
    here, exported = files(ROOT, "facesyn/**/*.py"), files(copy, "facesyn/**/*.py")
    assert not here.keys() - exported.keys(), f"modules without a notebook: {sorted(here.keys() - exported.keys())}"
    stale = [p for p in exported if exported[p] != here.get(p)]
    assert not stale, f"run nbdev_export: {stale}"


@pytest.mark.parametrize("run", RUNS, ids=name)
def test_run_has_one_parameters_cell(run):
    cells = json.loads(run.read_text())["cells"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
    assert papermill.inspect_notebook(str(run)), f"{name(run)}: papermill sees no parameter"


WRITES = {"savez", "save", "save_pretrained", "atomic", "open", "mkdir", "touch", "open_pairs"}


def written(cells):
    "Calls that write, at the top of cells: what is in a function is called by what shares it"
    for statement in ast.parse("\n".join(cells)).body:
        for call in ast.walk(statement) if not isinstance(statement, ast.FunctionDef) else []:
            if isinstance(call, ast.Call):
                called = getattr(call.func, "attr", getattr(call.func, "id", ""))
                if called in WRITES or called.startswith("write_"):
                    yield ast.unparse(call)


@pytest.mark.parametrize("notebook", RUNS, ids=lambda p: p.stem)
def test_nothing_is_written_before_the_last_shared_cell_ends(notebook):
    "All processes execute these cells, and what one writes the others would write too; `recognise` caches its pairs"
    cells = json.loads(notebook.read_text())["cells"]
    last = max((k for k, c in enumerate(cells) if "shared" in c["metadata"].get("tags", [])), default=-1)
    found = list(written("".join(c["source"]) for c in cells[: last + 1] if c["cell_type"] == "code"))
    assert [call for call in found if notebook.stem != "recognise" or "open_pairs" not in call] == []
