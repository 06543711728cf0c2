"""Pictures/s that the shipped ID³ generator draws and writes, as a ratio to twelve steps with the adjusted score.

    python bench/bench_drawing.py [--pictures 200] [--repeats 3] [--device cpu] [--record FOLDER]

The rows of the profiles id3_speed and id3_speed_more, where a judge and a recogniser say what they are worth, each with
its networks in float32 and in bf16: which of the two is faster depends on the processor. `generate` writes each into a
folder of its own, the rows taking turns; the best of `repeats`. Prints a table. `--record`: the table also as a record.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from timing import best_of

from facesyn.core.files import repo_root, shipped
from facesyn.core.images import pick_device
from facesyn.core.profiles import read_profile
from facesyn.core.records import write_record
from facesyn.methods.generation import generate
from facesyn.methods.id3_sampling import ID3Pipeline
from facesyn.methods.plans import plan
from facesyn.nets.encoders import load_encoder
from facesyn.sphere.geometry import random_anchors
from facesyn.sphere.spreading import spread

BF16 = ", bf16"
CARD = dict(name="to be timed", source="rendered faces", method="ID³", licence="CC0-1.0", limits="to be timed")


def main(pictures, repeats, device, record):
    began = time.time()
    device = pick_device(device)
    first, more = (
        next(r for r in read_profile(name, repo_root()).runs if r.notebook == "id3_experiment").parameters
        for name in ("id3_speed", "id3_speed_more")
    )
    told = first | dict(rows=first["rows"] | more["rows"])
    pipe, f = ID3Pipeline.from_pretrained(shipped("id3")).to(device), load_encoder(shipped("identity"), device)
    pipe.set_progress_bar_config(disable=True)
    y = random_anchors(pictures // 10, f.dim)
    rows = plan(spread(y, 10, lb=told["plan"]["lb"], ub=told["plan"]["ub"]), s=torch.zeros(len(y), 10, 4))
    with tempfile.TemporaryDirectory() as d:

        def way(row):
            row = dict(steps=told["plan"]["steps"]) | row
            how = pipe.drawing(row.pop("scheduler", ""), row.pop("precision", "no"))
            row |= dict(encoder=f) if row.get("gamma") else {}
            return lambda: generate(how, rows, tempfile.mkdtemp(dir=d), CARD, told["plan"]["batch"], **row)

        named = {name.removesuffix(BF16): row for name, row in told["rows"].items()}
        named |= {f"{name}{BF16}": row | dict(precision="bf16") for name, row in named.items()}
        named |= {name: row | dict(precision="no") for name, row in named.items() if not name.endswith(BF16)}
        best = best_of(repeats, {name: way(row) for name, row in named.items()})
    one = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"{name:60}{pictures / seconds:8.1f} pictures/s  {one / seconds:5.2f}")
    if record:
        asked = dict(pictures=pictures, repeats=repeats, device=str(device), rows=told["rows"], plan=told["plan"])
        results = {name: dict(per_second=pictures / s, ratio=one / s) for name, s in best.items()}
        write_record(record / "bench_drawing.json", "bench_drawing", asked, results, began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--record", type=Path)
    main(**vars(parser.parse_args()))
