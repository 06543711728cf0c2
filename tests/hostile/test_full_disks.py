"""A disk that is full and a folder that may not be written: a clear error, nothing damaged, and what is begun again
with room ends in the bytes of a writer that was never stopped.

Full are files that may not grow (a limit of the process, which every system has), and a small disk in memory where this
process may mount one."""

import atexit
import errno
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tiny import pipeline
from torch import nn
from unit.test_booth import HOW, RECIPE, small

from facesyn.core.execution import execute
from facesyn.core.files import arrays_digest, read_json, write_json
from facesyn.core.images import generator, write_image
from facesyn.core.profiles import Run
from facesyn.core.records import write_record
from facesyn.core.training import Keep, Optim, train_loop
from facesyn.core.watching import Watch
from facesyn.data.bins import as_png, save_bin
from facesyn.data.conversion import WRITERS, convert
from facesyn.data.dataset import encode_faces
from facesyn.data.faces import Faces, parametric_faces
from facesyn.diffusion.bases import save_base
from facesyn.diffusion.latents import Patches, stored_latents
from facesyn.diffusion.text_to_image import build_vae
from facesyn.methods.generation import generate
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.methods.idbooth_pictures import know, make_priors
from facesyn.methods.idbooth_training import train_person
from facesyn.methods.people import generate_people
from facesyn.methods.plans import plan
from facesyn.methods.tars import generate_tars
from facesyn.nets.backbones import recogniser
from facesyn.nets.encoders import Encoder, embed
from facesyn.nets.onnx_export import export_onnx
from facesyn.nets.photographs import prepare_photos
from facesyn.nets.recogniser import Recipe, train_recogniser
from facesyn.rendered.faces import render_faces
from facesyn.report.page import write_report
from facesyn.report.pieces import Html

CARD = dict(name="four", source="rendered", method="a test", licence="CC0-1.0", limits="none")
FORK = multiprocessing.get_context("fork")
CLOCKS = {"work.jsonl", "checkpoint.former.safetensors"}  # what depends on the time that something took
FULL = "No space left on device", "File too large", "(is the disk full?)"  # LMDB does not know it
PEOPLE = parametric_faces(4, 3, 32, first=10)
MANY = np.random.default_rng(1).integers(0, 256, (40, 112, 112, 3), np.uint8)
NOISE = torch.randint(0, 256, (24, 16, 16, 3), dtype=torch.uint8, generator=generator(1))


def seen(size):
    torch.manual_seed(0)
    return Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 8)), size=size)


def asked():
    y = np.random.default_rng(0).normal(size=(3, 8, 4)).astype(np.float32)
    return plan(y / np.linalg.norm(y, axis=2, keepdims=True), 0)


def id3(folder):
    how = dict(batch=8, unet=dict(channels=(32,), head_dim=16), width=16, hidden=(8,), optim=Optim(5e-4, ema=0.9))
    keep = Keep(folder, seconds=0.0, every=1, watch=Watch(2, rows=2, steps=1))
    y = embed(seen(16), NOISE, flip=False)
    train_id3(NOISE, y, np.zeros((24, 4)), seen(16), ID3Recipe(4, **how), keep, Patches(2))


def recognition(folder):
    net = dict(size=16, layers=(1, 1), widths=(16, 16), dim=8)
    faces = Faces(
        np.arange(24) % 6, [f"p{k}" for k in range(6)], np.full((24, 4), np.nan), 16, lambda k: NOISE[k].numpy()
    )
    train_recogniser(faces, net, Recipe(2, 8, 0.05, s=16.0), Keep(folder, seconds=0.0), "cpu")


def tracked(folder):
    net = nn.Linear(8, 8)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    terms = {f"term {k}": 0.5 for k in range(40)}
    train_loop(lambda step: terms, 40, sgd, {}, {}, Keep(folder, every=1, log_with="tensorboard"))


def person(folder):
    pipe = small()
    known = know(pipe, render_faces([3] * 4, range(4), 32)[0], seen(32))
    train_person(pipe, known, known, seen(32), Keep(folder, seconds=0.0, every=1), RECIPE)


def encode(folder):
    y = np.eye(12, 600, dtype=np.float32)
    encode_faces(folder, PEOPLE, lambda pixels, rows: dict(y=y[None, rows], s=np.zeros((len(rows), 4))), batch=2)


def latents(folder):
    torch.manual_seed(0)
    stored_latents(build_vae(32, (16, 16)).eval(), PEOPLE, folder / "latents.npy", batch=4)


def untrained(size=16):
    torch.manual_seed(0)
    return recogniser(dict(size=size, layers=(1, 1), widths=(16, 16), dim=8))


@cache
def photos():
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    for k, image in enumerate(parametric_faces(1, 6, 112).read(np.arange(6))):
        write_image(image, root / "ann" / f"{k}.png")
    os.chmod(root, 0o755)
    return root


def photographs(folder):
    marks = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]
    prepare_photos(photos(), folder, lambda file, image: [dict(landmarks=np.array(marks))], CARD)


def people(folder):
    crowd = [dict(name=name, number=k, sex="female", lora=None) for k, name in enumerate(("ada", "eve", "ida"))]
    generate_people(small(), crowd, 2, folder, CARD, HOW)


def record(folder):
    write_record(folder / "run.json", "run", dict(seed=0), dict(table=[*range(2000)]), time.time())


WRITE = dict(
    id3=id3,
    recognition=recognition,
    tracked=tracked,
    person=person,
    priors=lambda folder: make_priors(small(), seen(32), folder, 4, how=HOW),
    generate=lambda folder: generate(pipeline(), asked(), folder, CARD, batch=4, steps=1, unit=8),
    tars=lambda folder: generate_tars(pipeline(), asked(), folder, CARD, batch=4, steps=1, unit=8),
    encode=encode,
    latents=latents,
    network=lambda folder: untrained().save_pretrained(folder),
    generator=lambda folder: pipeline().save_pretrained(folder),
    record=record,
    photographs=photographs,
    people=people,
    base=lambda folder: save_base(small(), folder, half=True),
    bin=lambda folder: save_bin([*map(as_png, MANY)], np.arange(20) % 2 == 0, folder / "pairs.bin"),
    report=lambda folder: write_report(
        folder / "report.html", "A report", "of nothing", [("One", ["x"])], answer=Html("x")
    ),
    onnx=lambda folder: export_onnx(Encoder(untrained(112).eval(), size=112), folder / "net.onnx"),
    **{kind: lambda folder, kind=kind: convert(PEOPLE, folder, kind, card=CARD) for kind in ("rec", "flat", *WRITERS)},
)


def outcome(kind, folder, before, pipe):
    torch.set_num_threads(1)  # torch's other threads did not come along into this process: waiting for them has no end
    try:
        before()
        WRITE[kind](folder)
        pipe.send(None)
    except BaseException as e:
        pipe.send((type(e), str(e)))


def told(kind, folder, before=bool):
    "What writing came to, in a process of its own: None, or (error, what it says); EOFError if the process crashed"
    here, there = FORK.Pipe(duplex=False)
    child = FORK.Process(target=outcome, args=(kind, folder, before, there))
    child.start(), there.close()
    try:
        return here.recv()
    finally:
        child.join()


def content(folder):
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in CLOCKS and "tfevents" not in p.name]
    return {str(p.relative_to(folder)): _content(p) for p in files}


def _content(path):
    "The bytes of a file; of weights, whose entries stand in any order, what they hold; of a record its results"
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as f:
            return f.metadata(), arrays_digest({k: f.get_tensor(k) for k in f.keys()})
    return read_json(path)["results"] if path.name == "run.json" else path.read_bytes()


def clear(said, folder, *reasons):
    "Is it an error of the system that names a file or folder, not one of a name that nobody knows, and the reason?"
    kind, text = said
    assert issubclass(kind, OSError) and str(folder) in text and any(r in text for r in reasons), said
    assert not re.search(r"\.facesyn-[0-9a-f]{12}-", text), text


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    "kind -> the folder of an undisturbed writer"
    root = tmp_path_factory.mktemp("alone")

    def made(kind):
        if not (root / kind / "set").exists():
            (root / kind).mkdir(), WRITE[kind](root / kind / "set")
        return root / kind / "set"  # a set's name is in some of its files

    return made


def limited(size):
    "Files of this process may have `size` bytes"
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("kind", WRITE)
def test_a_file_may_not_grow(kind, alone, tmp_path):
    whole = content(alone(kind))
    sizes = sorted({p.stat().st_size for p in alone(kind).rglob("*") if p.is_file()} - {0})
    for k in sorted({0, len(sizes) // 2, len(sizes) - 1}):
        clear(told(kind, tmp_path / "set", limited(sizes[k] - 1)), tmp_path / "set", *FULL)
    assert told(kind, tmp_path / "set") is None and content(tmp_path / "set") == whole


def mount(folder, *options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], capture_output=True)


@pytest.fixture
def disk(tmp_path):
    "disk(pages): a new file system in memory; disk(pages, 'remount'): the same one with other room"
    folder = tmp_path / "disk"
    folder.mkdir()
    if not shutil.which("mount") or mount(folder, "size=1m").returncode:
        pytest.skip("this process may not mount a file system")
    subprocess.run(["umount", str(folder)], check=True)

    def sized(pages, *options):
        assert not mount(folder, f"size={pages * resource.getpagesize()}", *options).returncode
        return folder

    yield sized
    while not subprocess.run(["umount", str(folder)], capture_output=True).returncode:
        pass


def pages(folder):
    return sum(-(-p.stat().st_size // resource.getpagesize()) + 1 for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", WRITE)
def test_the_disk_is_full(kind, alone, disk):
    whole, failed = content(alone(kind)), 0
    for part in (0.1, 0.5, 0.8):
        folder = disk(max(1, int(part * pages(alone(kind))))) / "set"
        if said := told(kind, folder):
            clear(said, folder.parent, *FULL)
            failed += 1
        disk(2**14, "remount")
        assert told(kind, folder) is None and content(folder) == whole
        subprocess.run(["umount", str(folder.parent)], check=True)
    assert failed


@pytest.mark.parametrize("kind", WRITE)
def test_a_disk_that_is_read_only(kind, alone, disk):
    alone(kind)
    (disk(64) / "set").mkdir()
    folder = disk(64, "remount,ro") / "set"
    clear(told(kind, folder), folder, *REASONS)
    clear(told(kind, folder / "new"), folder, *REASONS)


REASONS = ("Not a directory", "Permission denied", "Read-only file system")


@pytest.mark.parametrize("kind", WRITE)
def test_below_a_file(kind, alone, tmp_path):
    alone(kind), (tmp_path / "file").write_text("mine")
    clear(told(kind, tmp_path / "file" / "set"), tmp_path / "file", *REASONS)
    clear(told(kind, tmp_path / "file"), tmp_path / "file", *REASONS)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", WRITE)
def test_a_folder_that_is_not_ours(kind, alone):
    "Which binds everybody but root, who becomes nobody"
    alone(kind)
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755), (folder := Path(d) / "set").mkdir(mode=0o555)
        nobody = (lambda: os.setuid(65534)) if os.geteuid() == 0 else bool
        clear(told(kind, folder, nobody), folder, *REASONS)
        clear(told(kind, folder / "new", nobody), folder, *REASONS)
        assert not [*folder.iterdir()]


def test_what_is_encoded_is_not_encoded_again(tmp_path, monkeypatch):
    "When the last files could not be written"
    looks, array = [], sys.modules[encode_faces.__module__].new_array

    def full(path, *told):
        if path.name == "labels.npy":
            path.touch()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return array(path, *told)

    def look(pixels, rows):
        looks.extend(rows)
        return dict(y=np.eye(12, dtype=np.float32)[None, rows], s=np.zeros((len(rows), 4)))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="labels.npy"):
        patch.setattr(sys.modules[encode_faces.__module__], "new_array", full)
        encode_faces(tmp_path, PEOPLE, look, batch=4)
    encode_faces(tmp_path, PEOPLE, look, batch=4)
    assert looks == [*range(12)]


def test_the_notebook_of_a_run_cannot_be_written(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", full)
    write_json(dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5), tmp_path / "nbs/runs/few.ipynb")
    with pytest.raises(OSError, match="No space left on device: .*mine/few.ipynb"):
        execute(tmp_path, "mine", Run("few", "few", {}, {}))
    monkeypatch.delenv("FACESYN_PROFILE")
