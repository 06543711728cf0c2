"""The command line: what it does, and what it says to bad input."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from facesyn import __version__ as facesyn_version
from facesyn.__main__ import main
from facesyn.cli import app
from facesyn.core.chains import too_few
from facesyn.core.files import write_json
from facesyn.core.images import write_image
from facesyn.core.leases import this_process
from facesyn.core.profiles import Run, profile_names, read_profile
from facesyn.core.resumption import differ, read_now
from facesyn.core.sharing import UNITS, units_of
from facesyn.data.conversion import convert
from facesyn.data.faces import parametric_faces
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


def test_profiles_are_listed_in_full(copy, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = facesyn("profiles")
    assert shown.exit_code == 0 and all(len(line) <= 80 for line in shown.output.splitlines())
    said = " ".join(shown.output.split())
    assert all(read_profile(name, ROOT).shows in said for name in profile_names(ROOT)), "cut off"
    lines = [line for line in shown.output.splitlines() if re.match(r"  \S", line)]
    assert sorted(line.split()[0] for line in lines) == profile_names(ROOT) and lines[0].split()[0] == "demo_small"
    assert "facesyn profiles NAME" in shown.output


def test_a_profile_is_told_in_full(copy):
    shown = facesyn("profiles", "demo")
    for said in ("15 minutes", "needs: nothing", "encode, id3_generate, recognise, id3_report", "data/records/demo"):
        assert said in shown.output
    refused(facesyn("profiles", "dmo"), "no profile 'dmo'", "do you mean demo?")


@pytest.mark.parametrize("command", ["run", "doctor"])
def test_a_mistyped_profile_or_parameter_lists_the_known_ones(command, copy):
    refused(facesyn(command, "dmo"), "no profile 'dmo'", "do you mean demo", "cemiface_table2")
    refused(facesyn(command, "demo", "-p", "encod.people=3"), "no run 'encod'", "do you mean encode?", "id3_report")
    refused(facesyn(command, "demo", "-p", "encode.peopel=3"), "'peopel'", "do you mean people?", "attributes")
    refused(facesyn(command, "demo", "-p", "encode.people=many"), "people", "int", "many")
    refused(facesyn(command, "demo", "-p", "people=3"), "run.parameter=value", "id3_generate.identities=20")
    refused(facesyn(command, "demo", "-p", "encode.people=3", "-p", "encode.people=4"), "encode.people is given twice")
    refused(facesyn(command, "demo", "-p", "encode.people=-1"), "people=-1", "people >= 1")
    refused(facesyn(command, "train", "-p", "id3_train.patch=4"), "'patch'", "do you mean patches.patch")
    refused(facesyn(command, "train", "-p", "id3_train.patches.patch=0"), "patches.patch=0", "patches.patch >= 1")
    refused(facesyn(command, "train", "-p", "id3_train.optim.lr='1e-4'"), "optim.lr", "float", "'1e-4'")
    refused(facesyn(command, "train", "-p", "id3_train.optim.lr=-1e-4"), "optim.lr=-0.0001: expected optim.lr > 0")
    listed = refused(facesyn(command, "demo", "-p", "encod.people=3")).output
    assert listed.count("all") == 1
    twice = ["-p", "id3_train.optim={lr: 0.1}", "-p", "id3_train.optim.lr=0.2"]
    refused(facesyn(command, "train", *twice), "id3_train.optim is given twice")
    refused(facesyn(command, "train", "-p", "id3_train..lr=1"), "run.parameter=value")
    refused(facesyn(command, "demo", "-p", "all.jugde=x"), "'jugde'", "do you mean judge")
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


@pytest.mark.parametrize(
    "file, content, parameter, words",
    [
        ("net.onnx", b"no network", "encode.encoder", "net.onnx as ONNX"),
        ("net.pth", b"no network", "encode.encoder", "net.pth as a file of tensors"),
        ("net/config.json", b'{"_class_name": "IResNet", "size": 3', "encode.encoder", "config.json is not JSON"),
        ("net/config.json", b'{"_class_name": "UNet"}', "id3_report.judge", "class UNet"),
        ("net/model.safetensors", b"no weights", "encode.attributes", "model.safetensors is no whole file"),
        ("net/model_index.json", b"[]", "id3_generate.pipeline", "model_index.json: expected an object"),
        ("net/model_index.json", b'{"_class_name": "ID3Pipeline"}', "id3_generate.pipeline", "net does not open"),
        ("net/model_index.json", b'{"_class_name": ["pipeline", "ID3Pipeline"]}', "id3_generate.pipeline", "not open"),
    ],
)
def test_doctor_opens_networks(file, content, parameter, words, copy):
    (copy / "data" / file).parent.mkdir(parents=True, exist_ok=True)
    (copy / "data" / file).write_bytes(content)
    path = copy / "data" / file.partition("/")[0]
    sized = ["-p", "encode.encoder.preprocessing={size: 112}"] if path.suffix == ".onnx" else []
    if parameter == "id3_generate.pipeline":  # it has no card
        sized = ["-p", "id3_generate.card={made_from: noise, licence: none}"]
    place = f"{parameter}.path" if parameter.endswith(("encoder", "judge")) else parameter
    refused(facesyn("doctor", "demo", "-p", f"{place}={path}", *sized), parameter, words)


INPUTS = [  # parameter, file, words
    ("encode.source", "cut/train.rec", "encode.source: ", "the records are truncated"),
    ("encode.source", "foreign", "encode.source: ", "train.idx belongs to another file"),
    ("encode.source", "whole/train.idx", "encode.source: ", "train.idx: expected a folder or a file ending in .rec"),
    ("encode.source", "mine.bin", "encode.source: ", "mine.bin holds pairs"),
    ("encode.source", "mine.npz", "encode.source: ", "mine.npz has no jpeg, offsets"),
    ("encode.source", ".", "is no set itself, but holds cut, foreign, whole"),
    ("recognise.real.source", "cut", "recognise.real: ", "the records are truncated"),
    ("recognise.benchmarks.source", "cut.bin", "recognise.benchmarks: ", "cut.bin", "truncated"),
    ("recognise.benchmarks.source", "mine.npz", "recognise.benchmarks: ", "mine.npz has no issame, jpeg"),
    ("recognise.benchmarks.source", "whole", "recognise.benchmarks: ", "expected verification pairs"),
    ("recognise.dataset", "cut", "recognise.dataset: ", "cut"),
]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    "Sets and pairs, some of them damaged"
    folder = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(("whole", "cut", "foreign")):
        convert(parametric_faces(3, 4, size=32, first=seed), folder / name)
    (folder / "foreign/train.idx").write_bytes((folder / "whole/train.idx").read_bytes())
    write_bin(
        Pairs("mine", np.zeros((40, 32, 32, 3), np.uint8), np.arange(20) % 2 == 0), folder / "mine.bin", repeats=True
    )
    np.savez(folder / "mine.npz", images=np.zeros(3))
    for name, part in (("cut/train.rec", "cut/train.rec"), ("mine.bin", "cut.bin")):
        data = (folder / name).read_bytes()
        (folder / part).write_bytes(data[: 2 * len(data) // 3])
    return folder


@pytest.mark.parametrize("row", INPUTS, ids=lambda row: " ".join(row[:2]))
def test_doctor_opens_inputs(row, copy, damaged):
    parameter, file, *words = row
    asked = [f"{parameter}={damaged / file}", "encode.attributes=''", "id3_generate.card={made_from: a, licence: b}"]
    refused(facesyn("doctor", "demo", *(w for p in asked for w in ("-p", p))), *words)


def test_doctor_finds_nothing_wrong_with_whole_inputs(copy, damaged):
    asked = [f"recognise.real.source={damaged}/whole", f"recognise.benchmarks.source={damaged}/mine.bin"]
    asked += [f"recognise.dataset={damaged}/whole"]  # any set of faces may be one
    assert "nothing is missing" in facesyn("doctor", "demo", *(w for p in asked for w in ("-p", p))).output


def test_doctor_says_all_at_once_and_first_what_was_asked(copy, damaged):
    "A run with results of other parameters does not hide an input that cannot be read"
    run = next(run for run in read_profile("demo", copy).runs if run.name == "recognise")
    there = run.parameters | dict(seeds=[7], real=run.parameters["real"] | dict(first=3))
    write_json(dict(run="recognise", parameters=there, results={}), copy / run.parameters["out"] / "recognise.json")
    asked = f"recognise.benchmarks.source={damaged}/cut.bin"
    found = refused(facesyn("doctor", "demo", "-p", asked), "recognise.benchmarks: ", "cut.bin").output
    first, others = re.search(r"recognise was made otherwise: (.*?); besides, (.*)", found).groups()
    assert first.startswith("benchmarks.source") and "real.first: 3" in others


def test_doctor_suggests_no_file_that_the_profile_names_already(copy):
    (copy / "data/photos").mkdir()
    for name in ("encoder.onnx", "detector.onnx", "lfw.bin"):
        (copy / "data/photos" / name).write_text(name)
    assert "do you mean" not in facesyn("doctor", "photos").output
    (copy / "data/photos/jugde.onnx").write_text("judge")
    assert "do you mean data/photos/jugde.onnx?" in facesyn("doctor", "photos").output


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
        "all: {encoder: {path: data/models/identity}, attributes: data/models/attributes}\nencode: {images: 3}\n"
    )
    (copy / "nbs/runs/params/mine.yaml").write_text(profile)
    (copy / "deep").mkdir()
    monkeypatch.chdir(copy / "deep")
    ended = facesyn("run", "mine", "-p", "encode.people=4", "--quiet")
    assert ended.exit_code == 0, ended.output
    assert "[1/1] encode" in ended.output and "record: data/runs/mine/encoded/encode.json" in ended.output
    assert "images 12; " in ended.output, "what came of the run"
    loud = facesyn("run", "mine", "-p", "encode.people=4", "--again", "encode").output
    assert len(loud.splitlines()) == len(ended.output.splitlines()) + 1, f"a run of seconds says much: {loud}"
    assert loud.startswith("removed data/runs/mine/encoded\n")
    record = json.loads((copy / "data/runs/mine/encoded/encode.json").read_text())
    assert record["parameters"]["people"] == 4 and record["results"]["images"] == 12 and record["profile"] == "mine"
    assert (copy / "data/runs/mine/encode.ipynb").exists()
    seen = facesyn("status", copy / "data/runs/mine")
    assert "encode: ended" in seen.output and "minutes" in seen.output

    (copy / "deep/ada").mkdir()
    (copy / "deep/ada/0.png").write_bytes(b"broken")
    wrong = ("run", "mine", "-p", "encode.source=deep", "--again", "encode")
    failed = refused(facesyn(*wrong), "encode failed", "deep", "encode.ipynb")
    assert len(failed.output.splitlines()) < 9
    assert facesyn("run", "mine", "-p", "encode.people=3").exit_code == 0, "what failed before it wrote is nothing"


HEAD = "# A.\n# Needs: b.\n# Takes: c.\n"
MAKES = """import os, time
from pathlib import Path
from facesyn.core.files import read_json
from facesyn.core.records import run_parameters, write_record
assert steps > 0
began, folder = time.time() - 0.5, Path(out)
folder.mkdir(parents=True, exist_ok=True)
(folder / "made.txt").write_text(f"{steps} of {Path(landmarks).read_text() if landmarks else ''}")
write_record(folder / f"{NAME}.json", NAME, run_parameters(globals()), dict(steps=steps), began)"""


def write_run(root, name, source, code):
    "A run notebook with the parameters `landmarks`, which is any file that it reads, `out` and `steps`"
    first = f'landmarks = "{source}"\nout = "data/runs/smoke/{name}"\nsteps = 4'
    cells = [(first, ["parameters"]), (code.replace("NAME", repr(name)), [])]
    cells = [
        dict(cell_type="code", id=f"c{k}", source=source, metadata=dict(tags=tags), outputs=[], execution_count=None)
        for k, (source, tags) in enumerate(cells)
    ]
    notebook = dict(cells=cells, metadata=dict(language_info=dict(name="python")), nbformat=4, nbformat_minor=5)
    (root / f"nbs/runs/{name}.ipynb").write_text(json.dumps(notebook))


@pytest.fixture
def chain(copy):
    "A checkout with one profile, mine, of two runs: `second` reads what `first` wrote, `first` reads faces.txt"
    (copy / "nbs").unlink()
    (copy / "nbs/runs/params").mkdir(parents=True)
    (copy / "faces.txt").write_text("Ada")
    write_run(copy, "first", "faces.txt", MAKES)
    write_run(copy, "second", "data/runs/smoke/first/made.txt", MAKES)
    (copy / "nbs/runs/params/mine.yaml").write_text(HEAD + "first:\nsecond:\n")
    return copy


def test_status_keeps_the_order_of_the_profile(chain):
    (chain / "nbs/runs/params/mine.yaml").write_text(HEAD + "second: {landmarks: faces.txt}\nfirst:\n")
    assert facesyn("run", "mine").exit_code == 0
    for place in ("mine", "data/runs/mine"):
        assert re.findall(r"^(\w+): ended", facesyn("status", place).output, re.M) == ["second", "first"]


def test_a_run_whose_kernel_dies_stops_the_profile(chain):
    write_run(chain, "first", "", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    refused(facesyn("run", "mine"), "first was killed", "memory")
    assert not (chain / "data/runs/mine/second.ipynb").exists()


def made(root, run):
    return (root / f"data/runs/mine/{run}/made.txt").read_text()


def test_a_finished_profile_is_kept(chain):
    assert facesyn("run", "mine").exit_code == 0
    record = chain / "data/runs/mine/second/second.json"
    before = record.read_bytes()
    shown = facesyn("run", "mine")
    assert shown.output.count("kept") == 2 and record.read_bytes() == before, shown.output
    (chain / "data/runs/mine/second/made.txt").unlink()  # a part is lost: it is made again, and only that
    shown = facesyn("run", "mine")
    assert shown.output.count("kept") == 1 and made(chain, "second") == "4 of 4 of Ada", shown.output
    former, again = json.loads(before)["seconds"], json.loads(record.read_text())["seconds"]
    assert again >= former > 0, "the seconds of all starts"


@pytest.mark.parametrize("change", ["parameter", "file", "without a note"])
def test_what_is_finished_is_not_replaced(chain, change):
    assert facesyn("run", "mine").exit_code == 0
    asked = [] if change == "file" else ["-p", "first.steps=5"]
    if change == "file":
        (chain / "faces.txt").write_text("Ben")
    if change == "without a note":
        for note in (chain / "data/runs/mine").glob("*.run.json"):
            note.unlink()
    words = ["faces.txt has changed" if change == "file" else "steps: 4 -> 5", "--again first", "first, second"]
    for command in ("run", "doctor"):
        refused(facesyn(command, "mine", *asked), *words, "mine.yaml")
    refused(facesyn("run", "mine", *asked, "--again", "second"), *words)
    refused(facesyn("run", "mine", *asked, "--again", "frist"), "do you mean first?")
    assert made(chain, "first") == "4 of Ada", "nothing was lost"
    if change != "without a note":
        assert facesyn("run", "mine", *asked, "--again", "first").exit_code == 0
        assert made(chain, "second") == ("4 of 4 of Ben" if change == "file" else "4 of 5 of Ada")


def test_files_beside_the_people_of_photographs_do_not_count(tmp_path):
    "A network or pairs that are put into data/photos leave the prepared photographs as they are"
    (tmp_path / "photos/ada").mkdir(parents=True)
    (tmp_path / "photos/ada/0.jpg").write_bytes(b"a")
    run = Run("prepare", "prepare", {}, dict(photos="photos", weights=[], out="out"))
    before = read_now(run, tmp_path)
    (tmp_path / "photos/judge.onnx").write_bytes(b"b")
    for litter in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "photos/ada" / litter).write_bytes(b"b")
    assert read_now(run, tmp_path) == before
    (tmp_path / "photos/ada/1.jpg").write_bytes(b"c")
    assert read_now(run, tmp_path) != before


def test_parameters_that_a_run_was_begun_with_are_compared_by_entry():
    "What did not exist then was its default; what exists no more counts, so that no result of it is taken for another"
    run = Run("train", "train", dict(optim=dict(lr=0.2)), dict(optim=dict(lr=0.1, ema=0.9), seed=0))
    assert differ(dict(parameters=dict(optim=dict(lr=0.2))), run, "mine") == []
    assert differ(dict(parameters=dict(optim=dict(lr=0.1), seed=0)), run, "mine") == ["optim.lr: 0.1 -> 0.2"]
    assert "lr: 0.3 -> not a parameter any more" in differ(dict(parameters=dict(lr=0.3)), run, "mine")


def test_who_is_looked_at_is_no_other_run():
    "A training that was stopped may be watched when it goes on, and be read by more processes"
    asked = dict(id3_train=dict(keep=dict(watch=50, workers=4, log_with="tensorboard")))
    (run,) = [run for run in read_profile("train", ROOT, asked).runs if run.name == "id3_train"]
    before = {k: v for k, v in run.parameters.items() if k != "keep"} | dict(workers=2)
    assert differ(dict(parameters=before), run, "train") == []
    (run,) = [run for run in read_profile("train", ROOT).runs if run.name == "id3_train"]
    assert differ(dict(parameters=dict(before, seed=9)), run, "train") == ["seed: 9 -> 0"]


def test_what_was_begun_is_not_replaced(chain):
    "A run that failed after it wrote something, with other parameters"
    write_run(chain, "second", "data/runs/smoke/first/made.txt", MAKES + "\nraise ValueError('stopped')")
    refused(facesyn("status", "mine"), "data/runs/mine", "not been begun")
    refused(facesyn("run", "mine"), "second failed", "stopped")
    (chain / "data/runs/mine/second/second.json").unlink()
    for place in ("mine", "data/runs/mine"):
        assert "second: begun, not ended: facesyn run mine goes on" in facesyn("status", place).output
    refused(facesyn("run", "mine", "-p", "second.steps=5"), "second was begun", "steps: 4 -> 5", "--again second")
    assert made(chain, "second") == "4 of 4 of Ada"


def test_again_removes_only_what_a_profile_made(chain):
    (chain / "data/mine").mkdir()
    (chain / "data/mine/photo.txt").write_text("the only one")
    away = ["-p", "second.out=data/mine"]
    assert facesyn("run", "mine", *away).exit_code == 0
    refused(facesyn("run", "mine", *away, "--again", "second"), "data/mine, outside of data/runs/mine")
    inside = ["-p", "first.landmarks=./first/faces.txt"]
    assert facesyn("run", "mine", "--again", "first", "-p", "second.steps=3").exit_code == 1, "data/mine again"
    (chain / "data/runs/mine/second.run.json").unlink()
    assert facesyn("run", "mine").exit_code == 0
    (chain / "data/runs/mine/first/faces.txt").write_text("Ada")
    refused(
        facesyn("run", "mine", *inside, "--again", "first"),
        "holds data/runs/mine/first/faces.txt",
        "nothing is removed",
    )
    assert (chain / "data/mine/photo.txt").exists() and made(chain, "first") == "4 of Ada"


@pytest.mark.parametrize("where", ["in Python", "in C", "the program alone"])
def test_a_profile_that_is_stopped_by_hand_says_so_in_one_line(chain, where):
    slow = "sum(range(10**10))" if where == "in C" else "time.sleep(60)"
    kill = os.kill if where == "the program alone" else os.killpg
    # what is printed leaves the kernel by another of its threads, which waits while one in C does not let go
    write_run(chain, "first", "faces.txt", f"import time\nprint('began', flush=True)\ntime.sleep(1)\n{slow}")
    command = [sys.executable, "-m", "facesyn", "run", "mine"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored where tests run behind `&`
    )
    said = []
    for line in process.stdout:
        said.append(line)
        if line == "began\n":
            kill(process.pid, signal.SIGINT)
    assert process.wait() == 130 and len(said) == 3, said
    assert "stopped in first" in said[2] and "the same command goes on" in said[2]


def test_ctrl_c_while_the_program_is_imported(monkeypatch, capsys):
    class Importing(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "facesyn.cli", Importing("facesyn.cli"))
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130 and capsys.readouterr().err == "stopped\n"


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


def test_make_lab_serves_the_repository_and_opens_the_index():
    "So that executed runs in data/runs can be opened, and the printed address leads to the index"
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.ready", "lab", "LAB=--no-browser"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=without_make()).stdout
    assert "--no-browser --LabApp.default_url=/lab/tree/nbs/index.ipynb" in made


def test_convert_inspect_and_status(faces, tmp_path):
    made = facesyn("convert", faces, tmp_path / "rec", "--format", "rec", "--size", 112)
    assert made.exit_code == 0 and "40 pictures of 20 people" in made.output
    seen = facesyn("inspect", tmp_path / "rec")
    assert seen.exit_code == 0 and "images: 40" in seen.output and "112 x 112" in seen.output
    assert "per_identity: {'fewest': 2, 'median': 2, 'most': 2}" in seen.output
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


def test_status_of_shared_work(tmp_path):
    "One process was killed in its third unit of ten, another is in its second"
    leases, units = tmp_path / "set" / f"{UNITS}0123", units_of(100, 10)
    write_json(dict(count=100), leases / "work.json")
    (tmp_path / "set/000000").mkdir()
    (tmp_path / "set/000000/.facesyn-0123456789ab-0000.png").touch()  # half-written
    for k, (born, ending) in enumerate(
        [("x", "done"), ("x", "done"), ("x", "0.lease"), (None, "done"), (None, "0.lease")]
    ):
        who = dict(this_process(), pid=1) | dict(born=born) if born else this_process()
        work = dict(done=10 if ending == "done" else 5, seconds=2.0)
        (leases / f"{units[k]}.{ending}").write_text("\n".join(map(json.dumps, (who, work))) + "\n")
    said = facesyn("status", tmp_path / "set").output
    assert "35 of 100 done, 3.75 a second, 0.3 minutes left" in said and "pictures of" not in said, said
    assert re.search(r":1: 2 units, 4\.17 a second, not working, last heard of \d s ago", said), said
    assert re.search(rf":{os.getpid()}: 1 units, 3\.75 a second, working, last heard of \d s ago", said), said


def test_verify(tmp_path):
    issame = np.arange(40) % 2 == 0
    who = np.stack([np.arange(40), np.where(issame, np.arange(40), np.arange(40) + 100)], 1).ravel()
    images = render_faces(who, np.arange(80) % 2, 112)[0]
    write_bin(Pairs("mine", np.asarray(images), issame), tmp_path / "mine.bin")
    measured = facesyn("verify", ROOT / "data/models/identity", tmp_path / "mine.bin")
    assert measured.exit_code == 0, measured.output
    words = measured.output.splitlines()[-1].split()
    assert words[0] == "mine:"
    assert float(words[1]) > 80 and words[2] == "±" and "10 folds, 40 pairs" in measured.output
    assert "pictures of 112 pixels are resized for a network of 32" in measured.output
    seen = facesyn("inspect", tmp_path / "mine.bin").output
    assert "pairs: 40" in seen and "genuine: 20" in seen and "identit" not in seen, seen
    refused(facesyn("verify", tmp_path / "no.onnx", tmp_path / "mine.bin"), "no.onnx", "size")
    refused(facesyn("verify", ROOT / "data/models/identity", tmp_path / "no.bin"), "no.bin")
    refused(facesyn("verify", ROOT / "data/models/identity", ROOT / "settings.ini"), "settings.ini", ".bin")
    refused(facesyn("verify", ROOT / "data/models/identity", ROOT / "data/records"), "records", "a .bin or an .npz")
    refused(facesyn("verify", ROOT / "data/models/identity", tmp_path / "mine.bin", "--size", 112), "identity", "size")


def test_a_network_that_wants_another_crop(tmp_path):
    "The middle 96 of 112 columns, as CosFace's networks take them"
    images = render_faces(np.arange(40) // 2, np.arange(40) % 2, 112)[0]
    write_bin(Pairs("mine", np.asarray(images), np.arange(20) % 2 == 0), tmp_path / "mine.bin")
    net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * 14 * 12, 8))
    torch.onnx.export(net, (torch.zeros(2, 3, 112, 96),), tmp_path / "net.onnx", dynamo=False)
    command = ["verify", tmp_path / "net.onnx", tmp_path / "mine.bin", "--size", 112]
    measured = facesyn(*command, "--crop", 8, 0, 104, 112)
    assert measured.exit_code == 0 and "mine: " in measured.output and "resized" not in measured.output


def test_version():
    assert facesyn("--version").output == f"facesyn {facesyn_version}\n"


def test_python_m_facesyn():
    shown = subprocess.run([sys.executable, "-m", "facesyn", "run", "dmo"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 1 and "no profile 'dmo'" in shown.stderr and "Traceback" not in shown.stderr


def test_doctor_names_what_lies_near_and_what_is_too_little():
    mistyped = facesyn("doctor", "demo", "-p", "id3_report.judge.path=data/models/jugde")
    assert mistyped.exit_code == 1 and "do you mean data/models/judge?" in mistyped.output
    few = facesyn("doctor", "demo", "-p", "encode.people=2", "-p", "encode.images=3")
    assert few.exit_code == 1 and "id3_generate: anchors.subspace: 12 dimensions, of only 6 faces" in few.output


def test_too_few_faces_are_found_when_they_are_encoded(copy):
    "How many faces there are in photographs is known only then, and the training that follows would take hours"
    profile = read_profile("demo", copy, dict(encode=dict(source="data/faces", attributes="")))
    record = copy / "data/runs/demo/encoded/encode.json"
    assert not too_few(profile, copy)
    write_json(dict(parameters=profile.runs[0].parameters, results=dict(images=7)), record)
    assert "of only 7 faces" in too_few(profile, copy)[0]
    write_json(dict(parameters=profile.runs[0].parameters | dict(seed=1), results=dict(images=7)), record)
    assert not too_few(profile, copy), "a record of other parameters"


def test_sets_of_nobody_are_inspected_and_converted(faces, tmp_path):
    "FFHQ as it comes: flat, or in folders of thousands"
    (tmp_path / "flat").mkdir()
    for k, path in enumerate(sorted(faces.rglob("*.png"))):
        (tmp_path / f"flat/{k:05d}.png").symlink_to(path)
    refused(facesyn("inspect", tmp_path / "flat"), "outside an identity's folder")
    seen = facesyn("inspect", tmp_path / "flat", "--identities", "none").output
    assert "images: 40\nidentities: 40\n" in seen and "outside" not in seen
    refused(facesyn("convert", tmp_path / "flat", tmp_path / "wrong", "--identities", "nose"), "no 'nose'", "none")
    assert not (tmp_path / "wrong").exists()
    for source, whose, people in ((tmp_path / "flat", "none", 40), (faces, "none", 40), (faces, "folder", 20)):
        out = tmp_path / f"{source.name}_{whose}"
        made = facesyn("convert", source, out, "--size", 112, "--identities", whose)
        assert f"40 pictures of {people} people" in made.output, made.output
        assert f"images: 40\nidentities: {people}\n" in facesyn("inspect", out).output
        assert "identities: 40\n" in facesyn("inspect", out, "--identities", "none").output
