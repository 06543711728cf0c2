"""What is written survives others: two writers, a power cut, a foreign folder, pictures that somebody changed."""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import pipeline

from facesyn.core.checks import refused
from facesyn.core.files import locked, read_json
from facesyn.data.conversion import WRITERS, convert
from facesyn.data.dataset import begin_dataset
from facesyn.data.faces import parametric_faces
from facesyn.data.opening import open_faces
from facesyn.methods.generation import generate
from facesyn.methods.id3_sampling import ID3Pipeline
from facesyn.methods.plans import plan
from facesyn.nets.photographs import prepare_photos

CARD = dict(name="four", source="rendered", method="a test", licence="CC0-1.0", limits="none")
FACES = parametric_faces(4, 3, 32, first=10)
FORMATS = ("rec", "flat", *WRITERS)


def people(seed=0):
    y = np.random.default_rng(seed).normal(size=(3, 4, 4)).astype(np.float32)
    return plan(y / np.linalg.norm(y, axis=2, keepdims=True), seed)


class Slow(ID3Pipeline):
    "The same pipeline, which takes its time"

    def __call__(self, *args, **kw):
        time.sleep(0.1)
        return super().__call__(*args, **kw)


Slow.__name__ = "ID3Pipeline"


def made(out, seed=0, slowly=False, **options):
    pipe = Slow(**pipeline().components) if slowly else pipeline()
    pipe.set_progress_bar_config(disable=True)
    return generate(pipe, people(seed), out, CARD, batch=4, steps=2, **options)


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def outcome(call, queue):
    torch.set_num_threads(1)  # torch's other threads did not come along into this process: waiting for them has no end
    try:
        call(), queue.put("made")
    except ValueError as e:
        queue.put(str(e))


def at_once(*calls):
    "What each of the calls came to, all begun together in processes of their own"
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=outcome, args=(call, queue)) for call in calls]
    for worker in workers:
        worker.start()
    said = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    return said


@pytest.mark.parametrize("format", FORMATS)
def test_two_conversions_into_one_folder(format, tmp_path):
    said = at_once(*[lambda: convert(FACES, tmp_path / "set", format, card=CARD)] * 2)
    assert "made" in said and all(s == "made" or "another process is writing there" in s for s in said), said
    convert(FACES, tmp_path / "alone" / "set", format, card=CARD)
    ours, alone = (open_faces(str(tmp_path / p), 32) for p in ("set", "alone/set"))
    assert np.array_equal(ours.read(np.arange(12)), alone.read(np.arange(12)))
    assert not [p for p in tmp_path.rglob(".facesyn-*")]


def test_two_generations_of_different_people(tmp_path):
    said = at_once(lambda: made(tmp_path / "set", 0), lambda: made(tmp_path / "set", 1))
    assert sorted(s == "made" for s in said) == [False, True], said
    assert "other settings" in "".join(said)
    alone = [made(tmp_path / str(seed), seed)["sha256"] for seed in (0, 1)]
    assert read_json(tmp_path / "set" / "card.json")["sha256"] in alone


def test_two_processes_share_a_generation(tmp_path):
    said = at_once(*[lambda: made(tmp_path / "set", unit=4, slowly=True)] * 2)
    assert said == ["made", "made"]
    assert content(tmp_path / "set") == content(made(tmp_path / "alone") and tmp_path / "alone")


def test_nothing_is_replaced_while_it_is_written(tmp_path):
    made(tmp_path / "set")
    with locked(tmp_path / "set", shared=True):
        refused(lambda: made(tmp_path / "set", 1, replace=True), str(tmp_path / "set"), "another process is writing")
    made(tmp_path / "set", 1, replace=True)
    assert content(tmp_path / "set") == content(made(tmp_path / "alone", 1) and tmp_path / "alone")


def test_replace_takes_away_only_what_generate_wrote(tmp_path):
    made(tmp_path / "set")
    for name in ("notes.txt", "000000/mine.png", "photos/0001.png"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_text("mine")
    made(tmp_path / "set", 1, replace=True)
    assert all(
        (tmp_path / "set" / n).read_text() == "mine" for n in ("notes.txt", "000000/mine.png", "photos/0001.png")
    )


def test_replace_does_not_touch_prepared_photographs(tmp_path):
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    convert(parametric_faces(1, 2, 112), tmp_path / "photos" / "ann", "folder", card=CARD)
    for p in [p for p in (tmp_path / "photos" / "ann").rglob("*") if p.suffix != ".png"]:
        p.is_file() and p.unlink()
    for k, p in enumerate(sorted((tmp_path / "photos" / "ann").rglob("*.png"))):
        shutil.move(p, tmp_path / "photos" / "ann" / f"{k}.png")
    for p in [p for p in (tmp_path / "photos" / "ann").iterdir() if p.is_dir()]:
        shutil.rmtree(p)
    marks = [[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]]
    prepare_photos(tmp_path / "photos", tmp_path / "set", lambda file, image: [dict(landmarks=np.array(marks))], CARD)
    before = content(tmp_path / "set")
    refused(lambda: made(tmp_path / "set", replace=True), str(tmp_path / "set"), "not written by `generate`")
    assert content(tmp_path / "set") == before


@pytest.mark.parametrize("left", [b"", b"\0" * 200, None], ids=["empty", "zeros", "cut"])
def test_after_a_power_cut(left, tmp_path):
    "Names reached the disk, bytes did not: the card is not there, some pictures are empty"
    whole = made(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("README.md", "card.json", "manifest.jsonl", "metadata.jsonl"):
        (tmp_path / "cut" / name).unlink()
    for path in sorted((tmp_path / "cut").rglob("*.png"))[::3]:
        path.write_bytes(path.read_bytes()[:100] if left is None else left)
    assert made(tmp_path / "cut") == whole and content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_damaged_picture_of_a_finished_set_is_made_again(tmp_path):
    whole = made(tmp_path / "set")
    picture = sorted((tmp_path / "set").rglob("*.png"))[4]
    before = picture.read_bytes()
    picture.write_bytes(before[:-30])
    assert made(tmp_path / "set") == whole and picture.read_bytes() == before


def test_an_exchanged_picture_of_a_finished_set_is_told(tmp_path):
    made(tmp_path / "set")
    one, other = sorted((tmp_path / "set").rglob("*.png"))[4:6]
    one.write_bytes(other.read_bytes())
    before = content(tmp_path / "set")
    refused(lambda: made(tmp_path / "set"), str(tmp_path / "set"), "not those of its card", "card.json")
    assert content(tmp_path / "set") == before


def test_settings_are_written_by_one(tmp_path):
    def begin(k):
        time.sleep(0.05)
        begin_dataset(tmp_path, dict(k=k))

    said = at_once(*[lambda k=k: begin(k) for k in range(8)])
    assert said.count("made") == 1 and all("other settings" in s for s in said if s != "made"), said


@pytest.mark.parametrize("kind", [*FORMATS, "generate"])
def test_bytes_are_on_the_disk_before_a_card_says_so(kind, tmp_path, monkeypatch):
    "And a file that is renamed is on the disk before it has its name; power.py tries it on a disk, for who may mount"
    synced, fsync, replace, early = {}, os.fsync, os.replace, []

    def state(path):
        there = os.stat(path)
        return there.st_ino, (there.st_size, there.st_mtime_ns)

    def noted(handle):
        fsync(handle)
        there = os.fstat(handle)
        synced[there.st_ino] = (there.st_size, there.st_mtime_ns)

    def renamed(source, target):
        number, now = state(source)
        if synced.get(number) != now and not (kind == "generate" and str(target).endswith(".png")):
            early.append(str(target))
        if Path(target).name == "card.json":
            files = [p for p in Path(target).parent.rglob("*") if p.is_file() and "/.facesyn" not in str(p)]
            early.extend(str(p) for p in files if synced.get(state(p)[0]) != state(p)[1])
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    made(tmp_path / "set") if kind == "generate" else convert(FACES, tmp_path / "set", kind, card=CARD)
    assert (tmp_path / "set/card.json").exists() and early == []


def race(kind, folder):
    "Two writers at once into one folder: what they said, and whether what is there is one of the valid results"
    if kind == "generate":
        said = at_once(lambda: made(folder, 0), lambda: made(folder, 1))
        alone = [made(folder.with_name(f"alone{seed}"), seed)["sha256"] for seed in (0, 1)]
        return said, read_json(folder / "card.json")["sha256"] in alone
    if kind == "same":
        said = at_once(*[lambda: made(folder, 0)] * 2)
        return said, read_json(folder / "card.json") == made(folder.with_name("alone"), 0)
    said = at_once(*[lambda: convert(FACES, folder, kind, card=CARD)] * 2)
    convert(FACES, folder.with_name("alone"), kind, card=CARD)
    ours, alone = (open_faces(str(p), 32).read(np.arange(12)) for p in (folder, folder.with_name("alone")))
    return said, np.array_equal(ours, alone)


def main(rounds=20):
    "python tests/hostile/test_writers.py [ROUNDS]: every format and `generate`, as often as asked"
    for kind in (*FORMATS, "generate", "same"):
        good = refusals = 0
        for _ in range(int(rounds)):
            with tempfile.TemporaryDirectory() as d:
                said, valid = race(kind, Path(d) / "set")
                clear = [s for s in said if s != "made" and ("another process" in s or "other settings" in s)]
                good += valid and "made" in said and said.count("made") + len(clear) == 2
                refusals += len(clear)
        print(f"{kind}: {good} of {rounds} ended in a valid set; {refusals} clear refusals", flush=True)


@pytest.mark.parametrize("kind", ["generate", "same"])
def test_two_generations_at_once(kind, tmp_path):
    said, valid = race(kind, tmp_path / "set")
    assert valid and "made" in said, said


if __name__ == "__main__":
    main(*sys.argv[1:])
