"""Training under fire: python tests/hostile/training.py [WORKERS [LAUNCHERS [KIND ...]]]

Two processes of torchrun train a tiny ID³ generator, which is watched, then a tiny recogniser, with a checkpoint after
each update. Without restarts a killed worker ends its launcher, and the same training is started again. First so many
workers are killed (SIGKILL), then so many launchers, every second one with its workers; those of the others go on, and
whoever starts beside them is refused, until one of
them is killed, too. Both must end in the files of a training that was left alone, bit for bit.

torchrun's launcher runs in forked processes, so that a start costs no imports."""

import ctypes
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

sys.path.insert(0, str(Path(__file__).parent))
from drawing import alive, until  # noqa: E402

from facesyn.core.images import generator  # noqa: E402
from facesyn.core.training import Keep, Optim  # noqa: E402
from facesyn.core.watching import Watch  # noqa: E402
from facesyn.data.faces import Faces  # noqa: E402
from facesyn.diffusion.latents import Patches  # noqa: E402
from facesyn.methods.id3_training import ID3Recipe, train_id3  # noqa: E402
from facesyn.nets.encoders import Encoder, embed  # noqa: E402
from facesyn.nets.recogniser import Recipe, train_recogniser  # noqa: E402

UPDATES, PAUSE, EACH = 144, 0.3, 3  # of a training; seconds that reading takes; updates from one kill to the next
FORK = multiprocessing.get_context("fork")


def pictures():
    return torch.randint(0, 256, (48, 16, 16, 3), dtype=torch.uint8, generator=generator(1))


def faces(pause):
    "Eight people of six noise pictures; reading a batch takes `pause` seconds"
    images, unknown = pictures().numpy(), np.full((48, 4), np.nan)
    read = lambda rows: (time.sleep(pause), images[rows])[1]  # noqa: E731
    return Faces(np.arange(48) % 8, [f"p{k}" for k in range(8)], unknown, 16, read)


def id3(folder, pause):
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(768, 8)), size=16)
    how = dict(batch=8, unet=dict(channels=(32,), head_dim=16), width=16, hidden=(8,), drop=(0.2, 0.2))
    recipe = ID3Recipe(UPDATES, optim=Optim(5e-4, ema=0.9), prediction="v_prediction", **how)
    keep = Keep(folder, seconds=0.0, every=1, workers=1, watch=Watch(8, rows=2, steps=1))
    y = embed(encoder, pictures(), flip=False)
    train_id3(faces(pause), y, np.zeros((48, 4)), encoder, recipe, keep, Patches(2))


def recogniser(folder, pause):
    net = dict(size=16, layers=(1, 1), widths=(16, 16), dim=8, dropout=0.2)
    recipe = Recipe(UPDATES // 6, 8, 0.05, s=16.0, shift=1)
    train_recogniser(faces(pause), net, recipe, Keep(folder, seconds=0.0, workers=1), "cpu", memory=0, every=1)


KINDS = dict(id3=id3, recogniser=recogniser)


def worker(kind, folder, pause):
    ctypes.CDLL(None).prctl(1, 0)  # it goes on when its launcher is killed, as what the command torchrun starts does
    KINDS[kind](Path(folder), pause)


def launch(kind, folder, pause, logs):
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"
    told = dict(rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork", max_restarts=0)
    told |= dict(monitor_interval=0.1, logs_specs=DefaultLogsSpecs(str(logs), Std.ALL), run_id=str(os.getpid()))
    with open(logs / f"{os.getpid()}.launcher", "w") as log:
        os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        elastic_launch(LaunchConfig(1, 1, 2, **told), worker)(kind, str(folder), pause)


def started(kind, folder, pause):
    logs = folder.with_name(f"{folder.name}.logs")
    logs.mkdir(exist_ok=True)
    launcher = FORK.Process(target=launch, args=(kind, folder, pause, logs))
    launcher.start()
    return launcher


def workers_of(launcher):
    found = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    try:
        return [pid for pid in map(int, found.read_text().split()) if alive(pid)]
    except OSError:
        return []


def steps(folder):
    "Updates of which the log tells"
    try:
        return len((folder / "log.jsonl").read_text().splitlines())
    except OSError:
        return 0


def refusals(folder):
    "How many starts were refused, because others train there"
    logs = folder.with_name(f"{folder.name}.logs").glob("*.launcher")
    return sum("another process is writing there" in log.read_text(errors="replace") for log in logs)


def at_work(kind, folder):
    "A launcher and its workers, which have made EACH updates and go on"
    launcher, made = started(kind, folder, PAUSE), steps(folder) + EACH
    until(lambda: not launcher.is_alive() or steps(folder) >= made)
    time.sleep(random.random() / 2)
    assert launcher.is_alive(), f"it ended after {steps(folder)} of {UPDATES} updates: see {folder}.logs"
    return launcher, workers_of(launcher)


def ended(kind, folder):
    launcher = started(kind, folder, 0.0)
    launcher.join(300)
    assert launcher.exitcode == 0, f"see {folder}.logs"


def kill_workers(kind, folder, times):
    seen = []
    for k in range(times):
        launcher, workers = at_work(kind, folder)
        os.kill(workers[k % 2], signal.SIGKILL)
        launcher.join(120)
        assert launcher.exitcode, "the launcher did not end"
        seen.append(steps(folder))
    return seen


def kill_launchers(kind, folder, times):
    seen = []
    for k in range(times):
        launcher, workers = at_work(kind, folder)
        launcher.kill(), launcher.join()
        if k % 2:
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        else:
            before, other = refusals(folder), started(kind, folder, PAUSE)
            other.join(120)
            assert other.exitcode and refusals(folder) > before, f"started beside workers that go on: {folder}.logs"
            os.kill(workers[k // 2 % 2], signal.SIGKILL)
        until(lambda workers=workers: not any(map(alive, workers)))  # the other one leaves by itself
        seen.append(steps(folder))
    return seen


def content(folder):
    "Without what tells of seconds, and the last but one checkpoint; of the checkpoint its tensors"
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(("work", "checkpoint"))]
    found = {str(p.relative_to(folder)): p.read_bytes() for p in files}
    with safe_open(folder / "checkpoint.safetensors", "pt") as f:
        return found | {k: f.metadata()[k] for k in ("settings", "state")}, {k: f.get_tensor(k) for k in f.keys()}


def main(workers=10, launchers=5, *kinds):
    bad = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as d:
        for kind in kinds or KINDS:
            alone = Path(d) / kind / "alone"
            alone.parent.mkdir()
            ended(kind, alone)
            for name, kill, times in (("workers", kill_workers, workers), ("launchers", kill_launchers, launchers)):
                began, folder = time.time(), alone.with_name(name)
                seen = kill(kind, folder, int(times))
                ended(kind, folder)
                (one, tensors), (other, expected) = content(folder), content(alone)
                apart = max(float((v.double() - expected[k].double()).abs().max()) for k, v in tensors.items())
                wrong = sorted(k for k in {*one, *other} if one.get(k) != other.get(k))
                bad += bool(wrong or apart)
                told = f"OTHER {', '.join(wrong)}" if wrong else f"the same log and {len(one) - 3} other files"
                print(f"{kind}: {times} {name} killed after {seen} of {UPDATES} updates, {refusals(folder)} starts")
                print(f"    beside others refused; tensors {apart:.1g} apart, {told}", end=" ")
                print(f"after {time.time() - began:.0f} s", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
