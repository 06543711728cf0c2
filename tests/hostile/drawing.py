"""Drawing under fire: python tests/hostile/drawing.py [WORKERS [LAUNCHERS]]

A tiny generator draws by two workers of torchrun. First so many workers are killed (SIGKILL; torchrun starts both
again), then so many launchers, every second one with its workers; those of the others go on beside the next ones. Both
must end in the bytes of a process that was left alone."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import Slow, pipeline  # noqa: E402

from facesyn.core.sharing import UNITS  # noqa: E402
from facesyn.methods.generation import generate  # noqa: E402
from facesyn.methods.plans import per_person, plan  # noqa: E402

CARD = dict(name="many", source="rendered", method="a test", licence="CC0-1.0", limits="none")
PEOPLE, IMAGES, BATCH, UNIT = 100, 20, 4, 40


def drawn(out, pause=0.0):
    torch.set_num_threads(1)
    y = np.random.default_rng(0).normal(size=(PEOPLE, 4)).astype(np.float32)
    rows = plan(per_person(y / np.linalg.norm(y, axis=1, keepdims=True), IMAGES))
    pipe = Slow(**pipeline().components)
    pipe.pause = pause
    pipe.set_progress_bar_config(disable=True)
    return generate(pipe, rows, out, CARD, batch=BATCH, steps=1, unit=UNIT)


def launched(out, pause, restarts=0):
    told = ["--standalone", "--nproc_per_node=2", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *told, __file__, "draw", str(out), str(pause)]
    with open(out.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def at_work(out):
    "Numbers of the processes that hold a unit and have drawn something of it"
    found = []
    for path in out.glob(f"{UNITS}*/*.lease"):
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) > 1 and alive(pid := json.loads(lines[0])["pid"]):
            found.append(pid)
    return found


def until(true, seconds=300):
    end = time.time() + seconds
    while not (found := true()):
        if time.time() > end:
            raise TimeoutError
        time.sleep(0.02)
    return found


def pictures(out):
    return len([*out.rglob("[0-9]*.png")])


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def kill_workers(out, times):
    launcher, seen = launched(out, 0.2, restarts=times + 1), []
    for k in range(times):
        now = pictures(out)  # 6 batches later, so that units are done, too
        until(lambda now=now: launcher.poll() is not None or at_work(out) and pictures(out) >= now + 6 * BATCH)
        assert launcher.poll() is None, f"it ended after {k} kills: make the set larger"
        pid = until(lambda: at_work(out))[-(k % 2)]
        os.kill(pid, signal.SIGKILL)
        seen.append(pictures(out))
        until(lambda pid=pid: not alive(pid))
    assert launcher.wait(timeout=600) == 0
    return seen


def kill_launchers(out, times):
    seen = []
    for k in range(times):
        launcher, before = launched(out, 0.2), pictures(out)
        until(lambda before=before, out=out: at_work(out) and pictures(out) >= before + 3 * BATCH)
        if k % 2:
            os.killpg(launcher.pid, signal.SIGKILL)
            for pid in at_work(out):  # torchrun gives its workers sessions of their own
                os.kill(pid, signal.SIGKILL)
        else:
            launcher.kill()
        launcher.wait()
        seen.append(pictures(out))
    assert launched(out, 0.0).wait(timeout=600) == 0
    return seen


def main(workers=20, launchers=10):
    with tempfile.TemporaryDirectory() as d:
        drawn(Path(d) / "alone")
        alone, bad = content(Path(d) / "alone"), 0
        for name, kill, times in (("workers", kill_workers, workers), ("launchers", kill_launchers, launchers)):
            began, out = time.time(), Path(d) / name
            seen = kill(out, int(times))
            until(lambda out=out: not [*out.glob(f"{UNITS}*")])  # workers that lost their launcher leave, too
            same = content(out) == alone
            bad += not same
            print(f"{name}: {times} killed when {seen} of {PEOPLE * IMAGES} pictures were there;", end=" ")
            print(f"{'the same bytes' if same else 'OTHER BYTES'} after {time.time() - began:.0f} s", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    if sys.argv[1:2] == ["draw"]:
        drawn(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        main(*sys.argv[1:])
