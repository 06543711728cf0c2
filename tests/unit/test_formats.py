"""Formats: .rec files are mxnet's to the byte and read as the trainers read them, damage is named, killed writers
resume, and the other formats open in the libraries that define them."""

import hashlib
import json
import multiprocessing
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import venv
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from facesyn.core.files import write_json
from facesyn.core.images import encode_image, write_image
from facesyn.data.conversion import FORMATS, convert
from facesyn.data.dataset import finish_dataset, rank_within
from facesyn.data.faces import Faces, parametric_faces, read_manifest
from facesyn.data.image_sets import Encoded, of_image
from facesyn.data.inspection import inspect_dataset
from facesyn.data.opening import open_encoded, open_faces
from facesyn.data.rec_sets import EXACT, joined, open_rec, payloads, plan_records, write_rec
from facesyn.data.recordio import MAGIC, Records, frame, pack, unpack, write_records
from facesyn.data.trainers import RecDataset

HERE = Path(__file__).parents[1] / "data"
sys.path.insert(0, str(HERE))
from recordio_by_mxnet import dataset, fuzzed  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from readers import MXReader  # noqa: E402

CARD = dict(name="noise", source="noise", method="noise", licence="CC0-1.0", limits="noise")


def sha(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def jpeg(k, size=112):
    return encode_image(np.random.default_rng(k).integers(0, 256, (size, size, 3), np.uint8), ".jpg")


def noise(images=30, people=4, size=112, pause=0.0, read=jpeg):
    "Noise pictures of a few people in no order"
    labels = np.random.default_rng(0).permutation(np.arange(images) % people)

    def about(k):
        return dict(seed=int(k), attributes=[0.5 * k, None, 3.0, 40.0], **(dict(prompt=f"“{k}”\n") if k % 2 else {}))

    return Encoded(
        labels, [f"{i:06d}" for i in range(people)], lambda k: (time.sleep(pause), read(k, size))[1], about=about
    )


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


# RecordIO, to the byte


def slow_frame(payload):
    "The rule of the format, a word at a time"
    words, parts = [payload[i : i + 4] for i in range(0, len(payload), 4)], [[]]
    for w in words:
        if w == bytes.fromhex("0a23d7ce"):
            parts.append([])
        else:
            parts[-1].append(w)
    out = b""
    for i, part in enumerate(parts):
        data = b"".join(part)
        flag = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
        out += bytes.fromhex("0a23d7ce") + struct.pack("<I", flag * 2**29 + len(data)) + data
        while len(out) % 4:
            out += b"\0"
    return out


def test_frames_follow_the_rule_and_come_back(tmp_path):
    cases = [fuzzed(seed) for seed in range(1000)]
    assert all(frame(p) == slow_frame(p) for p in cases) and sum(len(slow_frame(p)) > len(p) + 11 for p in cases) > 300
    write_records(tmp_path / "x.rec", cases.__getitem__, len(cases))
    records = Records(tmp_path / "x.rec")
    assert [records[k] for k in range(len(cases))] == cases
    assert all(cases[k].startswith(records.start(k, 28)[:28]) for k in range(len(cases)))


def ours(folder):
    "sha256 of .rec and .idx of the three cases of recordio_by_mxnet.py"
    write_records(folder / "payloads.rec", fuzzed, 310)
    images, labels = dataset()
    for layout in ("identity", "flat"):
        order, total = plan_records(labels, layout)
        write_records(folder / f"{layout}.rec", payloads(labels, images.__getitem__, order, layout), total)
    return {
        case: [sha(folder / f"{case}{ending}") for ending in (".rec", ".idx")]
        for case in ("payloads", "identity", "flat")
    }


def test_bytes_are_mxnets(tmp_path):
    assert ours(tmp_path) == {
        k: v for k, v in json.loads((HERE / "recordio_mxnet.json").read_text()).items() if k != "writer"
    }


@pytest.mark.slow
def test_bytes_are_those_of_mxnet_run_now(tmp_path):
    "mxnet needs a NumPy of 2022, so it gets an environment of its own, from PyPI"
    python = tmp_path / "mxnet" / "bin" / "python"
    venv.create(tmp_path / "mxnet", with_pip=True)
    alone = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run([python, "-m", "pip", "install", "-q", "mxnet==1.9.1", "numpy==1.23.5"], check=True, env=alone)
    said = subprocess.run(
        [python, HERE / "recordio_by_mxnet.py"], capture_output=True, text=True, check=True, env=alone
    )
    assert ours(tmp_path) == {k: v for k, v in json.loads(said.stdout).items() if k != "writer"}


@pytest.mark.parametrize("layout, shuffle", [("identity", None), ("flat", None), ("flat", 3)])
def test_trainers_read_it(tmp_path, layout, shuffle):
    encoded = noise()
    write_rec(encoded, tmp_path, layout, shuffle)
    order, _ = plan_records(encoded.labels, layout, shuffle)
    theirs = MXReader(tmp_path)
    assert len(theirs) == 30
    for k, i in enumerate(order):
        image, label = theirs[k]
        assert label == encoded.labels[i] and np.array_equal(
            image, np.asarray(Image.open(BytesIO(encoded.read(int(i)))))
        )
    assert [label for _, label in map(theirs.__getitem__, range(30))] == open_rec(
        tmp_path / "train.rec"
    ).labels.tolist()
    if layout == "flat":
        assert all(unpack(Records(tmp_path / "train.rec")[k])[1] for k in range(30)), (
            "NVIDIA DALI would decode a record without an image"
        )
    listed = [line.split("\t") for line in (tmp_path / "train.lst").read_text().splitlines()]
    assert [(int(key), float(label)) for key, label, _ in listed] == [
        (k + (layout == "identity"), encoded.labels[i]) for k, i in enumerate(order)
    ]


def test_two_floats_and_a_header_of_old_are_read(tmp_path):
    "An image record of MS1M as InsightFace ships it: flag 2, label and `aligned`"
    records = [
        pack(b"", [4, 6]),
        *(pack(jpeg(k), [label, 1]) for k, label in enumerate((0, 0, 1))),
        pack(b"", [1, 3]),
        pack(b"", [3, 4]),
    ]
    write_records(tmp_path / "train.rec", records.__getitem__, 6)
    assert open_rec(tmp_path / "train.rec").labels.tolist() == [0, 0, 1] and open_rec(tmp_path / "train.rec").read(
        2
    ) == jpeg(2)
    with pytest.raises(RuntimeError, match="2 elements"):
        MXReader(tmp_path)[0]
    assert any("3 images have 2 labels" in p for p in inspect_dataset(tmp_path)["problems"])
    assert inspect_dataset(convert_to(tmp_path / "train.rec", tmp_path / "new"))["problems"] == []


def convert_to(source, folder, format="rec", **kw):
    convert(source, folder, format, card=CARD, **kw)
    return folder


def test_float32_limit():
    largest = np.zeros(EXACT - 2, np.int8)
    assert plan_records(largest)[1] == EXACT and int(np.float32(EXACT)) == EXACT
    with pytest.raises(ValueError, match=r"16777217 .*16777216.*flat"):
        plan_records(np.zeros(EXACT - 1, np.int8))
    assert plan_records(np.zeros(EXACT + 5, np.int8), "flat")[1] == EXACT + 5


def test_workers_read_what_one_reads(tmp_path):
    data = RecDataset(write_rec(noise(60), tmp_path))
    data[0]  # the file is open before the workers are
    alone = [*DataLoader(data, batch_size=7)]
    for workers, context in ((2, "fork"), (2, "spawn")):
        shared = [*DataLoader(data, batch_size=7, num_workers=workers, multiprocessing_context=context)]
        assert len(shared) == len(alone) == 9 and all(
            torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(alone, shared)
        )


def test_people_have_their_names(tmp_path):
    named = Encoded([0, 0, 1], ["Ada", "Max"], lambda k: jpeg(k, 16))
    path = write_rec(named, tmp_path)
    assert RecDataset(path).names == open_rec(path).names == ["Ada", "Max"]


def test_merged_shards_are_one_file(tmp_path):
    whole = noise()
    shards = []
    for p in range(3):
        labels = whole.labels[p::3]
        kept, renumbered = np.unique(labels, return_inverse=True)
        write_rec(
            Encoded(renumbered, [f"{i:06d}" for i in kept], lambda k, p=p: whole.read(p + 3 * int(k))),
            tmp_path / str(p),
        )
        shards.append(open_rec(tmp_path / str(p) / "train.rec"))
    merged = write_rec(joined(shards), tmp_path / "merged", "flat")
    order = np.concatenate(
        [p + 3 * np.argsort(whole.labels[p::3], kind="stable") for p in range(3)]
    )  # each shard is grouped by person
    one = write_rec(
        Encoded(whole.labels[order], whole.names, lambda k: whole.read(int(order[k]))), tmp_path / "one", "flat"
    )
    assert merged.read_bytes() == one.read_bytes() and open_rec(merged).labels.tolist() == whole.labels[order].tolist()


# Damage


def mutated(rec, idx, seed):
    "A .rec and its .idx with one kind of damage"
    rng, rec, idx = random.Random(seed), bytearray(rec), bytearray(idx)
    heads = [i for i in range(0, len(rec), 4) if rec[i : i + 4] == MAGIC]
    kind = seed % 10
    if kind == 0:
        del rec[rng.randrange(len(rec)) :]
    elif kind == 1:
        for _ in range(rng.choice([1, 10, 200])):
            rec[rng.randrange(len(rec))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        at = rng.choice(heads)
        rec[at : at + 4] = rng.randbytes(4)
    elif kind == 3:
        at = rng.choice(heads)
        rec[at + 4 : at + 8] = struct.pack(
            "<I", rng.choice([2**29 - 1, 2**31, 2**32 - 1, len(rec), 0, rng.randrange(2**32)])
        )
    elif kind == 4:
        at = rng.choice(heads)
        rec[at + 8 : at + 32] = rng.randbytes(24)
    elif kind == 5:
        del idx[rng.randrange(len(idx)) :]
    elif kind == 6:
        idx[rng.randrange(len(idx))] = rng.randrange(256)
    elif kind == 7:
        lines = idx.split(b"\n")
        lines[rng.randrange(len(lines) - 1)] = rng.choice(
            [b"5\t999999999999999999999", b"-1\t-1", b"3\t17", b"0\t0", b"\x00", b"7\t%d" % len(rec)]
        )
        idx = b"\n".join(lines)
    elif kind == 8:
        at = rng.randrange(len(rec))
        rec[at : at + rng.choice([1, 4, 5000])] = b""
    else:
        at = rng.choice(heads)
        rec[at + 4 : at + 12] = struct.pack("<II", rng.choice([1, 2, 3]) << 29 | rng.choice([0, 8]), 0xCED7230A)
    return bytes(rec), bytes(idx)


def mutated_bin(data, seed):
    "A .bin with one kind of damage"
    rng, data = random.Random(seed), bytearray(data)
    at = rng.randrange(len(data))
    if seed % 5 == 0:
        del data[at:]
    elif seed % 5 == 1:
        for at in rng.choices(range(len(data)), k=rng.choice([1, 10, 200])):
            data[at] ^= 1 << rng.randrange(8)
    elif seed % 5 == 2:
        at %= 200
        data[at : at + 8] = b"\xff" * rng.randrange(1, 9)  # lengths out of all proportion
    elif seed % 5 == 3:
        data[at:at] = rng.randbytes(rng.randrange(1, 50))
    else:
        data[at : at + rng.choice([1, 4, 5000])] = b""
    return bytes(data)


def examine(folder):
    "Each damaged file by the inspector and by the reader; prints what came of it, and the memory it took"
    outcomes, pairs = [], []
    for seed in range(200):
        started = time.time()
        report = inspect_dataset(Path(folder) / f"{seed}.bin")
        assert {"format", "images", "pairs", "genuine", "sizes", "corrupt", "problems"} <= report.keys()
        pairs.append(
            dict(
                problems=report["problems"],
                images=report["images"],
                corrupt=len(report["corrupt"]),
                seconds=time.time() - started,
            )
        )
    for seed in range(200):
        root = Path(folder) / str(seed)
        started = time.time()
        report = inspect_dataset(root)
        assert {"format", "images", "identities", "sizes", "corrupt", "problems"} <= report.keys()
        read, said = 0, ""
        try:
            encoded = open_encoded(root / "train.rec")
            for k in range(len(encoded)):
                read += bool(encoded.read(k))
        except ValueError as e:
            said = str(e)
        outcomes.append(
            dict(
                problems=report["problems"],
                corrupt=len(report["corrupt"]),
                images=report["images"],
                read=read,
                said=said,
                seconds=time.time() - started,
            )
        )
    print(
        json.dumps(
            dict(
                outcomes=outcomes,
                pairs=pairs,
                kilobytes=int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]),
            )
        )
    )


def test_damaged_files_end_in_an_error_or_a_report(tmp_path):
    write_rec(
        noise(12, read=lambda k, size: jpeg(k)[:400] + MAGIC + jpeg(k)[400:] if k == 3 else jpeg(k)),
        tmp_path / "good",
        "identity",
    )
    good = [(tmp_path / "good" / name).read_bytes() for name in ("train.rec", "train.idx")]
    for seed in range(200):
        (tmp_path / str(seed)).mkdir()
        for name, data in zip(("train.rec", "train.idx"), mutated(*good, seed)):
            (tmp_path / str(seed) / name).write_bytes(data)
        (tmp_path / f"{seed}.bin").write_bytes(
            mutated_bin(pickle.dumps(([jpeg(k) for k in range(8)], [True, False] * 2), seed % 6), seed)
        )
    child = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=50)
    assert child.returncode == 0, child.stderr[-2000:]
    said = json.loads(child.stdout)
    assert said["kilobytes"] < 2**20 and max(o["seconds"] for o in said["outcomes"] + said["pairs"]) < 5, said[
        "kilobytes"
    ]  # of this process alone: getrusage counts its parent's
    assert len(said["outcomes"]) == 200 and all(o["problems"] or o["images"] == 12 for o in said["outcomes"])
    assert all("train." in o["said"] for o in said["outcomes"] if o["said"]), [o["said"] for o in said["outcomes"]]
    assert (
        len(said["pairs"]) == 200
        and all(o["problems"] or o["images"] == 8 for o in said["pairs"])
        and sum(bool(o["problems"]) for o in said["pairs"]) > 100
        and any(o["corrupt"] for o in said["pairs"])
    )
    print(
        f"{said['kilobytes'] / 1024:.0f} MiB,"
        f" slowest {max(o['seconds'] for o in said['outcomes'] + said['pairs']):.2f} s"
    )
    silent = [
        s
        for s, o in enumerate(said["outcomes"])
        if not o["problems"]
        and any((tmp_path / str(s) / n).read_bytes() != g for n, g in zip(("train.rec", "train.idx"), good))
    ]
    assert sum(bool(o["said"]) for o in said["outcomes"]) > 80 and len(silent) < 100


# Killed writers


def write(format, folder, pause=0.0):
    convert(noise(80, size=64, pause=pause), folder, format, shard=20, card=CARD)


@pytest.mark.parametrize("format", FORMATS)
def test_killed_writing_resumes_to_the_same_bytes(format, tmp_path):
    killed, whole = tmp_path / "a" / "set", tmp_path / "b" / "set"
    child = multiprocessing.get_context("fork").Process(target=write, args=(format, killed, 0.02))
    child.start()
    for _ in range(600):
        if any(
            p.stat().st_size > 0 and p.suffix in (".jpg", ".tar", ".parquet", ".part", ".lmdb")
            for p in killed.rglob("*")
            if p.is_file()
        ):
            break
        time.sleep(0.05)
    time.sleep(0.2)
    child.kill()
    child.join()
    assert child.exitcode == -9 and not (killed / "card.json").exists(), "the child ended or never wrote"
    write(format, killed)
    write(format, whole)
    ours = {
        name: (
            data.replace(str(killed).encode(), str(whole).encode()).replace(
                str(killed.parent).encode(), str(whole.parent).encode()
            )
        )
        for name, data in content(killed).items()
    }
    assert ours == content(whole) and "card.json" in ours


def test_a_torn_tail_is_written_again(tmp_path):
    "Parts that end anywhere, as a machine that lost power leaves them, zeros included"
    encoded = noise(10, size=32)
    whole = write_rec(encoded, tmp_path / "whole").read_bytes()
    for k, at in enumerate((0, 3, 8, 100, len(whole) // 2, len(whole) - 1, len(whole))):
        folder = tmp_path / str(k)
        folder.mkdir()
        (folder / "train.rec.part").write_bytes(whole[:at] + bytes(50 * (k % 2)))
        assert write_rec(encoded, folder).read_bytes() == whole


# The libraries that define the formats


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("formats")
    for format in FORMATS:
        convert(noise(size=64), root / format, format, shard=12, card=CARD)
    return root


def test_every_format_holds_the_same(written):
    wanted = noise(size=64)
    grouped = np.argsort(wanted.labels, kind="stable")
    for format in FORMATS:
        encoded, order = open_encoded(written / format), grouped if format in ("rec", "folder") else np.arange(30)
        assert np.array_equal(encoded.labels, wanted.labels[order]) and [encoded.read(k) for k in range(30)] == [
            wanted.read(int(k)) for k in order
        ]
        numbers = rank_within(wanted.labels)
        assert [encoded.about(k) for k in range(30)] == [dict(wanted.about(int(k)), image=numbers[k]) for k in order]
        faces = open_faces(str(written / format), 32)
        assert faces.read(np.arange(3)).shape == (3, 32, 32, 3) and np.array_equal(
            faces.attributes,
            np.stack([0.5 * order, np.full(30, np.nan), np.full(30, 3), np.full(30, 40)], 1).astype(np.float32),
            equal_nan=True,
        )


def a_dataset(root):
    """As a generator leaves one: a seed, attributes, a row of embeddings.npy and a prompt for some; a picture of its
    own, of which nothing is known"""
    rows = []
    for k, (i, j) in enumerate((i, j) for i in range(3) for j in range(4)):
        write_image(np.random.default_rng(k).integers(0, 256, (32, 32, 3), np.uint8), root / f"{i:06d}/{j:04d}.png")
        known = (
            dict(seed=None, attributes=None, embedding=None, copy=True)
            if k == 7
            else dict(seed=5, attributes=[k, -1.25, None, 33] if k % 2 else None, embedding=k, similarity=[0.5])
        )
        rows.append(
            dict(
                file=f"{i:06d}/{j:04d}.png",
                identity=i,
                image=j,
                **known,
                **(dict(prompt="a face, \u201csmiling\u201d") if k == 3 else {}),
            )
        )
    write_json(dict(seed=5), root / "settings.json")
    np.save(root / "embeddings.npy", np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32))
    return finish_dataset(root, rows, CARD), rows


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_manifest_says_goes_along_and_back(format, tmp_path):
    _, rows = a_dataset(tmp_path / "made")
    there = convert(
        tmp_path / "made",
        tmp_path / "there",
        format,
        **(dict(shuffle=1) if format in ("flat", "webdataset", "parquet") else {}),
    )
    back = convert(tmp_path / "there", tmp_path / "back", "folder")
    assert (
        there["images"] == back["images"] == 12
        and (tmp_path / "back" / "embeddings.npy").read_bytes() == (tmp_path / "made" / "embeddings.npy").read_bytes()
    )
    found = {(tmp_path / "back" / row["file"]).read_bytes(): row for row in read_manifest(tmp_path / "back")}
    for row in rows:
        again = found[(tmp_path / "made" / row["file"]).read_bytes()]
        assert (
            again["identity"] == row["identity"]
            and of_image(again) == of_image(row)  # its number among them
            and again["file"] == f"imgs/{row['file']}"
        )
    if format != "folder":
        assert (
            convert(open_encoded(tmp_path / "there"), tmp_path / "plain", "folder", size=16)["images"] == 12
            and len(read_manifest(tmp_path / "plain")) == 12
        )


def test_an_array_file_is_inspected_and_converted(tmp_path):
    data, path = [jpeg(k) for k in range(6)], tmp_path / "mine.npz"
    offsets, jpegs = np.cumsum([0, *map(len, data)]), np.frombuffer(b"".join(data), np.uint8)
    np.savez(path, jpeg=jpegs, offsets=offsets, label=np.arange(6) // 3, person=["ann", "bob"], age=np.full(6, 40.0))
    found = inspect_dataset(path)
    assert (found["format"], found["images"], found["identities"], found["problems"]) == ("npz", 6, 2, [])
    assert convert(path, tmp_path / "rec", "rec", card=CARD)["images"] == 6
    back = open_encoded(tmp_path / "rec")
    assert [back.read(k) for k in range(6)] == data and back.about(0)["attributes"][3] == 40.0


def test_a_set_without_a_manifest_gets_none(tmp_path):
    encoded = noise(12)
    for format in FORMATS:
        convert(Encoded(encoded.labels, encoded.names, encoded.read), tmp_path / format, format, card=CARD)
        assert open_encoded(tmp_path / format).about is None and not (tmp_path / format / "manifest.jsonl").exists()
    unknown = Faces(
        [0, 0, 1], ["ann", "bob"], np.full((3, 4), np.nan), 8, lambda k: np.zeros((len(k), 8, 8, 3), np.uint8)
    )
    convert(unknown, tmp_path / "faces", "rec", card=CARD)
    assert open_encoded(tmp_path / "faces").about is None
    unknown.attributes[1, 3] = 40
    convert(unknown, tmp_path / "aged", "rec", card=CARD)
    assert [open_encoded(tmp_path / "aged").about(k) for k in range(3)] == [
        dict(image=0),
        dict(image=1, attributes=[None, None, None, 40]),
        dict(image=0),
    ]


def test_folders_whose_order_is_not_that_of_their_numbers_are_a_problem(tmp_path):
    for label in range(12):
        (tmp_path / "bad" / str(label)).mkdir(parents=True)
        (tmp_path / "bad" / str(label) / "0.jpg").write_bytes(jpeg(label))
    assert any("10 comes before 2" in p for p in inspect_dataset(tmp_path / "bad")["problems"])


@pytest.mark.parametrize("format", FORMATS)
def test_conversion_streams(format, tmp_path):
    "80 MB of images, and never more than a row group of parquet in memory"
    data = encode_image(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), ".png")
    source = Encoded(np.arange(400) % 4, [f"{i:06d}" for i in range(4)], lambda k: data[:-1] + data[-1:])
    tracemalloc.start()
    convert(source, tmp_path, format, card=CARD)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) * 400 > 75e6 and peak < 30e6, (len(data), peak)
    assert open_encoded(tmp_path).read(399) == data


@pytest.fixture(scope="module")
def faces():
    "Eight drawn people with three pictures each, as JPEG of 112 pixels"
    drawn = parametric_faces(8, 3, 32, first=40)
    return drawn.labels, [np.asarray(Image.fromarray(x).resize((112, 112))) for x in drawn.read(np.arange(24))]


def foreign(kind, path, labels, images):
    "A .rec in the flat layout, a folder of numbered folders or a .bin, by somebody else"
    data = [x if isinstance(x, bytes) else encode_image(x, ".jpg") for x in images]
    if kind == "rec":
        write_records(path / "train.rec", lambda k: pack(data[k], labels[k]), len(data))
    if kind == "folder":
        for k, (i, d) in enumerate(zip(labels, data)):
            (path / f"{i:06d}").mkdir(parents=True, exist_ok=True)
            (path / f"{i:06d}" / f"{k:04d}.jpg").write_bytes(d)
    if kind != "bin":
        return path
    path.mkdir(exist_ok=True)
    (path / "pairs.bin").write_bytes(pickle.dumps((data, [k % 2 == 0 for k in range(len(data) // 2)]), 2))
    return path / "pairs.bin"


@pytest.mark.parametrize("kind", ["rec", "folder", "bin"])
def test_inspector_on_other_peoples_files(kind, faces, tmp_path):
    """What is asked of it, one fault at a time: counts, gaps, size, corrupt JPEGs, counts off by the people, swapped
    colours"""
    labels, images = faces

    def report(name, labels=labels, images=images, **kw):
        return inspect_dataset(foreign(kind, tmp_path / name, labels, images), **kw)

    good = report("good")
    assert (
        good["problems"] == []
        and good["images"] == 24
        and good["sizes"] == {"112 x 112": 24}
        and good["encodings"] == {"JPEG": 24}
        and good["corrupt"] == {}
    )
    assert (
        (good["pairs"], good["genuine"]) == (12, 6)
        if kind == "bin"
        else good["identities"] == 8 and good["per_identity"] == dict(fewest=3, median=3, most=3)
    )
    swapped = report("swapped", images=[x[..., ::-1] for x in images])
    assert len(swapped["problems"]) == 1 and "red and blue are likely swapped" in swapped["problems"][0]
    small = report("small", images=[x[::2, ::2] for x in images])
    assert small["problems"] == ["images of 56 x 56: arcface_torch and AdaFace want 112 x 112"]
    two = report("two", images=[*images[:-1], images[-1][:100]])
    assert two["problems"] == ["images of different sizes: 23 of 112 x 112, 1 of 112 x 100"]
    broken = report(
        "broken", images=[encode_image(x, ".jpg")[:900] if k in (4, 17) else x for k, x in enumerate(images)]
    )
    assert (
        [*broken["corrupt"]] == [4, 17]
        and len(broken["problems"]) == 1
        and "2 images are corrupt" in broken["problems"][0]
        and broken["images"] == 24
    )
    if kind == "bin":
        return
    gaps = report("gaps", labels=np.where(labels > 4, labels + 2, labels))
    assert gaps["problems"] == ["labels have gaps: 8 numbers from 0 to 9; the first that is missing is 5"]
    off = inspect_dataset(tmp_path / "good", images=32, identities=9)
    assert off["problems"] == [
        "the configuration says 9 people, there are 8",
        "the configuration says 32 images, there are 24: it counts the 8 people too",
    ]
    if kind == "rec":
        (tmp_path / "good" / "property").write_text("8,112,112\n32\n")
        assert inspect_dataset(tmp_path / "good")["problems"] == [
            "property says 32 images, there are 24: it counts the 8 people too"
        ]


def test_foreign_counts_and_labels(tmp_path):
    write_rec(noise(), tmp_path)
    (tmp_path / "property").write_text("4,112,112\n34\n")
    assert any(
        "property says 34 images, there are 30: it counts the 4 people too" in p
        for p in inspect_dataset(tmp_path)["problems"]
    )
    late = [pack(jpeg(k), k % 3) for k in range(6)]
    write_records(tmp_path / "late" / "train.rec", late.__getitem__, 6)
    (tmp_path / "late" / "train.idx").write_text(
        "".join(f"{k + 1}\t{at}\n" for k, at in enumerate(Records(tmp_path / "late" / "train.rec").offsets))
    )
    assert (
        any("KeyError: 0" in p for p in inspect_dataset(tmp_path / "late")["problems"])
        and len(open_rec(tmp_path / "late" / "train.rec")) == 6
    )
    with pytest.raises(KeyError):
        MXReader(tmp_path / "late")


if __name__ == "__main__":
    examine(sys.argv[1])
