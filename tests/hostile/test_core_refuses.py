"""Bad input to the floor `core`: a row is a call and the words that its error must have."""

import io
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from facesyn.core.checkpoints import load_checkpoint, restore, save_checkpoint
from facesyn.core.checks import refused
from facesyn.core.files import atomic, locked, read_json, read_lines, repo_root, same_settings, shipped, write_json
from facesyn.core.images import (
    PHOTOGRAPHS,
    decode_image,
    generator,
    image_grid,
    lead_picture,
    noise,
    read_image,
    to_float,
    to_uint8,
)
from facesyn.core.records import misfits, recorded, run_parameters
from facesyn.core.training import Keep, Optim, learning_rate, train_loop
from facesyn.core.watching import Watch, strip

ABSENT = next(name for name in LOGGER_TYPE_TO_CLASS if name not in map(str, get_available_trackers()))
PIXELS = np.zeros((6, 8, 8, 3), np.uint8)
NAN = torch.zeros(3, 3, 4, 4)
NAN[1, 0, 0, 0] = torch.nan
DEFAULTS = 'out = "data/x"   # a folder\nlr = 1.0e-3\nsteps = 4\nunet = {"patch": 2, "power": 0.5}\nhaving = {}'


def run_as(asked):
    "The parameters of a run notebook into which papermill puts the cell `asked`"
    cells = ["", DEFAULTS, "# Parameters\n" + asked]
    names = {}
    exec("\n".join(cells), names)
    return run_parameters(dict(names, In=cells))


ROWS = [
    (lambda: same_settings("work", dict(a=1), dict(b=1)), "work", "a: 1 -> None", "b: None -> 1"),
    (lambda: same_settings("work", dict(net=dict(dim=8)), dict(net=dict(dim=9))), "net.dim: 8 -> 9"),
    (lambda: same_settings("work", dict(x="a" * 64), dict(x="b" * 64)), "work holds another set", "(other x)"),
    (lambda: same_settings("work", dict(x="a" * 64, n=1), dict(x=None, n=2)), "(n: 1 -> 2; other x)"),
    (lambda: run_as("step = 5"), "unknown parameter 'step'", "out, lr, steps, unet, having"),
    (lambda: run_as('lr = "1e-4"'), "parameter lr", "float", "'1e-4'"),
    (lambda: run_as("steps = 2.5"), "parameter steps", "int", "2.5"),
    (lambda: run_as("lr = float('nan')"), "parameter lr", "nan", "not finite"),
    (lambda: run_as("having = {'age': [18, float('inf')]}"), "parameter having", "inf", "not finite"),
    (lambda: run_as("step = 5\nlr = float('-inf')"), "unknown parameter 'step'"),
    (lambda: run_as("out = '64'\nsteps = float('nan')"), "parameter steps", "not finite"),
    (lambda: run_as("steps = True"), "parameter steps", "int", "True"),
    (lambda: run_as("patch = 4"), "unknown parameter 'patch'", "do you mean unet.patch"),
    (lambda: run_as("unet = {'pach': 4}"), "unknown parameter 'unet.pach'", "do you mean unet.patch"),
    (lambda: run_as("unet = {'patch': 2.5}"), "parameter unet.patch", "int", "2.5"),
    (lambda: run_as("unet = {'patch': {'x': 4}}"), "parameter unet.patch", "int"),
    (lambda: run_as("unet = {'power': float('nan')}"), "parameter unet.power", "nan", "not finite"),
    (lambda: run_as("unet = {4: 4}"), "unknown parameter 'unet.4'", "there are unet.patch, unet.power"),
    (lambda: run_as("unet = 4"), "parameter unet", "mapping of patch, power", "4"),
    (lambda: run_as("unet = None"), "parameter unet", "mapping of patch, power", "None"),
    (lambda: run_as("having = [1]"), "parameter having", "dict", "[1]"),
    (lambda: generator(-1), ">= 0", "(-1,)"),
    (lambda: generator(7, 0, -2), ">= 0", "(7, 0, -2)"),
    (lambda: noise((3, 4, 4), 0, [0, 1], [0]), "zip()"),
    (lambda: to_float(PIXELS / 255), "uint8", "float64"),
    (lambda: to_float(PIXELS[0]), "(n, h, w, 3)", "(8, 8, 3)"),
    (lambda: to_float(PIXELS.transpose(0, 3, 1, 2)), "(6, 3, 8, 8)"),
    (lambda: to_uint8(NAN), "image 1", "NaN or infinite"),
    (lambda: decode_image(io.BytesIO(b"\xff\xd8 not a picture"), name="row 5"), "row 5"),
    (lambda: image_grid(PIXELS, ncol=3, rows=["one"]), "rows: 1 words for 2 rows"),
    (lambda: image_grid(PIXELS, ncol=3, columns=["a", "b"]), "columns: 2 words for 3 columns"),
    (lambda: learning_rate(0, 10, 0.1, schedule="cosinus"), "cosinus", "cosine"),
    (lambda: Optim(schedule="sine"), "sine", "cosine"),
    (lambda: Optim(precision="fp16"), "fp16", "bf16"),
    (lambda: Optim(accumulate=0), "Optim: accumulate=0"),
    *((lambda v=v: Optim(accumulate=v), f"Optim: accumulate={v!r}") for v in (-1, 1.5, True, "2")),
    *((lambda v=v: Watch(v), f"Watch: every={v!r}") for v in (-1, 2.5, True, "9", None)),
    *((lambda v=v: Watch(9, v), f"Watch: rows={v!r}") for v in (0, -1, (), "01", None)),
    (lambda: Watch(9, steps=0), "Watch: steps=0"),
    *((lambda v=v: Watch(9, (0, v)).among(9), f"rows holds {v!r}", "from 0 to 8") for v in (9, -1, 0.5, "1")),
    (lambda: Keep(watch=Watch(9)), "Watch(9)", "give `Keep` a folder"),
    *((lambda v=v: Keep("x", log_with=v), f"log_with={v!r}", "installed are", "tensorboard") for v in ("board", 3, {})),
    (lambda: Keep("x", log_with=["board"]), "log_with='board'", "accelerate knows", "trackio", "wandb"),
    (lambda: Keep("x", log_with=ABSENT), f"log_with='{ABSENT}'", "not installed"),
    (lambda: Keep(log_with="tensorboard"), "log_with='tensorboard'", "give `Keep` a folder"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


def test_every_misfit_is_named():
    assert len(misfits(dict(step=5, lr="1e-4", steps=3), dict(lr=0.1, steps=4))) == 2


def test_files_that_are_not_there(tmp_path):
    refused(lambda: repo_root(tmp_path), str(tmp_path), "settings.ini", kind=FileNotFoundError)
    refused(lambda: shipped("id4"), "id4", "cemiface", kind=FileNotFoundError)
    refused(lambda: read_json(tmp_path / "x.json"), "x.json", kind=FileNotFoundError)
    refused(lambda: read_image(tmp_path / "x.png"), "x.png", kind=FileNotFoundError)
    refused(lambda: strip(tmp_path), f"{tmp_path}/looks", "not watched", kind=FileNotFoundError)
    refused(lambda: Keep(tmp_path, watch=500), "watch: expected Watch, got int", kind=TypeError)


def test_files_that_are_broken(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'{"a": 1')
    refused(lambda: read_json(path), str(path), "is not JSON")
    refused(lambda: load_checkpoint(path, {}), str(path), "is not a checkpoint")
    for broken in (b"", b"\xff\xd8 not a picture", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(broken)
        refused(lambda: read_image(path), str(path))


def test_a_record_of_another_version(tmp_path):
    refused(lambda: recorded(tmp_path / "x.json"), "x.json", kind=FileNotFoundError)
    write_json(dict(run="idbooth_train", parameters=dict(people=3)), tmp_path / "x.json")
    refused(lambda: recorded(tmp_path / "x.json", "people", "subjects"), "x.json", "subjects", "idbooth_train")
    write_json(dict(parameters=[]), tmp_path / "x.json")
    refused(lambda: recorded(tmp_path / "x.json", "people"), "x.json", "people")


def test_what_json_cannot_hold_leaves_no_file(tmp_path):
    refused(lambda: write_json(dict(a=float("nan")), tmp_path / "x.json"), "JSON")
    refused(lambda: write_json(dict(a=object()), tmp_path / "x.json"), "object", kind=TypeError)
    refused(lambda: write_json(dict(a=[1]), tmp_path), kind=OSError)
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "y") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())


@pytest.fixture
def in_a_repository(tmp_path, monkeypatch):
    "A repository with one picture, x.png, and nothing else"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACESYN_WRITE_PICTURES", "1")
    Path("settings.ini").touch()
    lead_picture(Image.new("RGB", (40, 20), "navy"), "x.png")
    monkeypatch.delenv("FACESYN_WRITE_PICTURES")


def test_lead_pictures(in_a_repository, monkeypatch):
    blue = Image.new("RGB", (40, 20), "navy")
    lead_picture(blue, "x.png")
    refused(lambda: lead_picture(blue, "y.png"), "y.png", kind=FileNotFoundError)
    refused(lambda: lead_picture(blue.resize((20, 20)), "x.png"), "x.png", "not what this notebook draws")
    refused(lambda: lead_picture(Image.new("RGB", (40, 20), "darkred"), "x.png"), "FACESYN_WRITE_PICTURES=1")
    monkeypatch.setenv("FACESYN_WRITE_PICTURES", "1")
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (400, 400, 3), dtype=np.uint8))
    refused(lambda: lead_picture(noisy, "z.jpg"), "z.jpg", "under 60,000")
    assert sorted(p.name for p in Path("nbs/images").iterdir()) == ["x.png"]


def trained(folder, net, loss=lambda net: net.weight.sum(), **settings):
    "Two updates of a network by plain gradient descent"
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)

    def update(step):
        sgd.zero_grad()
        terms = dict(loss=loss(net))
        terms["loss"].backward()
        sgd.step()
        return terms

    return train_loop(update, 2, sgd, dict(net=net), dict(asdict(Optim()), **settings), Keep(folder))


def test_checkpoints(tmp_path):
    trained(tmp_path, torch.nn.Linear(3, 2))
    path, net = tmp_path / "checkpoint.safetensors", torch.nn.Linear(2, 3)
    refused(lambda: trained(tmp_path, torch.nn.Linear(3, 2), lr=0.2), str(path), "lr: 0.0001 -> 0.2")
    refused(lambda: trained(tmp_path, net), str(path), "net.weight", "(3, 2)", "another network")
    _, tensors = load_checkpoint(path, asdict(Optim()))
    less = {k: v for k, v in tensors.items() if k != "net.bias"}
    three = torch.nn.Linear(3, 2)
    sgd = torch.optim.SGD(three.parameters(), 0.1)
    refused(lambda: restore(path, less, sgd, dict(net=three)), "net.bias is missing")
    path.write_bytes(path.read_bytes()[:40])
    refused(lambda: trained(tmp_path, torch.nn.Linear(3, 2)), str(path), "is not a checkpoint")
    save_checkpoint(None, {}, {}, {})
    assert load_checkpoint(None, {}) is None


def test_a_loss_that_is_not_finite_stops_the_training():
    words = "step 1", "loss", "a smaller learning rate"
    net = torch.nn.Linear(3, 2)
    refused(lambda: trained(None, net, lambda net: net.weight.sum() / 0), *words, kind=FloatingPointError)


JSON_FILES = {
    "cut": b'{"a": 1',
    "empty": b"",
    "latin-1": '{"a": "é"}'.encode("latin-1"),
    "a web page": b"<html>",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", JSON_FILES.values(), ids=JSON_FILES.keys())
def test_broken_json(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    refused(lambda: read_json(tmp_path / "x"), str(tmp_path / "x"))
    (tmp_path / "x").write_bytes(b'{"a": 1}\n' + (content or b"[2]"))
    refused(lambda: read_lines(tmp_path / "x"), str(tmp_path / "x"))


def test_json_of_another_kind(tmp_path):
    (tmp_path / "x").write_text("[1, 2]")
    refused(lambda: read_json(tmp_path / "x", dict), str(tmp_path / "x"), "expected an object {...}, got list")
    (tmp_path / "x").write_text('{"a": 1}\n\n[2]\n')
    refused(lambda: read_lines(tmp_path / "x"), f"{tmp_path / 'x'} line 3", "expected an object")


def test_one_writer(tmp_path):
    with locked(tmp_path):
        for shared in (False, True):
            refused(lambda: locked(tmp_path, shared).__enter__(), str(tmp_path), "another process is writing there")
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True):
        refused(lambda: locked(tmp_path).__enter__(), str(tmp_path), "another process is writing there")
    with locked(tmp_path):
        pass


def test_only_leftovers_of_our_own_are_swept(tmp_path):
    mine = [".notes.2026.txt", ".todo.1.swp", ".env.local.txt", ".facesyn-notes-of-mine.txt", "a.json"]
    for name in [*mine, ".facesyn-0123456789ab-a.json"]:
        (tmp_path / name).touch()
    with locked(tmp_path):
        assert {p.name for p in tmp_path.iterdir()} - {".facesyn-lock"} == {*mine}


def picture(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
PICTURES = [
    (picture(Image.fromarray((RAMP * 4095).astype(np.uint16)), "PNG"), "of its 16 bits only 12 are used", "8 bits"),
    (picture(Image.fromarray((RAMP * 65535).astype(np.int32)), "TIFF"), "32-bit numbers", "8 bits"),
    (picture(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "32-bit numbers", "8 bits"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "no picture of PNG, JPEG"),
    (picture(Image.new("RGB", (8, 8)), "PPM"), "no picture of PNG, JPEG"),
    (picture(Image.new("1", (9000, 8000)), "PNG"), "9000 x 8000 pixels", "64,000,000", "FACESYN_MAX_PIXELS"),
]


@pytest.mark.parametrize("row", PICTURES, ids=lambda row: row[1])
def test_pictures_that_are_refused(row):
    refused(lambda: decode_image(row[0], 32, "row 5", PHOTOGRAPHS), "row 5", *row[1:])


def test_formats_of_photographs_are_not_those_of_datasets():
    tiff = picture(Image.new("RGB", (8, 8)), "TIFF")
    assert decode_image(tiff, formats=PHOTOGRAPHS).shape == (8, 8, 3)
    refused(lambda: decode_image(tiff), "the bytes", "no picture of PNG, JPEG, WEBP, BMP")


def test_a_photograph_of_48_megapixels_is_read():
    assert decode_image(picture(Image.new("RGB", (8064, 6048)), "JPEG"), 112).shape == (112, 112, 3)


def test_exif_data_that_are_broken_turn_nothing():
    assert decode_image(picture(Image.new("RGB", (8, 4)), "PNG", exif=b"Exif\0\0II*\0broken")).shape == (4, 8, 3)


def test_checkpoints_that_are_damaged(tmp_path):
    path, settings = tmp_path / "checkpoint.safetensors", dict(lr=0.1)
    for step in (1, 2):
        save_checkpoint(path, settings, dict(step=step), dict(x=torch.arange(40)))
    former = path.with_name("checkpoint.former.safetensors")
    whole, before = path.read_bytes(), former.read_bytes()
    for k in range(0, 8 * len(whole), 97):
        bits = bytearray(whole)
        bits[k // 8] ^= 1 << k % 8
        path.write_bytes(bits), former.write_bytes(before)
        with pytest.warns(UserWarning, match="going on from checkpoint.former.safetensors"):
            assert load_checkpoint(path, settings)[0] == dict(step=1)
        assert path.read_bytes() == before and not former.exists()  # the next one does not bury it under the damaged
    path.write_bytes(bits)
    refused(lambda: load_checkpoint(path, settings), str(path), "is not a checkpoint")
    path.write_bytes(whole)
    assert load_checkpoint(path, settings)[0] == dict(step=2)


def test_two_trainings_in_one_folder(tmp_path):
    net = torch.nn.Linear(2, 1)

    def meanwhile(net):
        refused(lambda: trained(tmp_path, torch.nn.Linear(2, 1)), str(tmp_path), "another process is writing there")
        return net.weight.sum()

    trained(tmp_path, net, meanwhile)
