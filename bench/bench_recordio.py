"""Records/s of writing and reading a .rec of 15 kB JPEGs on one core, and as a ratio to one baseline measured in the
same run: a plain loop with `struct`, one record at a time,
which writes four strings and reads by seek, head and payload, and knows nothing of split records, torn files or an
order.

    python bench/bench_recordio.py [--records 20000] [--repeats 3]

Prints JSON. Each figure is the best of `repeats`, the ways taking turns; both must write the same bytes. The file stays
in the page cache: this measures the code, not the disk.
"""

import argparse
import json
import os
import platform
import struct
import tempfile
from pathlib import Path

import numpy as np
from timing import best_of

from facesyn.core.images import encode_image
from facesyn.data.rec_sets import payloads, plan_records
from facesyn.data.recordio import Records, unpack, write_records
from facesyn.data.trainers import RecDataset


def jpegs(count=64):
    "JPEGs of 112 pixels and about 15 kB"
    rng = np.random.default_rng(0)
    return [
        encode_image((128 + 13 * rng.standard_normal((112, 112, 3))).clip(0, 255).astype(np.uint8), ".jpg")
        for _ in range(count)
    ]


def plain_write(path, payload, total):
    at = 0
    with open(path, "wb") as f, open(path.with_suffix(".idx"), "w") as idx:
        for r in range(total):
            data = payload(r)
            pad = -len(data) % 4
            f.write(struct.pack("<I", 0xCED7230A))
            f.write(struct.pack("<I", len(data)))
            f.write(data)
            f.write(b"\0" * pad)
            idx.write(f"{r}\t{at}\n")
            at += 8 + len(data) + pad


def plain_read(path, order):
    offsets = [int(line.split("\t")[1]) for line in path.with_suffix(".idx").read_text().splitlines()]
    with open(path, "rb") as f:
        for r in order:
            f.seek(offsets[r])
            _, length = struct.unpack("<II", f.read(8))
            data = f.read(length)
            struct.unpack("<IfQQ", data[:24])
            data[24:]


def our_read(path, order):
    records = Records(path)
    for r in order:
        unpack(records[r])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20000)
    parser.add_argument("--repeats", type=int, default=3)
    asked, images = parser.parse_args(), jpegs()
    labels = np.arange(asked.records) * 100 // asked.records
    order, total = plan_records(labels, "flat")
    payload = payloads(labels, lambda k: images[k % len(images)], order, "flat")
    mixed = np.random.default_rng(0).permutation(total).tolist()
    with tempfile.TemporaryDirectory() as d:
        ours, plain = Path(d) / "ours.rec", Path(d) / "plain.rec"
        best = best_of(
            asked.repeats,
            {
                "write, plain": lambda: plain_write(plain, payload, total),
                "write": lambda: write_records(ours, payload, total),
                "read, plain": lambda: plain_read(plain, mixed),
                "read": lambda: our_read(ours, mixed),
                "labels of all": lambda: RecDataset(ours),
            },
        )
        assert (
            ours.read_bytes() == plain.read_bytes()
            and ours.with_suffix(".idx").read_bytes() == plain.with_suffix(".idx").read_bytes()
        )
    print(
        json.dumps(
            dict(
                bytes_per_image=round(np.mean([len(i) for i in images])),
                records=total,
                records_per_s={k: round(total / s) for k, s in best.items()},
                ratio_to_plain={k: round(best[f"{k}, plain"] / best[k], 2) for k in ("write", "read")},
                machine=platform.machine(),
                cores=os.cpu_count(),
            ),
            indent=1,
        )
    )
