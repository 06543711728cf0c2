"""Pictures/s that are read, decoded and mirrored for the training of a recogniser, as a ratio to arcface_torch's way.

    python bench/bench_loading.py [--pictures 20000] [--batch 128] [--workers 2] [--repeats 3]

The baseline follows the rules of arcface_torch's `MXFaceDataset` on the same .rec, with the same number of worker
processes, without mxnet: an index, then for each picture a seek, a header, OpenCV's JPEG decoder, a mirror image with
probability 1/2, and a normalised float tensor; torch's `DataLoader` shuffles and collates. Ours is what
`train_recogniser` reads: 8-bit pictures, decoded and mirrored in the workers, a batch at a time, which become floats on
the device. Needs opencv-python. Prints JSON; each figure is the best of `repeats`, the ways taking turns.
"""

import argparse
import json
import struct
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from timing import best_of
from torch.utils.data import DataLoader, Dataset

from facesyn.core.batches import batches_ahead
from facesyn.core.images import encode_image, to_float
from facesyn.data.conversion import convert
from facesyn.data.image_sets import Encoded
from facesyn.data.opening import open_faces
from facesyn.data.pictures import reader
from facesyn.nets.recogniser import Recipe, _batches


def made_up(folder, count):
    "A .rec of `count` rendered-size pictures of about 4 kB, 50 a person"
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 14, 14, 3)).repeat(8, 1).repeat(8, 2)
    jpegs = [
        encode_image(x, ".jpg") for x in (coarse + rng.integers(-6, 7, coarse.shape)).clip(0, 255).astype(np.uint8)
    ]
    labels = np.arange(count) // 50
    card = dict(name="Made up", source="random patterns", method="none", licence="CC0-1.0", limits="shows nothing")
    convert(
        Encoded(labels, [f"p{k}" for k in range(labels[-1] + 1)], lambda k: jpegs[k % 64]), folder, "rec", card=card
    )
    return float(np.mean([len(j) for j in jpegs]))


class Plain(Dataset):
    "The rules of MXFaceDataset"

    def __init__(self, path):
        lines = (line.split("\t") for line in path.with_suffix(".idx").read_text().splitlines())
        self.offsets, self.file, self.path = {int(k): int(at) for k, at in lines}, None, path
        self.keys, self.file = range(1, int(self.record(0)[1][0])), None  # each worker opens it anew

    def record(self, key):
        self.file = self.file or open(self.path, "rb")
        self.file.seek(self.offsets[key])
        _, length = struct.unpack("<II", self.file.read(8))
        data = self.file.read(length)
        flag, label, _, _ = struct.unpack("<IfQQ", data[:24])
        return data[24 + 4 * flag :], np.frombuffer(data, "<f4", flag, 24) if flag else (label,)

    def __len__(self):
        return len(self.keys)

    def __getitem__(self, k):
        jpeg, label = self.record(self.keys[k])
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        image = torch.from_numpy(image).permute(2, 0, 1).contiguous().float().div(255)
        image = image.flip(-1) if torch.rand(1) < 0.5 else image
        return image.sub_(0.5).div_(0.5), torch.tensor(label[0]).long()


def theirs(path, batch, workers):
    "All batches of an epoch"
    cv2.setNumThreads(1)
    for images, labels in DataLoader(Plain(path), batch, shuffle=True, drop_last=True, num_workers=workers):
        assert images.shape[1:] == (3, 112, 112) and len(labels) == batch


def ours(path, batch, workers):
    "All batches of an epoch, as floats"
    faces = open_faces(str(path), 112)
    steps = len(faces) // batch
    batch_at = _batches(reader(faces, 0), torch.as_tensor(faces.labels), Recipe(batch=batch))
    take = batches_ahead(batch_at, lambda step: [(step * batch, batch)], steps, workers)
    for step in range(steps):
        for found in take(step):
            assert to_float(found["images"]).shape == (batch, 3, 112, 112) and len(found["labels"]) == batch


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20000)
    for name, default in dict(batch=128, workers=2, repeats=3).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as d:
        size = made_up(Path(d) / "set", asked.pictures)
        how = Path(d) / "set/train.rec", asked.batch, asked.workers
        best = best_of(asked.repeats, {"MXFaceDataset's rules": lambda: theirs(*how), "ours": lambda: ours(*how)})
    per_s = {k: round(asked.pictures / s) for k, s in best.items()}
    first, second = best.values()
    print(
        json.dumps(
            dict(bytes_per_picture=round(size), workers=asked.workers, per_s=per_s, ratio=round(first / second, 2))
        )
    )
