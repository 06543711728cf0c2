"""The notebooks are clean, the package is exactly what they export, and every parameter file fits its run notebook."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
import yaml

ROOT = Path(__file__).parents[1]
RUNS = sorted((ROOT / "nbs/runs").glob("*.ipynb"))
PARAMS = sorted((ROOT / "nbs/runs/params").glob("*/*.yaml"))


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
    for door in (ROOT / "facesyn").rglob("__init__.py"):  # written by hand
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


def test_readme_is_the_index_notebook():
    cells = json.loads((ROOT / "nbs/index.ipynb").read_text())["cells"]
    text = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"\]\(([^:)#]+\))", r"](nbs/\1", text).replace("](nbs/../", "](")  # as the Makefile does it
    assert (ROOT / "README.md").read_text().split() == text.split(), "run make readme"


@pytest.mark.parametrize("run", RUNS, ids=name)
def test_run_has_one_parameters_cell(run):
    cells = json.loads(run.read_text())["cells"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
    assert papermill.inspect_notebook(str(run)), f"{name(run)}: papermill sees no parameter"


@pytest.mark.parametrize("path", PARAMS, ids=name)
def test_parameters_are_known(path):
    run = ROOT / "nbs/runs" / f"{path.stem}.ipynb"
    assert run.exists(), f"{name(path)} names no run notebook"
    given = yaml.safe_load(path.read_text()) or {}
    assert isinstance(given, dict), f"{name(path)} is not a mapping"
    unknown = given.keys() - papermill.inspect_notebook(str(run)).keys()
    assert not unknown, f"{name(path)}: {name(run)} has no parameter {sorted(unknown)}"
    numbers = [v for v in leaves(given) if isinstance(v, str) and is_number(v)]
    assert not numbers, f"{name(path)}: {numbers} are strings for YAML; write 1.0e-4, not 1e-4 or '1'"


@pytest.mark.parametrize("profile", sorted({p.parent for p in PARAMS}), ids=lambda p: p.name)
def test_runs_of_a_profile_join(profile):
    "In the Makefile's order, what a run reads below data/runs/<profile> an earlier one has written"
    order, made = re.search(r"^RUNS\s*=(.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split(), []
    for run in [r for r in order if (profile / f"{r}.yaml").exists()]:
        given = yaml.safe_load((profile / f"{run}.yaml").read_text()) or {}
        written = [leaf for key in ("out", "work") for leaf in leaves(given.get(key, []))]
        reads = [
            leaf
            for key, value in given.items()
            if key not in ("out", "work")
            for leaf in leaves(value)
            if isinstance(leaf, str) and leaf.startswith(f"data/runs/{profile.name}/")
        ]
        missing = [path for path in reads if not any(f"{path}/".startswith(f"{out}/") for out in made)]
        assert not missing, f"{run} of {profile.name} reads {missing}, earlier runs wrote {made}"
        made += written


def leaves(x):
    "Every value in nested lists and mappings"
    if isinstance(x, dict):
        x = list(x.values())
    if not isinstance(x, list):
        return [x]
    return [leaf for item in x for leaf in leaves(item)]


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_number_detection():
    assert [is_number(x) for x in ("1e-4", "3", " .5", "nan", "id3", "1 to 2")] == [True] * 4 + [False] * 2
    assert leaves(yaml.safe_load("a: [1e-4, {b: x}]\nc: 1.0e-4")) == ["1e-4", "x", 1e-4]
