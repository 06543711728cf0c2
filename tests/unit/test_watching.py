"""A training that is watched: looks change no weights, none is lost or drawn twice where it is killed, the main process
draws them with the averaged weights; and trackers get what the log gets."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.tracking import GeneralTracker, TensorBoardTracker
from safetensors.torch import load_file
from torch import nn

from facesyn.core.files import read_lines
from facesyn.core.images import generator, read_image
from facesyn.core.training import Keep, Optim
from facesyn.core.watching import Watch, strip
from facesyn.data.faces import Faces
from facesyn.diffusion.training import train
from facesyn.methods.cemiface_training import CemiFaceRecipe, train_cemiface
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.nets.attributes import AttributeRecipe, train_attributes
from facesyn.nets.encoders import Encoder, embed
from facesyn.nets.recogniser import Recipe, train_recogniser

PICTURES = torch.randint(0, 256, (24, 8, 8, 3), dtype=torch.uint8, generator=generator(1))
UNET = dict(channels=(16, 16), head_dim=8, dropout=0.1)
WATCH = Watch(3, rows=(0, 5, 23), steps=2)


def eyes():
    torch.manual_seed(0)
    return Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), size=8)


def faces(pause=0.0):
    "Noise of six people; reading a batch takes `pause` seconds"
    names = [f"p{k}" for k in range(6)]
    return Faces(np.arange(24) % 6, names, np.zeros((24, 4)), 8, lambda k: (time.sleep(pause), PICTURES[k].numpy())[1])


def id3(keep, steps=12, pause=0.0):
    recipe = ID3Recipe(steps, 4, UNET, 16, (8,), drop=(0.1, 0.1), optim=Optim(1e-3, ema=0.9))
    return train_id3(faces(pause), embed(eyes(), PICTURES, flip=False), np.zeros((24, 4)), eyes(), recipe, keep)


def cemiface(keep, steps=12, pause=0.0):
    return train_cemiface(faces(pause), eyes(), CemiFaceRecipe(steps, 4, UNET, optim=Optim(1e-3, ema=0.9)), keep)


METHODS = dict(id3=id3, cemiface=cemiface)


def looks(folder):
    "Name -> bytes of all files that the looks of a training left"
    return {p.name: p.read_bytes() for p in sorted((Path(folder) / "looks").iterdir())}


@pytest.mark.parametrize("method", METHODS)
def test_looks_change_no_weight(method, tmp_path):
    seen, unseen = METHODS[method](Keep(tmp_path / "seen", watch=WATCH)), METHODS[method](Keep(tmp_path / "unseen"))
    for part in ("unet", "conditions"):
        one, other = (getattr(pipe, part).state_dict() for pipe in (seen, unseen))
        assert all(torch.equal(v, other[k]) for k, v in one.items())
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("seen", "unseen")]
    assert logs[0] == logs[1] and not (tmp_path / "unseen/looks").exists()


@pytest.mark.parametrize("method, levels", [("id3", 3), ("cemiface", 5)])
def test_the_strip_begins_with_the_untrained_network(method, levels, tmp_path):
    METHODS[method](Keep(tmp_path, watch=WATCH), 7)
    lines = read_lines(tmp_path / "looks/log.jsonl")
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert all(len(line) == 1 + levels and all(abs(v) <= 1 for k, v in line.items() if k != "step") for line in lines)
    rows = [read_image(tmp_path / f"looks/{step:07}.png") for step in (0, 3, 6)]
    assert all(row.shape == (8, 3 * levels * 8, 3) for row in rows)
    assert not (rows[0] == rows[1]).all() and not (rows[1] == rows[2]).all()


def test_what_is_looked_at_is_what_the_training_returns(tmp_path):
    "The last look shows the averaged weights, not those of the last update"
    pipe = id3(Keep(tmp_path, seconds=0.0, watch=replace(WATCH, every=12)))
    there = read_image(tmp_path / "looks/0000012.png")
    found = id3(Keep(tmp_path / "again", watch=replace(WATCH, every=12)), 12)
    assert all(torch.equal(p, q) for p, q in zip(pipe.unet.parameters(), found.unet.parameters()))
    network, seen = nn.Linear(2, 1), []

    def draw(network):
        seen.append(network)
        return torch.zeros(1, 8, 8, 3, dtype=torch.uint8), {}

    def batch_at(first, count):
        return dict(x=torch.randn(count, 2, generator=generator(0, first)))

    keep = Keep(tmp_path / "plain", watch=Watch(5, draw=draw))
    trained = train(network, batch_at, lambda net, b: dict(loss=net(b["x"]).square().mean()), 10, 4, Optim(0.1), keep)
    assert there.any() and len(seen) == 3 and not seen[-1].training
    assert torch.equal(seen[-1].weight, trained.weight) and not torch.equal(seen[1].weight, trained.weight)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_has_the_strip_of_one_that_was_not(method, tmp_path):
    torch.set_num_threads(1)
    METHODS[method](Keep(tmp_path / "whole", watch=WATCH))
    killed = tmp_path / "killed"
    for step in ("0000000", "0000006"):  # SIGKILL, some time after that look
        child = subprocess.Popen([sys.executable, __file__, method, str(killed)])
        for _ in range(1200):
            if (killed / f"looks/{step}.png").exists():
                break
            time.sleep(0.05)
        child.kill()
        assert child.wait() == -9, "the child ended"
    times = {p.name: p.stat().st_mtime_ns for p in (killed / "looks").glob("[0-9]*.png")}
    log = (killed / "looks/log.jsonl").read_text()
    METHODS[method](Keep(killed, watch=WATCH))
    assert looks(killed) == looks(tmp_path / "whole")
    twice = [name for name, when in times.items() if (killed / "looks" / name).stat().st_mtime_ns != when]
    assert all(f'"step": {int(name[:7])},' not in log for name in twice), "a complete look was drawn again"


def test_the_training_may_end_later_and_the_sampler_is_remembered(tmp_path):
    id3(Keep(tmp_path / "long", watch=WATCH), 9)
    id3(Keep(tmp_path / "short", watch=WATCH), 4)
    id3(Keep(tmp_path / "short", watch=WATCH), 9)
    assert looks(tmp_path / "short") == looks(tmp_path / "long")
    for other in (replace(WATCH, steps=3), replace(WATCH, rows=(0, 5, 22))):
        with pytest.raises(ValueError, match="looks/about.json was made with other settings.*look"):
            id3(Keep(tmp_path / "long", watch=other), 12)


def test_looks_of_another_training_are_refused(tmp_path):
    "Its checkpoint is gone, its pictures are not"
    cemiface(Keep(tmp_path, watch=WATCH), 3)
    Keep(tmp_path).remove()
    with pytest.raises(ValueError, match="looks/about.json"):
        id3(Keep(tmp_path, watch=WATCH), 3)


def test_a_broken_look_is_drawn_again(tmp_path):
    id3(Keep(tmp_path, seconds=1e9, watch=WATCH), 3)
    before = looks(tmp_path)
    (tmp_path / "looks/0000000.png").write_bytes(b"half")
    Keep(tmp_path).remove()
    id3(Keep(tmp_path, watch=WATCH), 3)
    assert looks(tmp_path) == before and strip(tmp_path).height > 16


@pytest.mark.distributed
def test_the_main_process_draws_and_changes_nothing(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    for run in ("shared", "unseen"):
        ended = subprocess.run([*command, run, str(tmp_path / run)], capture_output=True, text=True, timeout=300)
        assert not ended.returncode, ended.stderr[-3000:]
    one, other = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("shared", "unseen"))
    assert one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())
    assert [line["step"] for line in read_lines(tmp_path / "shared/looks/log.jsonl")] == [0, 3, 6]
    assert [p.name for p in tmp_path.glob("drawn-*")] == ["drawn-0"]
    assert len([*(tmp_path / "shared/facesyn").glob("events*")]) == 1


class Pages(GeneralTracker):
    "A tracker that remembers what it was told"

    name, requires_logging_directory, tracker = "pages", False, None

    def __init__(self):
        super().__init__()
        self.said, self.pictures, self.state = [], [], ["made"]

    def start(self):
        self.state.append("started")

    def log(self, values, step=None):
        self.said.append((step, values))

    def log_images(self, values, step=None):
        self.pictures.append(step)

    def finish(self):
        self.state.append("finished")


def recogniser(keep):
    recipe = Recipe(epochs=2, batch=8, lr=0.05, s=16.0, flip=False)
    train_recogniser(faces(), dict(size=8, layers=(1, 1), widths=(16, 16), dim=8), recipe, keep, device="cpu", every=1)


def attributes(keep):
    net = dict(size=8, layers=(1, 1), widths=(16, 16), dim=8)
    train_attributes(faces(), net, AttributeRecipe(epochs=2, batch=8), keep, device="cpu")


@pytest.mark.parametrize("training", [id3, cemiface, recogniser, attributes], ids=lambda f: f.__name__)
def test_a_tracker_gets_every_line_of_the_log(training, tmp_path):
    pages = Pages()
    training(Keep(tmp_path, every=4, log_with=pages))
    log = read_lines(tmp_path / "log.jsonl")
    numbers = [{k: v for k, v in line.items() if k != "step"} for line in log]
    assert numbers and [values for _, values in pages.said] == numbers and not pages.pictures
    assert [step for step, _ in pages.said] == [line.get("step", step) for line, (step, _) in zip(log, pages.said)]
    assert pages.state == ["made", "started", "finished"]


def test_a_tracker_is_closed_when_the_training_fails(tmp_path):
    pages = Pages()
    with pytest.raises(FloatingPointError):
        train(
            nn.Linear(1, 1),
            lambda first, count: dict(x=torch.full((count, 1), torch.inf)),
            lambda net, batch: dict(loss=net(batch["x"]).square().mean()),
            *(3, 2),
            keep=Keep(tmp_path, log_with=[pages]),
        )
    assert pages.state[-1] == "finished"


def test_a_tracker_gets_the_strip(tmp_path):
    pages = Pages()
    id3(Keep(tmp_path, every=4, watch=WATCH, log_with=pages), 7)
    assert pages.pictures == [0, 3, 6]
    reached = [values for _, values in pages.said if "looks/reached_at_1" in values]
    told = [
        {f"looks/{k}": v for k, v in line.items() if k != "step"} for line in read_lines(tmp_path / "looks/log.jsonl")
    ]
    assert reached == told


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    id3(Keep(tmp_path, every=4, watch=WATCH, log_with="tensorboard"), 8)
    events = accumulator(str(tmp_path / "facesyn"))
    events.Reload()
    tags = events.Tags()
    losses = [(e.step, np.float32(e.value)) for e in events.Scalars("loss")]
    assert losses == [(line["step"], np.float32(line["loss"])) for line in read_lines(tmp_path / "log.jsonl")]
    assert {"lr", "denoise", "looks/reached_at_0.8"} <= {*tags["scalars"]}
    pictures = events.Images("looks")
    assert [e.step for e in pictures] == [0, 3, 6]
    assert (pictures[-1].width, pictures[-1].height) == strip(tmp_path).size


def test_nothing_is_sent_unless_a_tracker_is_named(tmp_path, monkeypatch):
    def start(self):
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(TensorBoardTracker, "start", start)
    monkeypatch.setenv("ACCELERATE_LOG_WITH", "tensorboard")
    id3(Keep(tmp_path / "unasked", watch=WATCH), 3)
    assert {p.name for p in (tmp_path / "unasked").iterdir()} == {
        *("checkpoint.safetensors", "log.jsonl", "work.jsonl", "looks")
    }
    with pytest.raises(AssertionError, match="nobody asked"):
        id3(Keep(tmp_path / "asked", log_with="tensorboard"), 3)


def shared(out, watch):
    "With a file for each process that draws"
    import torch.distributed as dist

    def show(folder):
        (out.parent / f"drawn-{dist.get_rank()}").touch()

    id3(Keep(out, watch=replace(watch, show=show), log_with="tensorboard"), 7)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if (name := sys.argv[1]) in METHODS:
        METHODS[name](Keep(sys.argv[2], seconds=0.3, watch=WATCH), pause=0.1)
    else:
        shared(Path(sys.argv[2]), WATCH if name == "shared" else Watch())
