"""What a user pastes from README and docs works: Python is executed in a folder that is not the repository, commands,
profiles and parameters exist."""

import inspect
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from facesyn.core.doctor import problems
from facesyn.core.profiles import put, read_profile, run_defaults
from facesyn.core.records import flat
from facesyn.data.conversion import convert
from facesyn.data.faces import parametric_faces
from facesyn.data.pairs import open_pairs, write_bin
from facesyn.measure.verification import verify
from facesyn.methods.cemiface_training import train_cemiface
from facesyn.methods.generation import generate
from facesyn.methods.id3_training import train_id3
from facesyn.nets.recogniser import train_recogniser

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "nbs/runs/params"
PAGES = [ROOT / "README.md", *sorted((ROOT / "nbs/docs").glob("*.ipynb"))]
IN_THE_REPOSITORY = {
    "many_gpus",
    "results",
    "profiles",
}  # pages of code about the repository itself, which nbdev_test executes
SHORTER = {
    "workers=4": "workers=1",
    "epochs=20, batch=512, normalise=128": "epochs=1, batch=4, normalise=2",
    "pairs=600, pool=200": "pairs=20, pool=4",
    "spread(tammes_anchors(8, 12), 10,": "spread(tammes_anchors(8, 12), 2,",
    "steps=2000, batch=256": "steps=1, batch=2, unet=dict(channels=(8, 8), head_dim=8), width=16, hidden=(8, 8)",
    "parametric_faces(1000, 8,": "parametric_faces(2, 2,",
    '"mobilefacenet", Recipe(epochs=20, batch=128)': """dict(size=112, blocks=(1, 0, 0, 0), scale=1, dim=16),
        Recipe(1, 4)""",
    "steps=20_000": "steps=1, batch=2, unet=dict(channels=(8, 8), head_dim=8)",
    "tammes_anchors(100, 64), 10": "tammes_anchors(3, 64), 1",
}
TOOLS = {"source", "for", "torchrun", "nbdev_export", "nbdev_test", "nbdev_clean", "ruff", "sbatch", "pytest"}
COMMANDS = {"run", "profiles", "doctor", "convert", "inspect", "verify", "status"}


def fenced(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.S | re.M)


def parts(page):
    "(kind, text) of a page's parts in their order: markdown or code"
    if page.suffix == ".md":
        return [("markdown", page.read_text())]
    return [(c["cell_type"], "".join(c["source"])) for c in json.loads(page.read_text())["cells"]]


def python(page):
    "The Python that a reader executes, in its order"
    return [
        block
        for kind, text in parts(page)
        for block in (
            fenced(text, "python") if kind == "markdown" else [] if page.stem in IN_THE_REPOSITORY else [text]
        )
    ]


def blocks(page, language):
    return [b for kind, text in parts(page) if kind == "markdown" for b in fenced(text, language)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "A folder in which something like the demo ran"
    from facesyn import shipped
    from facesyn.data import parametric_faces, write_encoded, write_folder
    from facesyn.nets import embed, load_encoder

    folder, faces = tmp_path_factory.mktemp("docs"), parametric_faces(6, 2, size=32)
    card = dict(name="x", source="rendered", method="none", licence="CC0-1.0", limits="tests")
    write_folder(faces, folder / "data/runs/demo/dataset", card)
    y = embed(load_encoder(shipped("identity")), faces, flip=False)
    write_encoded(folder / "data/runs/demo/encoded", faces, y, faces.attributes)
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if python(p)], ids=lambda p: p.stem)
def test_python_runs(page, data, monkeypatch):
    monkeypatch.chdir(data)
    monkeypatch.setattr(sys, "argv", ["generate.py", "0", "1"])
    names = {"__name__": page.stem}
    for block in python(page):
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        exec(compile(block, page.name, "exec"), names)
    if page.stem == "README":
        from PIL import Image

        assert np.asarray(Image.open(data / "people.png")).std() > 20, "a picture of nothing"
        assert (data / "data/out/mine/train.rec").exists()


EXAMPLES = {train_id3: "pipe", train_cemiface: "pipe", train_recogniser: "log", verify: "found", generate: "rows"}


@pytest.mark.parametrize("told", EXAMPLES, ids=lambda told: told.__name__)
def test_examples_of_docstrings_run(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(parametric_faces(4, 4, 32), tmp_path / "data/photos", size=112)
    write_bin(open_pairs("parametric", 32, 20, 20)[0], tmp_path / "lfw.bin")
    (block,) = fenced(inspect.getdoc(told), "python")
    for long, short in SHORTER.items():
        block = block.replace(long, short)
    exec(compile(block, told.__name__, "exec"), names := {})
    assert names[EXAMPLES[told]]


def test_what_is_shortened_is_there():
    code = "\n".join(block for page in PAGES for block in python(page)) + "".join(f.__doc__ for f in EXAMPLES)
    assert all(long in code for long in SHORTER)


def run_of(name):
    "The notebook of a profile's run, which may carry a label: `recognise-again`"
    return ROOT / "nbs/runs" / f"{name.partition('-')[0]}.ipynb"


def check_profile(said):
    "Runs and parameters of a profile exist"
    for run, given in said.items():
        if run != "all":
            assert run_of(run).exists(), f"no run {run}"
            defaults = run_defaults(run_of(run))
            unknown = flat(given or {}, defaults).keys() - entries(defaults)
            assert not unknown, f"{run} has no parameter {sorted(unknown)}"


def entries(defaults):
    "Dotted names of parameters, and of entries of groups"
    return {*defaults, *flat(defaults, defaults)}


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=lambda p: p.stem)
def test_profiles_on_a_page_fit_their_runs(page):
    for block in blocks(page, "yaml"):
        check_profile(yaml.safe_load(block))


WHOLE = [(p.stem, b) for p in PAGES for b in blocks(p, "yaml") if b.startswith("# ") and "# Takes: " in b]


@pytest.mark.parametrize("page, block", WHOLE, ids=[page for page, _ in WHOLE])
def test_whole_profiles_on_a_page_lack_only_the_readers_files(page, block, tmp_path):
    (tmp_path / "nbs/runs/params").mkdir(parents=True)
    for run in (ROOT / "nbs/runs").glob("*.ipynb"):
        (tmp_path / "nbs/runs" / run.name).symlink_to(run)
    (tmp_path / "nbs/runs/params/x.yaml").write_text(block)
    wrong = problems(read_profile("x", tmp_path), tmp_path)
    assert wrong and all(sentence.startswith("no data/") for sentence in wrong), wrong


def test_a_page_shows_a_whole_profile():
    assert "your_faces" in dict(WHOLE)


def profiles_of(page):
    "Profiles that exist, and those that the page tells to make"
    text = "\n".join(text for _, text in parts(page))
    own = re.findall(r"nbs/runs/params/(\w+)\.yaml", text)
    return {p.stem for p in PARAMS.iterdir()} | set(own)


def check_command(line, page):
    words = shlex.split(line.partition("#")[0] if not line.startswith("for ") else "for")
    if not words:
        return
    program, *rest = words
    if program == "facesyn":
        assert rest[0] in COMMANDS, f"no command {line!r}"
        if rest[0] in ("run", "doctor"):
            assert rest[1] in profiles_of(page), f"no profile in {line!r}"
        for option, value in zip(rest, rest[1:]):
            if option == "-p":
                run, *place = value.partition("=")[0].split(".")
                check_profile({run: put({}, place, None)})
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.M), f"no target {line!r}"
    elif program == "cp":
        source = Path(rest[0])
        assert source.parent == Path("nbs/runs/params") and source.stem in {p.stem for p in PARAMS.iterdir()}
    else:
        assert program in TOOLS, f"unknown program in {line!r}"
        assert all((ROOT / w).exists() for w in rest if w.startswith(("nbs", "tests"))), f"no such file: {line!r}"


@pytest.mark.parametrize(
    "page", [p for p in (*PAGES, ROOT / "CONTRIBUTING.md") if blocks(p, "bash")], ids=lambda p: p.stem
)
def test_commands_exist(page):
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert lines
    for line in lines:
        check_command(line, page)


@pytest.mark.parametrize(
    "line",
    [
        "facesyn fly",
        "facesyn run nowhere",
        "facesyn run demo -p encode.persons=1",
        "facesyn run demo -p encode.encoder.pth=1",
        "make x",
    ],
)
def test_wrong_commands_are_found(line):
    with pytest.raises(AssertionError):
        check_command(line, ROOT / "README.md")


def test_commands_are_those_of_the_program():
    cli = pytest.importorskip("facesyn.cli")
    offered = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert COMMANDS <= offered, f"facesyn has no {COMMANDS - offered}"


def test_profiles_named_in_results_exist():
    text = "\n".join(text for _, text in parts(ROOT / "nbs/docs/results.ipynb"))
    named = set(re.findall(r"facesyn run (\w+)", text))
    assert named and named <= {p.stem for p in PARAMS.iterdir()}
