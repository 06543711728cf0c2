"""The command line: what it does, and what it says to bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facesyn.cli import app
from facesyn.core.profiles import profile_names
from facesyn.data.dataset import write_image
from facesyn.data.pairs import Pairs, write_bin
from facesyn.rendered.faces import render_faces

ROOT = Path(__file__).parents[2]


def facesyn(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def refused(result, *words):
    "Exit code 1, a message with all words, no traceback"
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def copy(tmp_path, monkeypatch):
    "A checkout of its own, so that nothing is written into data/"
    for name in ("settings.ini", "nbs", "data/models", "data/records"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    "A folder of two pictures of each of twenty people"
    folder = tmp_path_factory.mktemp("faces")
    for k, image in enumerate(render_faces(np.arange(40) // 2, np.arange(40) % 2, 32)[0]):
        write_image(image, folder / f"{k // 2:02d}/{k % 2}.png")
    return folder


def test_profiles_are_listed_one_a_line(copy, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = facesyn("profiles")
    lines = [line for line in shown.output.splitlines() if line.startswith("  ")]
    assert shown.exit_code == 0 and all(len(line) <= 80 for line in lines)
    assert sorted(line.split()[0] for line in lines) == profile_names(ROOT) and lines[0].split()[0] == "demo"
    assert "facesyn profiles NAME" in shown.output


def test_a_profile_is_told_in_full(copy):
    shown = facesyn("profiles", "demo")
    for said in ("20 minutes", "needs: nothing", "encode, id3_generate, recognise, id3_report", "data/records/demo"):
        assert said in shown.output
    refused(facesyn("profiles", "dmo"), "no profile 'dmo'", "do you mean demo?")


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_mistyped_profile_or_parameter_lists_the_known_ones(command, copy):
    refused(facesyn(command, "dmo"), "no profile 'dmo'", "demo", "cemiface_table2")
    refused(facesyn(command, "demo", "-p", "encod.people=3"), "no run 'encod'", "encode", "id3_report")
    refused(facesyn(command, "demo", "-p", "encode.peopel=3"), "unknown parameter 'peopel'", "people", "attributes")
    refused(facesyn(command, "demo", "-p", "encode.people=many"), "people", "int", "many")
    refused(facesyn(command, "demo", "-p", "people=3"), "run.parameter=value")
    refused(facesyn(command, "demo", "-p", "encode.people=3", "-p", "encode.people=4"), "encode.people is given twice")
    refused(facesyn(command, "demo", "-p", "encode.people=-1"), "people=-1", "people >= 1")
    refused(facesyn(command, "demo", "-p", "all.jugde=x"), "'jugde'", "judge")
    assert not (copy / "data/runs").exists()


def test_doctor_lists_all_that_is_missing(copy):
    found = refused(facesyn("doctor", "photos"), "data/photos/encoder.onnx", "data/photos/lfw.bin", "detector")
    assert len(found.output.splitlines()) == 5
    refused(facesyn("doctor", "plain"), "data/runs/train/encoded", "facesyn run train")
    for name in ("encoder.onnx", "judge.onnx", "detector.onnx"):
        (copy / "data/photos").mkdir(exist_ok=True)
        (copy / "data/photos" / name).write_text(name)
    assert len(refused(facesyn("run", "photos"), "no data/photos/lfw.bin").output.splitlines()) == 1
    (copy / "data/photos/judge.onnx").write_text("encoder.onnx")
    refused(facesyn("doctor", "photos"), "encoder and judge are the same network")
    assert facesyn("doctor", "demo").output == "demo: 4 runs, nothing is missing\n"


def test_outside_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["run", "demo"], ["doctor", "demo"], ["profiles"]):
        refused(facesyn(*command), str(tmp_path), "clone the repository")
    (tmp_path / "settings.ini").touch()  # of another project
    refused(facesyn("run", "demo"), "clone the repository")


def test_a_run_from_a_subfolder_resumes_and_is_reported(copy, monkeypatch):
    (copy / "nbs").unlink()
    (copy / "nbs/runs/params").mkdir(parents=True)
    (copy / "nbs/runs/encode.ipynb").symlink_to(ROOT / "nbs/runs/encode.ipynb")
    profile = "# Mine.\n# Needs: nothing.\n# Takes: seconds.\n" + (
        "all: {encoder: data/models/identity, attributes: data/models/attributes}\nencode: {images: 3}\n"
    )
    (copy / "nbs/runs/params/mine.yaml").write_text(profile)
    (copy / "deep").mkdir()
    monkeypatch.chdir(copy / "deep")
    ended = facesyn("run", "mine", "-p", "encode.people=4", "--quiet")
    assert ended.exit_code == 0, ended.output
    assert "[1/1] encode" in ended.output and "record: data/runs/mine/encoded/encode.json" in ended.output
    assert "images 12; " in ended.output, "what came of the run"
    loud = facesyn("run", "mine", "-p", "encode.people=4").output
    assert len(loud.splitlines()) == len(ended.output.splitlines()), f"a run of seconds says what libraries say: {loud}"
    record = json.loads((copy / "data/runs/mine/encoded/encode.json").read_text())
    assert record["parameters"]["people"] == 4 and record["results"]["images"] == 12 and record["profile"] == "mine"
    assert (copy / "data/runs/mine/encode.ipynb").exists()
    seen = facesyn("status", copy / "data/runs/mine")
    assert "encode: ended" in seen.output and "minutes" in seen.output

    failed = refused(facesyn("run", "mine", "-p", "encode.source=deep"), "encode failed", "deep", "encode.ipynb")
    assert len(failed.output.splitlines()) < 8


def test_a_run_whose_kernel_dies_stops_the_profile(copy):
    (copy / "nbs").unlink()
    (copy / "nbs/runs/params").mkdir(parents=True)
    cells = [('x = "a"', ["parameters"]), ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", [])]
    cells = [
        dict(cell_type="code", id=f"c{k}", source=source, metadata=dict(tags=tags), outputs=[], execution_count=None)
        for k, (source, tags) in enumerate(cells)
    ]
    for run in ("first", "second"):
        notebook = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
        (copy / f"nbs/runs/{run}.ipynb").write_text(json.dumps(notebook))
    (copy / "nbs/runs/params/mine.yaml").write_text("# A.\n# Needs: b.\n# Takes: c.\nfirst:\nsecond:\n")
    refused(facesyn("run", "mine"), "first was killed", "memory")
    assert not (copy / "data/runs/mine/second.ipynb").exists()


def without_make():
    "The environment of a shell, also where `make test` runs this"
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


@pytest.mark.parametrize(
    "asked, profile",
    [
        ("", "demo"),
        ("METHOD=cemiface", "cemiface"),
        ("TRAIN=1", "train"),
        ("PROFILE=plain", "plain"),
        ("METHOD=x", "x"),
    ],
)
def test_make_demo_is_facesyn_run(asked, profile):
    "What METHOD, TRAIN and PROFILE stand for; a name that does not exist is refused by `facesyn run`"
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.ready", "demo", *asked.split()]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=without_make())
    assert made.stdout.strip() == f".venv/bin/facesyn run {profile}"


def test_convert_inspect_and_status(faces, tmp_path):
    made = facesyn("convert", faces, tmp_path / "rec", "--format", "rec", "--size", 112)
    assert made.exit_code == 0 and "40 pictures of 20 people" in made.output
    seen = facesyn("inspect", tmp_path / "rec")
    assert seen.exit_code == 0 and "images: 40" in seen.output and "112 x 112" in seen.output
    assert "40 pictures of 20 people, no card yet" in facesyn("status", faces).output
    refused(facesyn("convert", faces, tmp_path / "x", "--format", "zip"), "no format 'zip'", "webdataset")
    refused(facesyn("convert", tmp_path / "nowhere", tmp_path / "x"), "nowhere")
    (tmp_path / "rec" / "train.idx").unlink()
    seen = facesyn("inspect", tmp_path / "rec")
    assert seen.exit_code == 1 and "train.idx is missing" in seen.output
    refused(facesyn("inspect", tmp_path / "nowhere"), "nowhere")
    refused(facesyn("status", tmp_path / "nowhere"), "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no run and no pictures" in facesyn("status", tmp_path / "empty").output


def test_verify(tmp_path):
    issame = np.arange(40) % 2 == 0
    who = np.stack([np.arange(40), np.where(issame, np.arange(40), np.arange(40) + 100)], 1).ravel()
    images = render_faces(who, np.arange(80) % 2, 112)[0]
    write_bin(Pairs("mine", np.asarray(images), issame), tmp_path / "mine.bin")
    measured = facesyn("verify", ROOT / "data/models/identity", tmp_path / "mine.bin")
    assert measured.exit_code == 0 and measured.output.startswith("mine: ")
    words = measured.output.split()
    assert float(words[1]) > 80 and words[2] == "±" and "10 folds, 40 pairs" in measured.output
    refused(facesyn("verify", tmp_path / "no.onnx", tmp_path / "mine.bin"), "no.onnx", "size")
    refused(facesyn("verify", ROOT / "data/models/identity", tmp_path / "no.bin"), "no.bin")
    refused(facesyn("verify", ROOT / "data/models/identity", ROOT / "settings.ini"), "settings.ini", ".bin")
    refused(facesyn("verify", ROOT / "data/models/identity", ROOT / "data/records"), "records", "a .bin or an .npz")
    refused(facesyn("verify", ROOT / "data/models/identity", tmp_path / "mine.bin", "--size", 112), "identity", "size")


def test_python_m_facesyn():
    shown = subprocess.run([sys.executable, "-m", "facesyn", "run", "dmo"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 1 and "no profile 'dmo'" in shown.stderr and "Traceback" not in shown.stderr


def test_doctor_names_what_lies_near_and_what_is_too_little():
    mistyped = facesyn("doctor", "demo", "-p", "id3_report.judge=data/models/jugde")
    assert mistyped.exit_code == 1 and "do you mean data/models/judge?" in mistyped.output
    few = facesyn("doctor", "demo", "-p", "encode.people=2", "-p", "encode.images=3")
    assert few.exit_code == 1 and "id3_generate: subspace: 12 dimensions, of only 6 faces" in few.output
