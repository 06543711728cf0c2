"""Peak memory of `encode`, `id3_train` and `recognise`, in all their processes together, over the number of pictures.

    python bench/bench_memory.py [--pictures 100000 500000] [--seconds 300] [--folder DIR] [--record FOLDER]

A made-up .rec of small JPEGs at 112 pixels, 50 a person, is written by our own writer; each run notebook is executed on
it by papermill. Memory is what is resident beyond files: anonymous and shared pages (Pss of smaps_rollup), the highest
sum that was seen. `encode` ends; of the trainings, `--seconds` after their first update are watched. The networks are
untrained, the pictures one of 64, the encoder is a single convolution and a matrix, so that `encode` ends in time: none
of it grows with the pictures. A folder needs 40 kB a picture, most of it what `encode` writes.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from facesyn.core.files import read_lines, repo_root
from facesyn.core.images import encode_image
from facesyn.core.records import write_record
from facesyn.data.conversion import convert
from facesyn.data.image_sets import Encoded

ROOT, SIZE, EACH = repo_root(), 112, 50


def made_up(folder, count):
    "A .rec of `count` pictures, which are 64 JPEGs of about 3 kB"
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 7, 7, 3)).repeat(16, 1).repeat(16, 2)
    noise = rng.integers(-6, 7, (64, SIZE, SIZE, 3))
    jpegs = [encode_image(x.astype(np.uint8), ".jpg") for x in (coarse + noise).clip(0, 255)]
    labels = np.arange(count) // EACH
    names = [f"p{k}" for k in range(labels[-1] + 1)]
    card = dict(name="Made up", source="random patterns", method="none", licence="CC0-1.0", limits="shows nothing")
    convert(Encoded(labels, names, lambda k: jpegs[k % 64]), folder, "rec", card=card)


def small_encoder(path):
    "An encoder of 512 numbers, fast and untrained"
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 8, 8), torch.nn.Flatten(), torch.nn.Linear(8 * (SIZE // 8) ** 2, 512)
    )
    axes, names = dict(input={0: "n"}, output={0: "n"}), dict(input_names=["input"], output_names=["output"])
    torch.onnx.export(net.eval(), torch.zeros(1, 3, SIZE, SIZE), path, dynamo=False, dynamic_axes=axes, **names)


def held(pid):
    "MiB of anonymous and shared pages of a process and of all that it started"
    total, left = 0, [pid]
    while left:
        one = left.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                left += map(int, (task / "children").read_text().split())
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it ended
            continue
        told = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total += told["Pss_Anon"] + told["Pss_Shmem"]
    return total / 1024


def updates(log):
    "Updates in the log of a training, 0 before the first line"
    return read_lines(log)[-1]["step"] if log.is_file() and log.stat().st_size else 0


def watched(run, parameters, folder, log=None, seconds=0.0):
    "The peak of a run, its seconds, and, of a training, its updates when it was ended"
    told = folder / f"{run}.yaml"
    told.write_text(yaml.safe_dump(parameters))
    command = [sys.executable, "-m", "papermill", "--cwd", ROOT, "-f", told, "-k", "python3", "--no-progress-bar"]
    began, first, peak = time.time(), None, 0.0
    with open(folder / f"{run}.txt", "w") as said:
        books = ROOT / f"nbs/runs/{run}.ipynb", folder / f"{run}.ipynb"
        process = subprocess.Popen([*command, *books], stdout=said, stderr=said, start_new_session=True)
        while process.poll() is None and not (first and time.time() - first > seconds):
            peak = max(peak, held(process.pid))
            first = first or (log and updates(log) and time.time())
            time.sleep(0.5)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        elif process.returncode:
            raise RuntimeError(f"{run} failed: {folder / f'{run}.txt'}")
    return dict(peak_mib=round(peak), seconds=round(time.time() - began)) | (dict(updates=updates(log)) if log else {})


def measured(folder, count, seconds):
    "All three runs on `count` pictures"
    made_up(folder / "set", count)
    faces, encoder = str(folder / "set/train.rec"), dict(path=str(folder / "encoder.onnx"), preprocessing=PIXELS)
    small_encoder(folder / "encoder.onnx")
    encoded, common = str(folder / "encoded"), dict(out=str(folder / "out"))
    found = dict(
        encode=watched("encode", dict(source=faces, out=encoded, size=SIZE, encoder=encoder, attributes=""), folder)
    )
    optim = dict(steps=100_000, batch=16, lr=3.0e-4, warmup=100, ema=0.999, precision="no")
    told = dict(common, encoded=encoded, encoder=encoder, work=str(folder / "id3"), optim=optim)
    patches = dict(patch=4, power=0.0, scaling=2.0)
    found["id3_train"] = watched("id3_train", told | dict(patches=patches), folder, folder / "id3/log.jsonl", seconds)
    real = dict(source=faces, first=0, having={})
    told = dict(common, dataset=faces, real=real, size=SIZE, check=20, recogniser=RECOGNISER)
    log = folder / f"out/real_{count}_seed0/log.jsonl"
    found["recognise"] = watched("recognise", told, folder, log, seconds)
    return found


PIXELS = dict(size=SIZE, mean=127.5, std=127.5, channels="rgb")
RECOGNISER = dict(net="mobilefacenet", dim=512, epochs=1, batch=32, lr=0.05, head="arcface", s=32.0, m=0.4, shift=1)
RECOGNISER |= dict(more={})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, nargs="+", default=[100_000, 500_000])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the pictures are kept meanwhile")
    parser.add_argument("--record", type=Path, help="a folder for a record of it")
    asked, began, rows = parser.parse_args(), time.time(), []
    for count in asked.pictures:
        folder = Path(tempfile.mkdtemp(dir=asked.folder))
        rows.append(dict(pictures=count, **measured(folder, count, asked.seconds)))
        print(json.dumps(rows[-1]), flush=True)
        shutil.rmtree(folder)
    if asked.record:
        told = dict(pictures=asked.pictures, seconds=asked.seconds)
        write_record(asked.record / "bench_memory.json", "bench_memory", told, dict(rows=rows), began)
