"""Pictures/s that several processes draw into one dataset, as a ratio to one process, each with one thread.

    python bench/bench_workers.py [--workers 1 2] [--pictures 600] [--unit 100] [--repeats 2] [--record FOLDER]

The shipped ID³ generator, twelve steps with the adjusted score. Processes open their networks, say that they are ready,
and begin together; the time is until the last has seen the whole set, with manifest and card. The best of `repeats`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from facesyn.core.files import shipped
from facesyn.core.records import write_record
from facesyn.methods.generation import generate
from facesyn.methods.id3_sampling import ID3Pipeline
from facesyn.methods.plans import plan
from facesyn.nets.encoders import load_encoder
from facesyn.sphere.geometry import random_anchors
from facesyn.sphere.spreading import spread

CARD = dict(name="to be timed", source="rendered faces", method="ID³", licence="CC0-1.0", limits="to be timed")


def worker(folder, pictures, unit):
    "One process: ready when `folder/<pid>` is there, begins when `folder/begin` is"
    pipe, f = ID3Pipeline.from_pretrained(shipped("id3")), load_encoder(shipped("identity"))
    pipe.set_progress_bar_config(disable=True)
    rows = plan(spread(random_anchors(pictures // 10, f.dim), 10, lb=0.8, ub=1.0))
    (folder / str(os.getpid())).touch()
    while not (folder / "begin").exists():
        time.sleep(0.01)
    generate(pipe, rows, folder / "set", CARD, unit, unit=unit, steps=12, encoder=f, gamma=0.1, gradient="stop")


def seconds(workers, pictures, unit):
    "Seconds that so many processes take for the same rows"
    told = ["--pictures", str(pictures), "--unit", str(unit)]
    with tempfile.TemporaryDirectory() as d:
        command = [sys.executable, __file__, "--in", d, *told]
        env = os.environ | dict(OMP_NUM_THREADS="1")
        processes = [subprocess.Popen(command, env=env) for _ in range(workers)]
        while sum(1 for _ in Path(d).iterdir()) < workers:
            if any(process.poll() for process in processes):
                raise RuntimeError("a process failed")
            time.sleep(0.01)
        began = time.time()
        (Path(d) / "begin").touch()
        if any([process.wait() for process in processes]):
            raise RuntimeError("a process failed")
        return time.time() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--unit", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--record", type=Path, help="a folder for a record of it")
    asked, began = parser.parse_args(), time.time()
    if asked.folder:
        worker(asked.folder, asked.pictures, asked.unit)
    else:
        counted = [asked.pictures, asked.unit]
        best = {w: min(seconds(w, *counted) for _ in range(asked.repeats)) for w in asked.workers}
        first = next(iter(best.values()))
        rows = [dict(workers=w, per_second=asked.pictures / s, ratio=first / s) for w, s in best.items()]
        print(*map(json.dumps, rows), sep="\n")
        if asked.record:
            told = dict(pictures=asked.pictures, unit=asked.unit, repeats=asked.repeats)
            write_record(asked.record / "bench_workers.json", "bench_workers", told, dict(rows=rows), began)
