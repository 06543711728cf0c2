"""Damaged files for every reader: none may crash, hang, take memory without bound, or fail without naming the file.

    python tests/hostile/fuzz.py            150 mutants for each reader
    python tests/hostile/fuzz.py 20 parquet 20 mutants, readers whose names contain "parquet"

A mutant is a valid file with a part cut, doubled, zeroed or overwritten, with another number, or with another value in
its JSON. It may be read, or be refused by an error (ValueError, FileNotFoundError, ...) that names the file or its
folder. Each reader works in a process of its own, so that a crash is counted and the next mutant is tried.
"""

import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np

SECONDS, MEMORY = 60, 512 * 2**20  # that a mutant may take; memory beyond what the valid file takes
NUMBERS = [b"0", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"1.5", b"2147483648", b"1000000"]
VALUES = [None, -1, 0.5, 10**12, "", "../../x", [], {}, True, "nan", [[[1]]], "\ud800", float("inf")]


# --- mutants ---


def _span(data, rng):
    start = int(rng.integers(0, max(len(data), 1)))
    return start, min(len(data), start + int(rng.choice([1, 2, 4, 8, 32, 256, 4096])))


def damaged(data: bytes, rng) -> bytes:
    "One blow to the bytes of a file"
    a, b = _span(data, rng)
    kind = int(rng.integers(12))
    if kind == 0:
        return data[:a]
    if kind == 1:
        return data[:a] + data[b:]
    if kind == 2:
        return data[:b] + data[a:]
    if kind == 3:
        return data[:a] + rng.bytes(b - a) + data[b:]
    if kind == 4:
        return data[:a] + rng.bytes(b - a) + data[a:]
    if kind == 5:
        return data[:a] + b"\0" * (b - a) + data[b:]
    if kind == 6:
        return data[:a] + b"\xff" * (b - a) + data[b:]
    if kind == 7 and data:
        out = bytearray(data)
        for k in rng.integers(0, len(data), int(rng.integers(1, 9))):
            out[k] ^= 1 << int(rng.integers(8))
        return bytes(out)
    if kind == 8:
        c, d = _span(data, rng)
        return data[: min(a, c)] + data[max(a, c) : max(b, d)] + data[min(a, c) :]
    if kind == 9:
        return [b"", b"\n", b"<html><body>404</body></html>", b"\xef\xbb\xbf" + data, rng.bytes(64)][rng.integers(5)]
    if kind == 10:
        return data[:a] + int(rng.choice([2**31 - 1, 2**32 - 1, 2**24, 0])).to_bytes(4, "little") + data[a + 4 :]
    places = [m.span() for m in re.finditer(rb"(?<![\w.])-?\d+(?:\.\d+)?", data[:200_000])]
    if not places:
        return data[: len(data) // 2]
    a, b = places[rng.integers(len(places))]
    return data[:a] + NUMBERS[rng.integers(len(NUMBERS))] + data[b:]


def _replaced(value, rng, depth=0):
    "`value` of JSON with one entry, somewhere in it, removed or of another kind"
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.5):
        key = list(value)[rng.integers(len(value))]
        if rng.random() < 0.25:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _replaced(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        k = int(rng.integers(len(value)))
        return value[:k] + ([] if rng.random() < 0.25 else [_replaced(value[k], rng, depth + 1)]) + value[k + 1 :]
    return VALUES[rng.integers(len(VALUES))]


def mutant(data: bytes, rng) -> bytes:
    "JSON and JSON lines are often damaged in their values, everything else in its bytes"
    if data[:1] in (b"{", b"[") and rng.random() < 0.6:
        lines = data.splitlines()
        try:
            whole = len(lines) == 1 or not lines[0].endswith(b"}")
            k = 0 if whole else int(rng.integers(len(lines)))
            changed = json.dumps(_replaced(json.loads(data if whole else lines[k]), rng)).encode()
            return changed if whole else b"\n".join([*lines[:k], changed, *lines[k + 1 :]])
        except ValueError:
            pass
    for _ in range(int(rng.integers(1, 3))):
        data = damaged(data, rng)
    return data


# --- readers: name -> (make(folder) -> the file that is damaged, read(folder)) ---


def _faces():
    from facesyn.data.faces import parametric_faces

    return parametric_faces(3, 4, 32, first=10)


CARD = dict(name="three", source="rendered", method="head", licence="CC0-1.0", limits="twelve images")
SHIPPED = Path(__file__).parents[2] / "data" / "models"


def picture(suffix, mode="RGB"):
    def make(folder):
        from PIL import Image

        (folder / "set" / "ann").mkdir(parents=True)
        file = folder / "set" / "ann" / f"0{suffix}"
        Image.fromarray(_faces().read([0])[0]).convert(mode).save(file)
        return file

    def read(folder):
        from facesyn.core.images import read_image
        from facesyn.data.inspection import inspect_dataset

        inspect_dataset(folder / "set")
        read_image(folder / "set" / "ann" / f"0{suffix}", 32)

    return make, read


def photograph(suffix):
    def make(folder):
        from PIL import Image

        file = folder / f"0{suffix}"
        Image.fromarray(_faces().read([0])[0]).save(file)
        return file

    def read(folder):
        from facesyn.core.images import PHOTOGRAPHS, read_image

        read_image(folder / f"0{suffix}", formats=PHOTOGRAPHS)

    return make, read


def exported(format, pattern, check=True):
    "A set written by `convert`, of which the file that fits `pattern` is damaged"

    def make(folder):
        from facesyn.data.conversion import convert

        convert(_faces(), folder / "set", format, card=CARD)
        return sorted((folder / "set").glob(pattern))[0]

    def read(folder):
        from facesyn.data.inspection import inspect_dataset
        from facesyn.data.opening import open_faces

        if check:
            inspect_dataset(folder / "set")
        faces = open_faces(folder / "set", 32)
        faces.read(np.arange(len(faces)))

    return make, read


def listed():
    "DCFace's layout: every record has label 0, and list.txt says who it is"

    def make(folder):
        from facesyn.data.recordio import pack, write_records

        jpegs = _jpegs()
        write_records(folder / "file.rec", lambda r: pack(jpegs[r], 0.0, r), len(jpegs))
        (folder / "list.txt").write_text("".join(f"{r}\t{r // 4}/{r}.jpg\n" for r in range(len(jpegs))))
        return folder / "list.txt"

    def read(folder):
        from facesyn.data.inspection import inspect_dataset
        from facesyn.data.opening import open_encoded

        inspect_dataset(folder / "file.rec")
        open_encoded(folder / "file.rec")

    return make, read


def dataset(name):
    "A dataset in folders, of which the file `name` is damaged"

    def make(folder):
        from facesyn.data.dataset import write_folder

        write_folder(_faces(), folder / "set", CARD)
        return folder / "set" / name

    def read(folder):
        from facesyn.data.conversion import convert
        from facesyn.data.opening import open_faces

        faces = open_faces(folder / "set", 32)
        faces.read(np.arange(len(faces)))
        convert(folder / "set", folder / "other", "rec")

    return make, read


def encoded(name):
    def make(folder):
        from facesyn.data.dataset import write_encoded

        faces, rng = _faces(), np.random.default_rng(0)
        y = rng.normal(size=(12, 8))
        write_encoded(folder / "set", faces, y / np.linalg.norm(y, axis=1, keepdims=True), faces.attributes)
        return folder / "set" / name

    def read(folder):
        from facesyn.data.dataset import read_encoded

        faces, _, _ = read_encoded(folder / "set")
        faces.read(np.arange(len(faces)))

    return make, read


def _jpegs():
    from facesyn.core.images import encode_image

    return [encode_image(image, ".jpg") for image in _faces().read(np.arange(12))]


def pair_file(suffix):
    def make(folder):
        from facesyn.data.bins import save_bin

        jpegs = _jpegs()
        if suffix == ".bin":
            sides = [(k % 3, k % 3 + 1) for k in range(10)] + [(k % 4, 4 + k % 8) for k in range(10)]
            issame = np.arange(20) < 10
            save_bin([jpegs[k] for pair in sides for k in pair], issame, folder / "p.bin", repeats=True)
        else:
            offsets = np.cumsum([0, *map(len, jpegs)])
            pairs, issame = np.array([[0, 1], [4, 5], [0, 4], [1, 8]]), np.array([1, 1, 0, 0])
            data = np.frombuffer(b"".join(jpegs), np.uint8)
            np.savez(folder / "p.npz", jpeg=data, offsets=offsets, pairs=pairs, issame=issame)
        return folder / f"p{suffix}"

    def read(folder):
        from facesyn.data.pairs import open_pairs

        open_pairs(folder / f"p{suffix}", 32)

    return make, read


def array_file():
    def make(folder):
        jpegs = _jpegs()
        arrays = dict(jpeg=np.frombuffer(b"".join(jpegs), np.uint8), offsets=np.cumsum([0, *map(len, jpegs)]))
        np.savez_compressed(folder / "a.npz", **arrays, label=np.arange(12) // 4, age=np.arange(12.0))
        return folder / "a.npz"

    def read(folder):
        from facesyn.data.opening import open_faces

        faces = open_faces(folder / "a.npz", 32)
        faces.read(np.arange(len(faces)))

    return make, read


def lists(name, text):
    def make(folder):
        (folder / name).write_text(text)
        return folder / name

    def read(folder):
        from facesyn.data.bins import csv_list, lfw_list

        (csv_list if name.endswith(".csv") else lfw_list)(folder / name, folder)

    return make, read


def network(name, kind="identity"):
    def make(folder):
        import shutil

        shutil.copytree(SHIPPED / kind, folder / "net")
        return folder / "net" / name

    def read(folder):
        from facesyn.methods.id3_sampling import ID3Pipeline
        from facesyn.nets.attributes import AttributeNet
        from facesyn.nets.encoders import load_encoder

        opened = dict(identity=load_encoder, attributes=AttributeNet.from_pretrained, id3=ID3Pipeline.from_pretrained)
        opened[kind](folder / "net")

    return make, read


def onnx_file():
    def make(folder):
        from facesyn.nets.backbones import IResNet
        from facesyn.nets.encoders import Encoder
        from facesyn.nets.onnx_export import export_onnx

        net = IResNet(112, (1, 1, 1, 1), (16, 16, 16, 16), 16)
        export_onnx(Encoder(net.eval(), 112), folder / "net.onnx")
        return folder / "net.onnx"

    def read(folder):
        from facesyn.nets.encoders import load_encoder

        load_encoder(folder / "net.onnx", size=112)

    return make, read


def weights_file():
    def make(folder):
        import torch

        from facesyn.nets.encoders import load_recogniser

        torch.save(load_recogniser(SHIPPED / "identity").state_dict(), folder / "backbone.pth")
        return folder / "backbone.pth"

    def read(folder):
        from facesyn.nets.encoders import load_encoder

        load_encoder(folder / "backbone.pth")

    return make, read


def checkpoint(name):
    def settings():
        import torch

        from facesyn.core.training import Keep, train_loop

        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        adam = torch.optim.AdamW(net.parameters())

        def update(step):
            loss = net(torch.ones(1, 3)).square().sum()
            loss.backward(), adam.step(), adam.zero_grad()
            return dict(loss=loss.detach())

        return lambda folder, steps: train_loop(
            update, steps, adam, dict(net=net), dict(lr=0.1), Keep(folder / "work", every=1)
        )

    def make(folder):
        settings()(folder, 3)
        return folder / "work" / name

    def read(folder):
        settings()(folder, 4)

    return make, read


def landmarks():
    def make(folder):
        rows = [dict(file=f"p/{k}.png", landmarks=[[k, 1.5]] * 5) for k in range(3)]
        (folder / "l.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder / "l.jsonl"

    def read(folder):
        from facesyn.nets.photographs import known_landmarks

        known_landmarks(folder / "l.jsonl")

    return make, read


def consent():
    def make(folder):
        agreed = {name: dict(agreed=True, terms="a test, today") for name in ("ann", "bob")}
        (folder / "consent.json").write_text(json.dumps(agreed))
        return folder / "consent.json"

    def read(folder):
        from facesyn.methods.people import check_consent

        check_consent(folder, ["ann", "bob"])

    return make, read


def profile():
    def make(folder):
        from facesyn.core.files import repo_root

        (folder / "settings.ini").write_text("")
        (folder / "nbs").symlink_to(repo_root(Path(__file__).parent) / "nbs")
        (folder / "p.yaml").write_text((folder / "nbs" / "runs" / "params" / "smoke.yaml").read_text())
        return folder / "p.yaml"

    def read(folder):
        from facesyn.core.profiles import yaml_mapping

        yaml_mapping(folder / "p.yaml")

    return make, read


READERS = {
    "picture.png": picture(".png"),
    "picture.jpg": picture(".jpg"),
    "picture.webp": picture(".webp"),
    "picture.bmp": picture(".bmp"),
    "photograph.tif": photograph(".tif"),
    "photograph.gif": photograph(".gif"),
    "train.rec": exported("rec", "*.rec"),
    "train.idx": exported("rec", "*.idx"),
    "train.lst": exported("rec", "*.lst"),
    "list.txt": listed(),
    "property": exported("rec", "property"),
    "tar": exported("webdataset", "*.tar"),
    "parquet": exported("parquet", "*.parquet"),
    "lmdb": exported("lmdb", "*.lmdb"),
    "names.txt": exported("rec", "names.txt"),
    "manifest.jsonl": dataset("manifest.jsonl"),
    "card.json": dataset("card.json"),
    "settings.json": dataset("settings.json"),
    "encoded index.json": encoded("index.json"),
    "encoded y.npy": encoded("y.npy"),
    "encoded images.npy": encoded("images.npy"),
    "encoded labels.npy": encoded("labels.npy"),
    "pairs.bin": pair_file(".bin"),
    "pairs.npz": pair_file(".npz"),
    "faces.npz": array_file(),
    "pairs.txt": lists("pairs.txt", "1\t1\nann\t1\t2\nann\t1\tbob\t1\n"),
    "pairs.csv": lists("pairs.csv", "first,second,issame\na/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n"),
    "network config.json": network("config.json"),
    "network weights": network("diffusion_pytorch_model.safetensors"),
    "attributes config.json": network("config.json", "attributes"),
    "pipeline model_index.json": network("model_index.json", "id3"),
    "pipeline unet config.json": network("unet/config.json", "id3"),
    "pipeline scheduler_config.json": network("scheduler/scheduler_config.json", "id3"),
    "net.onnx": onnx_file(),
    "backbone.pth": weights_file(),
    "checkpoint": checkpoint("checkpoint.safetensors"),
    "log.jsonl": checkpoint("log.jsonl"),
    "landmarks.jsonl": landmarks(),
    "consent.json": consent(),
    "profile.yaml": profile(),
}


# --- the trial ---


def _peak() -> int:
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def measured(read, folder):
    "(outcome, message, bytes of memory at most above now)"
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    try:
        read(folder)
        said = ("read", "")
    except (ValueError, OSError, FloatingPointError, ImportError) as e:
        said = ("refused", f"{type(e).__name__}: {e}")
    except BaseException as e:  # noqa: B036 - also what a thread of a library raises
        said = ("unclear", f"{type(e).__name__}: {e}")
    return *said, _peak() - before


def _work(pipe, make, read, first, mutants, folder):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    file = make(folder)
    kept = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and "nbs" not in p.parts}
    need = measured(read, folder)
    pipe.send(need)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    for k in range(first, mutants):
        for p in [p for p in folder.rglob("*") if p.is_file() and "nbs" not in p.parts and p not in kept]:
            p.unlink()
        for p, data in kept.items():
            p.parent.mkdir(parents=True, exist_ok=True)
            p.write_bytes(data if p != file else mutant(data, np.random.default_rng([k, len(data)])))
        outcome, said, memory = measured(read, folder)
        if outcome == "refused" and not any(str(n) in said for n in (folder, file.name, file.stem)):
            outcome = "unclear"
        if memory > need[2] + MEMORY:
            outcome, said = "memory", f"{memory / 2**20:.0f} MiB; {said}"
        pipe.send((k, outcome, said))
    pipe.send(None)


def trial(name: str, mutants: int) -> tuple[Counter, list]:
    "How often each outcome came, and [(mutant, outcome, what was said)] of those that may not be"
    make, read = READERS[name]
    found, bad, first = Counter(), [], 0
    context = multiprocessing.get_context("fork")
    while first < mutants:
        with tempfile.TemporaryDirectory() as folder:
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(there, make, read, first, mutants, Path(folder)))
            worker.start(), there.close()
            try:
                if not here.poll(SECONDS):
                    raise TimeoutError(f"{name}: the valid file is not read in {SECONDS} s")
                valid = here.recv()
                if valid[0] != "read":
                    raise AssertionError(f"{name}: the valid file is {valid}")
                while True:
                    if not here.poll(SECONDS):
                        outcome, said = "hang", f"over {SECONDS} s"
                        break
                    told = here.recv()
                    if told is None:
                        return found, bad
                    k, outcome, said = told
                    first, found[outcome] = k + 1, found[outcome] + 1
                    if outcome not in ("read", "refused"):
                        bad.append((k, outcome, said))
            except EOFError:
                worker.join()
                outcome, said = "crash", f"exit code {worker.exitcode}"
            finally:
                worker.kill(), worker.join()
            found[outcome] += 1
            bad.append((first, outcome, said))
            first += 1
    return found, bad


def main(mutants: int = 150, wanted: str = ""):
    for module in ("methods.id3_sampling", "methods.people", "data.inspection", "nets.onnx_export", "nets.photographs"):
        import_module(f"facesyn.{module}")  # once, for all processes
    total, started = Counter(), time.time()
    for name in [n for n in READERS if wanted in n]:
        found, bad = trial(name, mutants)
        total += found
        print(f"{name:28}", dict(found), flush=True)
        for k, outcome, said in bad[:3]:
            print(f"    {k}: {outcome}: {said[:200]!r}", flush=True)
    print(dict(total), f"{time.time() - started:.0f} s")
    return sum(v for k, v in total.items() if k not in ("read", "refused"))


if __name__ == "__main__":
    sys.exit(min(main(*(int(a) if a.isdigit() else a for a in sys.argv[1:])), 1))
