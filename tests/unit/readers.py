"""How others read what is written here: the rules of their loaders, from their sources, in code of our own.

arcface_torch `dataset.py`, `utils/utils_config.py` · AdaFace `data.py`, `dataset/` · CVLface's `MXFaceDataset` · NVIDIA
DALI `fn.readers.mxnet` · torchvision `ImageFolder` · Vec2Face `dataloader/training_loader.py` · SOTA-FR
`data/data_loader_train_lmdb.py` · insightface `load_bin`."""

import importlib
import os
import pickle
import struct
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's


def rgb(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


class MXReader:
    """Reads as arcface_torch's MXFaceDataset, AdaFace's BaseMXDataset and CVLface do, by keys and the flag of key 0,
    with a reader of its own"""

    def __init__(self, root):
        self.data = (Path(root) / "train.rec").read_bytes()
        self.idx = {
            int(line.split("\t")[0]): int(line.split("\t")[1])
            for line in (Path(root) / "train.idx").read_text().splitlines()
        }
        flag, label, _ = self.unpacked(0)
        self.imgidx = list(range(1, int(label[0]))) if flag > 0 else list(self.idx)

    def unpacked(self, key):
        at, payload = self.idx[key], b""
        while True:
            magic, lrec = struct.unpack_from("<II", self.data, at)
            assert magic == 0xCED7230A
            length, flag = lrec & (2**29 - 1), lrec >> 29
            payload += self.data[at + 8 : at + 8 + length]
            at += 8 + (length + 3) // 4 * 4
            if flag in (0, 3):
                break
            payload += MAGIC
        flag, label, number, _ = struct.unpack_from("<IfQQ", payload)
        return (
            (flag, np.frombuffer(payload, "<f4", flag, 24), payload[24 + 4 * flag :])
            if flag
            else (flag, label, payload[24:])
        )

    def __getitem__(self, index):
        flag, label, image = self.unpacked(self.imgidx[index])
        return rgb(image), torch.tensor(label, dtype=torch.long).item()  # raises on two labels

    def __len__(self):
        return len(self.imgidx)


def dali(root):
    "(label, image) of every record: DALI skips no header and takes the first label"
    reader = MXReader(root)
    records = [reader.unpacked(key) for key in reader.idx]
    return [(float(np.ravel(label)[0]), rgb(image)) for _, label, image in records]


class ImageFolder:
    "torchvision's: a class is a folder at the top, numbered in alphabetical order; no class may be without an image"

    def __init__(self, root):
        self.classes = sorted(e.name for e in os.scandir(root) if e.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"Couldn't find any class folder in {root}.")
        self.samples = []
        for label, name in enumerate(self.classes):
            found = [
                os.path.join(folder, file)
                for folder, _, files in sorted(os.walk(os.path.join(root, name), followlinks=True))
                for file in sorted(files)
                if file.lower().endswith(EXTENSIONS)
            ]
            if not found:
                raise FileNotFoundError(f"Found no valid file for the classes {name}")
            self.samples += [(path, label) for path in found]

    def __getitem__(self, index):
        path, label = self.samples[index]
        return rgb(Path(path).read_bytes()), label

    def __len__(self):
        return len(self.samples)


def arcface_config(repository, argument):
    "arcface_torch's `get_config`, started in `repository` with the argument `configs/NAME`; then the dataset it opens"
    assert argument.startswith("configs/")
    name = os.path.splitext(os.path.basename(argument))[0]
    easydict = ModuleType("easydict")
    easydict.EasyDict = type(
        "EasyDict", (dict,), dict(__setattr__=dict.__setitem__, __getattr__=lambda self, k: self[k])
    )
    before = sys.modules.get("easydict")
    sys.modules["easydict"] = easydict
    sys.path.insert(0, str(repository))
    try:
        for module in [m for m in sys.modules if m.split(".")[0] == "configs"]:
            del sys.modules[module]
        importlib.invalidate_caches()
        config = dict(importlib.import_module("configs.base").config)
        config.update(importlib.import_module(f"configs.{name}").config)
    finally:
        sys.path.remove(str(repository))
        sys.modules.pop("easydict")
        if before:
            sys.modules["easydict"] = before
    return SimpleNamespace(**config)


def arcface_dataset(rec):
    "What its `get_dataloader` opens: a .rec if `rec` holds one, else a folder"
    if all((Path(rec) / f"train.{ending}").exists() for ending in ("rec", "idx")):
        return MXReader(rec)
    return ImageFolder(rec)


def adaface_dataset(arguments):
    "What AdaFace opens for the words of its command"
    given = dict(zip(arguments, arguments[1:]))
    root = os.path.join(given["--data_root"], given["--train_data_path"])
    found = MXReader(root) if "--use_mxrecord" in arguments else ImageFolder(os.path.join(root, "imgs"))
    if isinstance(found, ImageFolder):
        assert len(found.classes) == int(given["--custom_num_class"])
    return found


class LMDB:
    "Vec2Face's sets, as SOTA-FR trains on them; with `feature`, as Vec2Face itself is trained"

    def __init__(self, path, feature=False):
        import lmdb
        import msgpack

        self.env = lmdb.open(str(path), subdir=os.path.isdir(path), readonly=True, lock=False, readahead=False)
        with self.env.begin() as txn:
            self.length, self.keys, self.classnum = (
                msgpack.loads(txn.get(f"__{name}__".encode())) for name in ("len", "keys", "classnum")
            )
        self.feature, self.unpack = feature, msgpack.loads

    def __getitem__(self, index):
        with self.env.begin() as txn:
            row = self.unpack(txn.get(self.keys[index]))
        if self.feature:
            return rgb(row[0]), torch.tensor(np.load(BytesIO(row[1]), allow_pickle=True)), row[2]
        return rgb(row[0]), row[1]

    def __len__(self):
        return self.length

    def close(self):
        self.env.close()


def load_bin(path):
    "insightface's: pairs of images, and whether each is of one person"
    bins, issame = pickle.loads(Path(path).read_bytes(), encoding="bytes")  # written by the test that calls this
    assert len(bins) == 2 * len(issame)
    return [rgb(np.asarray(image).tobytes() if not isinstance(image, bytes) else image) for image in bins], issame
