"""Images/s of folder -> .rec, as the bytes are and at another size, beside what the pixels alone cost, on one core in
one run.

    python bench/bench_convert.py [--images 3000] [--pixels 160] [--size 112] [--repeats 3]

`decode`: every JPEG decoded, nothing else; `decode, resize, encode`: by Pillow, from memory to memory, the least that a
change of size can take. Prints JSON; each figure is the best of `repeats`, the ways taking turns, and the files stay in
the page cache.
"""

import argparse
import contextlib
import io
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from timing import best_of

from facesyn.core.images import encode_image
from facesyn.data.conversion import convert

CARD = dict(name="noise", source="noise", method="noise", licence="CC0-1.0", limits="noise")


def make(root, images, pixels):
    "A folder of smooth coloured noise in JPEG, 20 images a person; returns the bytes"
    rng, kept = np.random.default_rng(0), []
    for _ in range(50):
        base = Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).resize(
            (pixels, pixels), Image.Resampling.BICUBIC
        )
        kept.append(
            encode_image(
                (np.asarray(base) + rng.normal(0, 6, (pixels, pixels, 3))).clip(0, 255).astype(np.uint8), ".jpg"
            )
        )
    for k in range(images):
        path = root / f"{k // 20:06d}" / f"{k % 20:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept[k % 50])
    return [kept[k % 50] for k in range(images)]


def decode(data):
    for d in data:
        np.asarray(Image.open(io.BytesIO(d)).convert("RGB"))


def pixels_only(data, size):
    for d in data:
        encode_image(
            np.asarray(Image.open(io.BytesIO(d)).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)), ".jpg"
        )


def converted(root, **kw):
    with tempfile.TemporaryDirectory() as out:
        convert(root, out, "rec", card=CARD, **kw)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--pixels", type=int, default=160)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as d, contextlib.redirect_stdout(io.StringIO()):
        data = make(Path(d), asked.images, asked.pixels)
        best = best_of(
            asked.repeats,
            {
                "decode": lambda: decode(data),
                "decode, resize, encode": lambda: pixels_only(data, asked.size),
                "bytes as they are": lambda: converted(d),
                "another size": lambda: converted(d, size=asked.size),
            },
        )
    print(
        json.dumps(
            dict(
                images=asked.images,
                pixels=asked.pixels,
                size=asked.size,
                bytes_per_image=round(np.mean([len(x) for x in data])),
                images_per_s={k: round(asked.images / s) for k, s in best.items()},
                another_size_over_pixels=round(best["another size"] / best["decode, resize, encode"], 3),
                as_they_are_over_decode=round(best["bytes as they are"] / best["decode"], 3),
                machine=platform.machine(),
            ),
            indent=1,
        )
    )
