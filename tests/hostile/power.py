"""Loss of power, for a person who may mount: python tests/hostile/power.py [ROUNDS [KIND ...]]

Each round writes into a small file system of its own (ext4 on a loop device), copies the device while that is going on,
as a loss of power would leave it, lets the system repair the copy, goes on in it and compares with undisturbed bytes.
Needs the rights for losetup and mount, and mkfs.ext4."""

import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from facesyn.core.images import encode_image
from facesyn.core.training import Keep, train_loop
from facesyn.data.conversion import WRITERS, convert
from facesyn.data.image_sets import Encoded

sys.path.insert(0, str(Path(__file__).parent))
from test_writers import CARD, made  # noqa: E402

IMAGES = 240
CLOCKS = {"work.jsonl", "checkpoint.former.safetensors"}  # what depends on the time that something took


def picture(k):
    time.sleep(0.004)
    return encode_image(np.random.default_rng(k).integers(0, 256, (112, 112, 3), np.uint8), ".jpg")


def write(format, folder):
    source = Encoded(np.arange(IMAGES) % 6, [f"{i:06d}" for i in range(6)], picture, about=lambda k: dict(seed=k))
    convert(source, folder, format, shard=60, card=CARD)


def train(folder):
    torch.manual_seed(0)
    net = nn.Linear(64, 64)
    optimiser = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

    def update(step):
        time.sleep(0.005)
        x = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
        loss = net(x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return dict(loss=loss)

    train_loop(update, 240, optimiser, dict(net=net), {}, Keep(folder, seconds=0.2, every=10))


def generate(folder):
    made(folder, slowly=True)


KINDS = {f: lambda folder, f=f: write(f, folder) for f in ("rec", "flat", *WRITERS)} | dict(
    train=train, generate=generate
)


def read(path):
    "The bytes of a file; of a checkpoint the digest in it: safetensors writes its metadata in no order"
    if path.suffix != ".safetensors":
        return path.read_bytes()
    try:
        with safe_open(path, "pt") as f:
            return f.metadata()["sha256"]
    except SafetensorError as e:
        return str(e)


def content(folder):
    return {
        str(p.relative_to(folder)): read(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in CLOCKS and "lost+found" not in p.parts
    }


def run(*command):
    subprocess.run([str(c) for c in command], check=True, capture_output=True)


def in_a_process(kind, folder):
    child = multiprocessing.get_context("fork").Process(target=KINDS[kind], args=(folder,))
    child.start()
    return child


def one_round(kind, place, whole, rng):
    "(share of the time after which the power went, files that were there, files that were not as at the end)"
    disk, copy, mount = place / "disk", place / "copy", place / "mount"
    mount.mkdir(exist_ok=True)
    with open(disk, "wb") as f:
        f.truncate(64 * 2**20)
    run("mkfs.ext4", "-q", "-F", disk)
    run("mount", "-o", "loop,commit=1", disk, mount)
    try:
        began, child = time.time(), in_a_process(kind, mount / "set")
        time.sleep(rng.uniform(0.05, 1.2 * whole["seconds"]))  # also after its end, before all is on the disk
        run("cp", "--sparse=always", disk, copy)
        after = time.time() - began
        child.kill()
        child.join()
    finally:
        run("umount", mount)
    run("mount", "-o", "loop", copy, mount)
    try:
        left = content(mount / "set") if (mount / "set").exists() else {}
        odd = sum(data != whole["content"].get(name) for name, data in left.items())
        KINDS[kind](mount / "set")
        again = content(mount / "set")
        differ = [n for n in {*again, *whole["content"]} if again.get(n) != whole["content"].get(n)]
        assert not differ, f"{kind}: after {after:.2f} s, these differ: {differ[:5]}"
    finally:
        run("umount", mount)
    return after, len(left), odd


def main(rounds=3, *kinds):
    torch.set_num_threads(1)
    lost = 0
    for kind in kinds or KINDS:
        rng, failed, seen = random.Random(kind), 0, []
        with tempfile.TemporaryDirectory() as d:
            began = time.time()
            KINDS[kind](Path(d) / "whole" / "set")
            whole = dict(seconds=time.time() - began, content=content(Path(d) / "whole" / "set"))
            for _ in range(int(rounds)):
                try:
                    seen.append(one_round(kind, Path(d), whole, rng))
                except (AssertionError, ValueError, OSError) as e:
                    failed += 1
                    print(f"  {type(e).__name__}: {e}", flush=True)
        odd = sum(s[2] for s in seen)
        print(f"{kind}: {len(seen)} of {rounds} end in the undisturbed bytes; {odd} files were not whole", flush=True)
        lost += failed
    sys.exit(bool(lost))


if __name__ == "__main__":
    main(*sys.argv[1:])
