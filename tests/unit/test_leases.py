"""Drawing is shared by processes that come and go: by one, four or two of them, killed or not, it is the same bytes."""

import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import Slow, pipeline

from facesyn.core import leases
from facesyn.core.checks import refused
from facesyn.core.files import read_json
from facesyn.core.leases import claim, is_stale, this_process
from facesyn.core.sharing import UNITS, how_far, work_off
from facesyn.methods.generation import generate
from facesyn.methods.plans import Later, per_person, plan
from facesyn.methods.tars import generate_tars

pytestmark = pytest.mark.distributed
CARD = dict(name="twelve", source="rendered", method="a test", licence="CC0-1.0", limits="none")
FORK = multiprocessing.get_context("fork")


def rows(seed=0, people=12, images=4):
    y = np.random.default_rng(seed).normal(size=(people, 4)).astype(np.float32)
    return plan(per_person(y / np.linalg.norm(y, axis=1, keepdims=True), images), seed)


def drawn(out, pause=0.0, seed=0, **how):
    torch.set_num_threads(1)
    pipe = Slow(**pipeline().components)
    pipe.pause = pause
    pipe.set_progress_bar_config(disable=True)
    return generate(pipe, rows(seed), out, CARD, **dict(batch=4, steps=2, unit=8) | how)


def workers(number, out, pause=0.05):
    "Processes that draw"
    found = [FORK.Process(target=drawn, args=(out, pause)) for _ in range(number)]
    for worker in found:
        worker.start()
    return found


def pictures(out):
    return len([*Path(out).rglob("[0-9]*.png")])


def until(true, seconds=60):
    end = time.time() + seconds
    while not true():
        assert time.time() < end
        time.sleep(0.01)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "set"
    drawn(out)
    return content(out)


def ended():
    "A process that ended"
    worker = FORK.Process(target=os.getpid)
    worker.start()
    there = this_process() | dict(pid=worker.pid, born=leases._born(worker.pid))
    worker.join()
    return there


def written(folder, who, age=0.0):
    "A lease of somebody, refreshed `age` seconds ago"
    path = Path(folder) / "unit.0.lease"
    path.write_text(json.dumps(who) + "\n")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_one_of_many_takes_over(tmp_path):
    def want(folder, ready, queue):
        ready.wait()
        queue.put(str(claim(folder, "unit")))
        ready.wait()  # nobody ends before all have looked, or they would take over from those who ended

    dead = ended()
    for k in range(15):
        (folder := tmp_path / str(k)).mkdir()
        written(folder, dead)
        ready, queue = FORK.Barrier(6), FORK.Queue()
        many = [FORK.Process(target=want, args=(folder, ready, queue)) for _ in range(6)]
        for each in many:
            each.start()
        got = [queue.get(timeout=60) for _ in many]
        for each in many:
            each.join()
        assert got.count("None") == 5 and str(folder / "unit.1.lease") in got, got


@pytest.mark.parametrize(
    "change, age, stale",
    [
        (dict(), 0, False),
        (dict(), leases.STALE + 10, True),  # it is there, and does not refresh
        (dict(born="1"), 0, True),  # another process has its number
        (dict(machine="another", pid=2**22 + 1), 0, False),  # nobody can tell
        (dict(machine="another"), leases.STALE + 10, True),
    ],
)
def test_who_holds_a_lease(change, age, stale, tmp_path):
    assert is_stale(written(tmp_path, this_process() | change, age)) == stale
    assert bool(claim(tmp_path, "unit")) == stale


def test_a_torn_lease_is_believed_for_a_while(tmp_path):
    written(tmp_path, {}).write_text("")
    assert claim(tmp_path, "unit") is None
    os.utime(tmp_path / "unit.0.lease", (1, 1))
    assert claim(tmp_path, "unit")


def test_a_lease_is_refreshed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "REFRESH", 0.02)
    with leases.held(tmp_path, "unit") as lease:
        os.utime(lease, (1, 1))
        until(lambda: lease.stat().st_mtime > 1)


def test_who_was_held_up_does_no_harm(tmp_path):
    "A lease is taken over from a process that goes on: the unit is done, and nobody's lease stays"
    with leases.held(tmp_path, "unit") as first:
        os.utime(first, (1, 1))
        with leases.held(tmp_path, "unit") as second:
            assert second.name == "unit.1.lease"
        assert not first.exists()
    assert [p.name for p in tmp_path.iterdir() if p.name != "clock"] == ["unit.done"]


def test_a_unit_that_fails_is_free_again(tmp_path):
    def fails(unit, note):
        raise ValueError("no")

    refused(lambda: work_off(tmp_path, ["0-1"], fails), "no")
    work_off(tmp_path, ["0-1"], lambda unit, note: None)


def test_killed_in_a_unit(tmp_path, alone):
    (worker,) = workers(1, tmp_path / "set", pause=0.3)
    until(lambda: pictures(tmp_path / "set") > 4)
    os.kill(worker.pid, signal.SIGKILL)  # nobody has waited for it when the next one comes
    assert pictures(tmp_path / "set") < 48
    drawn(tmp_path / "set")
    worker.join()
    assert content(tmp_path / "set") == alone


def test_killed_while_others_work(tmp_path, alone):
    first, *others = workers(3, tmp_path / "set", pause=0.2)
    until(lambda: pictures(tmp_path / "set") > 8)
    first.kill()
    for worker in others:
        worker.join()
        assert worker.exitcode == 0
    assert content(tmp_path / "set") == alone


def test_one_then_four_then_two(tmp_path, alone):
    out, seen = tmp_path / "set", []
    for number, most in ((1, 8), (4, 24), (2, 48)):
        now = workers(number, out, pause=0.1)
        until(lambda most=most: pictures(out) >= most)
        seen.append(pictures(out))
        for worker in now:
            if most < 48:
                worker.kill()
            worker.join()
    assert seen[0] < 24 and seen[1] < 48 and content(out) == alone


def test_the_work_is_shared(tmp_path):
    out = tmp_path / "set"
    two = workers(2, out, pause=0.2)
    until(lambda: len([*out.glob(f"{UNITS}*/*.done")]) >= 3)
    (folder,) = out.glob(f"{UNITS}*")
    now = how_far(folder)
    assert now["count"] == 48 and 24 <= now["done"] <= 48 and len(now["workers"]) == 2
    assert all(w["units"] and w["per_second"] > 0 and w["heard"] < 60 for w in now["workers"].values())
    for worker in two:
        worker.join()


def test_what_goes_missing_is_made_again(tmp_path, alone):
    "A picture is lost after its unit was done, and its process ended before the rest was"
    (worker,) = workers(1, tmp_path / "set", pause=0.2)
    until(lambda: [*(tmp_path / "set").glob(f"{UNITS}*/*.done")])
    worker.kill()
    worker.join()
    (tmp_path / "set/000001/0003.png").unlink()
    drawn(tmp_path / "set")
    assert content(tmp_path / "set") == alone


@pytest.mark.parametrize("how, words", [(dict(batch=8), "batch: 4 -> 8"), (dict(seed=1), "seed: 0 -> 1")])
def test_another_worker_with_other_settings(how, words, tmp_path, alone):
    (worker,) = workers(1, tmp_path / "set", pause=0.1)
    until(lambda: pictures(tmp_path / "set") > 4)
    refused(lambda: drawn(tmp_path / "set", **how), str(tmp_path / "set"), words)
    worker.join()
    assert content(tmp_path / "set") == alone


def test_another_unit_is_the_same_set(tmp_path, alone):
    (worker,) = workers(1, tmp_path / "set", pause=0.1)
    until(lambda: pictures(tmp_path / "set") > 4)
    drawn(tmp_path / "set", unit=20)
    worker.join()
    drawn(tmp_path / "set")
    assert content(tmp_path / "set") == alone


def tars(out, pause=0.0):
    torch.set_num_threads(1)
    pipe = Slow(**pipeline().components)
    pipe.pause = pause
    pipe.set_progress_bar_config(disable=True)
    return generate_tars(pipe, rows(), out, CARD, batch=4, steps=2, unit=8)


def test_tar_files_by_two_of_which_one_is_killed(tmp_path):
    first, other = [FORK.Process(target=tars, args=(tmp_path / "set", 0.2)) for _ in range(2)]
    first.start(), other.start()
    until(lambda: [*(tmp_path / "set").glob("*.tar")])
    first.kill()
    first.join(), other.join()
    assert other.exitcode == 0
    tars(tmp_path / "alone")
    assert content(tmp_path / "set") == content(tmp_path / "alone")


@pytest.mark.parametrize(
    "change, words", [("lost", "lacks 000000012.cls"), ("twice", "000000012.cls twice"), ("cut", "damaged")]
)
def test_every_row_is_in_the_tar_files_once(change, words, tmp_path):
    tars(tmp_path / "set")
    path = tmp_path / "set/train-000001.tar"
    with tarfile.open(path) as tar:
        parts = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
    at = [member.name for member, _ in parts].index("000000012.png")
    parts = parts[:at] + parts[at : at + 3] * dict(lost=0, twice=2, cut=1)[change] + parts[at + 3 :]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in parts:
            tar.addfile(member, io.BytesIO(data))
    if change == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    refused(lambda: tars(tmp_path / "set"), str(path), words)
    path.unlink()
    tars(tmp_path / "set")


def test_a_full_disk_is_named_and_work_goes_on_later(tmp_path, alone):
    (tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", tmp_path / "disk"]).returncode:
        pytest.skip("needs the right to mount")
    try:
        refused(lambda: drawn(tmp_path / "disk/set"), "No space left", str(tmp_path / "disk/set"), kind=OSError)
        assert not [*(tmp_path / "disk").rglob("*.lease")]
        shutil.copytree(tmp_path / "disk/set", tmp_path / "set")
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)
    assert 0 < pictures(tmp_path / "set") < 48
    drawn(tmp_path / "set")
    assert content(tmp_path / "set") == alone


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "set").write_text("a file")
    refused(lambda: drawn(tmp_path / "set"), str(tmp_path / "set"), kind=OSError)


def test_a_long_plan_costs_what_is_drawn(tmp_path):
    "Of a million planned rows only those are made whose pictures are drawn"
    asked = []

    def make(i, j):
        asked.append(len(i))
        return np.eye(4, dtype=np.float32)[j % 4]

    class Stopped(Slow):
        left = 50  # batches

        def __call__(self, *args, **kw):
            Stopped.left -= 1
            if not Stopped.left:
                raise KeyboardInterrupt
            return super().__call__(*args, **kw)

    Stopped.__name__ = "ID3Pipeline"
    pipe = Stopped(**pipeline().components)
    pipe.set_progress_bar_config(disable=True)
    long = plan(Later(make, (20_000, 50, 4), dict(what="axes")))
    with pytest.raises(KeyboardInterrupt):
        generate(pipe, long, tmp_path / "set", CARD, batch=4, steps=1)
    assert pictures(tmp_path / "set") == 196 and sum(asked) <= 2048
    assert read_json(tmp_path / "set/settings.json")["images"] == 10**6
