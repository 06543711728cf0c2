"""Several processes, and jobs, from the command line: they make what one makes, once, and say which of them failed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from facesyn.cli import app
from facesyn.core.files import shipped
from facesyn.core.images import pick_device
from facesyn.core.launching import carry_out
from facesyn.core.processes import by_itself, joined
from facesyn.core.profiles import read_profile
from facesyn.data.cards import RENDERED
from facesyn.data.dataset import write_encoded
from facesyn.data.faces import parametric_faces
from facesyn.nets.encoders import embed, load_encoder

ROOT = Path(__file__).parents[2]
HEAD = "# What it shows.\n# Needs: nothing.\n# Takes: a moment.\n"
FOLDER = """
import json, os, time
from pathlib import Path
rank = os.environ.get("RANK", "0")
Path(out).mkdir(parents=True, exist_ok=True)
"""
RECORD = "Path(out, '{0}.json').write_text(json.dumps(dict(run='{0}', finished='now', seconds=1.0, results={{}})))"
TINY = """
all: {encoder: {path: data/models/identity}, encoded: data/faces}
id3_train: {unet: {channels: [64, 64]}, weights: {identity: 0.0}, optim: {steps: 12, batch: 16, warmup: 1}}
id3_generate:
  {pipeline: data/models/id3, identities: 6, images: 4, unit: 8, sampler: {batch: 4}, anchors: {subspace: 8}}
"""


def facesyn(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def checkout(folder, profiles):
    "A repository with the run notebooks and networks of this one, and profiles of its own"
    (folder / "nbs/runs/params").mkdir(parents=True)
    (folder / "data").mkdir()
    shutil.copy(ROOT / "settings.ini", folder)
    for path in [
        "data/models",
        "nbs/index.ipynb",
        *(f"nbs/runs/{p.name}" for p in (ROOT / "nbs/runs").glob("*.ipynb")),
    ]:
        (folder / path).symlink_to(ROOT / path)
    for name, said in profiles.items():
        (folder / f"nbs/runs/params/{name}.yaml").write_text(HEAD + said)
    return folder


def notebook(root, name, *cells, shared="shared"):
    "A run notebook of an out folder and of cells, of which the first is `shared`, and the last writes the record"
    sources = [f"out = 'data/runs/smoke/{name}'", FOLDER, *cells, RECORD.format(name)]
    language = dict(language_info=dict(name="python"))
    book = nbformat.v4.new_notebook(metadata=language, cells=[nbformat.v4.new_code_cell(source) for source in sources])
    book.cells[0].metadata["tags"], book.cells[2].metadata["tags"] = ["parameters"], shared.split()
    nbformat.write(book, root / f"nbs/runs/{name}.ipynb")


@pytest.fixture
def small(tmp_path, monkeypatch):
    "A repository whose profile `mine` has one run, `work`; its cells are given, and it is run"
    root = checkout(tmp_path / "repository", dict(mine="work: {}"))
    monkeypatch.chdir(root)

    def run(*cells, processes=2, **how):
        notebook(root, "work", *cells)
        profile = read_profile("mine", root)
        return carry_out(root, profile, profile.runs[0], processes=processes, **how)

    run.root, run.out = root, root / "data/runs/mine/work"
    return run


def until(true, seconds=60):
    end = time.time() + seconds
    while not true():
        assert time.time() < end
        time.sleep(0.05)


def alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


NOTE = "Path(out, f'{rank}.pid').write_text(f'{os.getpid()} {os.getppid()}')"
NAP = "time.sleep(60)"


def noted(out, processes=2):
    "(kernel, its parent) of each process, when all of them have noted it"
    files = [out / f"{k}.pid" for k in range(processes)]
    until(lambda: all(f.exists() and len(f.read_text().split()) == 2 for f in files))
    return [tuple(map(int, f.read_text().split())) for f in files]


@pytest.mark.distributed
def test_helpers_execute_what_is_shared_and_nothing_else(small):
    small("Path(out, f'shared_{rank}').touch()", "Path(out, f'main_{rank}').touch()", processes=3)
    made = {p.name for p in small.out.iterdir()}
    assert made == {"shared_0", "shared_1", "shared_2", "main_0", "work.json"}
    assert [p.name for p in sorted((small.root / "data/runs/mine").glob("*.ipynb"))] == ["work.ipynb"]
    assert "RANK" not in os.environ and "FACESYN_SHARED" not in os.environ
    assert facesyn("run", "mine").output.count("kept") == 1, "it ended, however many processes there were"


@pytest.mark.distributed
@pytest.mark.parametrize("who", [0, 1])
def test_the_error_of_the_process_that_failed_is_told(who, small, capfd):
    wait = f"if rank == '{who}':\n    raise ValueError('only here')\n{NAP}"
    with pytest.raises(ValueError, match=f"work, process {who} of 0 to 1, failed: ValueError: only here") as e:
        small(wait)
    name = f"work.{who}.ipynb" if who else "work.ipynb"
    assert str(small.root / f"data/runs/mine/{name}") in str(e.value), "where the notebook lies"
    assert "ChildFailedError" not in (said := "".join(capfd.readouterr())) and "torch.distributed" not in said
    small("pass")
    assert (small.out / "work.json").exists() and not (small.root / "data/runs/mine/work.1.ipynb").exists()


@pytest.mark.distributed
def test_a_lost_connection_is_not_what_is_told(small):
    "Process 0 notices at once that process 1 has ended, which has not yet said why"
    lost = "if rank == '0':\n    raise RuntimeError('Connection closed by peer [127.0.0.1]:1')\ntime.sleep(2)"
    with pytest.raises(ValueError, match="process 1 of 0 to 1, failed: ValueError: why"):
        small(lost + "\nraise ValueError('why')")


@pytest.mark.distributed
@pytest.mark.parametrize("what, word", [("kernel", "process 1 of 0 to 1, was killed"), ("member", "was killed")])
def test_a_killed_process_is_told_and_the_same_command_goes_on(what, word, small):
    notebook(small.root, "work", NOTE + "\n" + NAP)
    run = subprocess.Popen([sys.executable, "-m", "facesyn", "run", "mine", "--processes", "2"], stderr=subprocess.PIPE)
    pids = noted(small.out)
    os.kill(pids[1][what == "member"], signal.SIGKILL)
    said = run.communicate(timeout=60)[1].decode()
    assert run.returncode == 1 and word in said and "Traceback" not in said, said
    until(lambda: not alive(sum(pids, ())))
    small("pass")


@pytest.mark.distributed
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_launcher_leaves_nobody_behind(how, small):
    notebook(small.root, "work", NOTE + "\n" + NAP)
    run = subprocess.Popen([sys.executable, "-m", "facesyn", "run", "mine", "--processes", "2"], stderr=subprocess.PIPE)
    pids = noted(small.out)
    run.send_signal(how)
    said = run.communicate(timeout=60)[1].decode()
    if how == signal.SIGINT:
        assert run.returncode == 130 and "stopped in work: pictures so far" in said and "Traceback" not in said, said
    until(lambda: not alive(sum(pids, ())), 20)


LATE = """
from facesyn.core.sharing import share_work
time.sleep(6 if rank == '1' else 0)
def ended():
    Path(out, f'ended_{rank}').touch()
share_work(out, {}, 4, 1, lambda k, *_: Path(out, str(k)).touch(), lambda k: [Path(out, str(k))], last=ended)
"""


@pytest.mark.distributed
def test_a_helper_that_comes_late_does_not_begin_again(small):
    changed = "Path(out, 'ended_0').rename(Path(out, 'changed')), time.sleep(8)"
    small(LATE, changed)
    assert {p.name for p in small.out.iterdir()} == {*"0123", "changed", "work.json"}


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == pick_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == pick_device("cuda") == torch.device("cuda:1") and pick_device("cuda:0").index == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="4 processes need as many GPUs, and there are 2"):
        joined(pick_device())
    with by_itself():
        assert joined("cpu").count == 1


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """The same profile by one process and by two; without the identity term, whose encoder's PReLU makes a rounding
    large, see tests/unit/test_processes.py for it"""
    roots, before, faces = {}, Path.cwd(), parametric_faces(12, 4, 32, 0)
    for count in (1, 2):
        roots[count] = checkout(tmp_path_factory.mktemp("many") / str(count), dict(tiny=TINY))
        known = embed(load_encoder(shipped("identity"), "cpu"), faces), faces.attributes
        write_encoded(roots[count] / "data/faces", faces, *known, RENDERED)
        os.chdir(roots[count])
        ran = facesyn("run", "tiny", "--quiet", "--processes", count)
        os.chdir(before)
        assert ran.exit_code == 0, ran.output
    return {count: root / "data/runs/tiny" for count, root in roots.items()}


@pytest.mark.distributed
def test_two_processes_train_what_one_does(one_and_two):
    one, two = (load_file(folder / "id3/checkpoint.safetensors") for folder in one_and_two.values())
    names = [k for k in one if k.startswith(("model.", "ema."))]
    assert max((one[k] - two[k]).abs().max() for k in names) < 1e-4
    records = [sorted(p.relative_to(folder) for p in folder.rglob("*.json")) for folder in one_and_two.values()]
    assert records[0] == records[1]
    seen = [json.loads((folder / "models/id3/id3_train.json").read_text()) for folder in one_and_two.values()]
    assert seen[0]["results"]["images_seen"] == seen[1]["results"]["images_seen"]
    assert len({len((folder / "id3/log.jsonl").read_text().splitlines()) for folder in one_and_two.values()}) == 1


@pytest.mark.distributed
def test_two_processes_draw_the_same_bytes(one_and_two):
    sets = [folder / "dataset" for folder in one_and_two.values()]
    pictures = [{p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.png")} for folder in sets]
    assert len(pictures[0]) == 24 and pictures[0] == pictures[1]
    assert np.array_equal(*(np.load(folder / "anchors.npy") for folder in sets))
    assert not [p for p in sets[1].rglob(".facesyn*")]
