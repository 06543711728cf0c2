"""Small files that ask for much memory or time: each is refused by an error that names it, or read in little."""

import io
import json
import lzma
import os
import pickle
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from fuzz import MEMORY, measured
from PIL import Image

from facesyn.core import doors
from facesyn.core.checks import refused
from facesyn.core.images import PHOTOGRAPHS, decode_image, encode_image, read_image
from facesyn.core.networks import opened
from facesyn.data.array_files import array_faces, read_array, read_arrays
from facesyn.data.bins import bin_to_npz, read_bin
from facesyn.data.containers import open_folder, open_tars
from facesyn.data.pairs import array_pairs
from facesyn.data.parquet_sets import open_parquet
from facesyn.diffusion.latents import open_vae
from facesyn.methods.id3_sampling import ID3Pipeline
from facesyn.nets.attributes import AttributeNet
from facesyn.nets.encoders import load_encoder

SHIPPED = Path(__file__).parents[2] / "data" / "models"
ZEROS = np.zeros(2**23, np.uint8)
JPEG = encode_image(np.zeros((8, 8, 3), np.uint8), ".jpg")


@pytest.fixture(autouse=True)
def little(monkeypatch):
    "What is refused beyond 256 MiB is refused beyond 1 MiB here"
    monkeypatch.setattr(doors, "MAX_BYTES", 2**20)


def npy_header(shape) -> bytes:
    "A .npy that claims the shape, and has nothing of it"
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, dict(descr="|u1", fortran_order=False, shape=shape))
    return out.getvalue()


def test_arrays(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, jpeg=ZEROS, offsets=[0, len(ZEROS)], pairs=[[0, 0]], issame=[True])
    for call in (read_arrays, lambda p: array_faces(p, 8), lambda p: array_pairs(p, 8)):
        refused(lambda: call(path), "bomb.npz", "FACESYN_MAX_BYTES")  # noqa: B023
    assert read_arrays(path, ["issame"])["issame"].tolist() == [True]
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("jpeg.npy", npy_header((10**13,)))
    refused(lambda: read_arrays(path), "bomb.npz", "claims 10,000,000,000,000")
    (tmp_path / "bomb.npy").write_bytes(npy_header((10**6, 10**6)) + bytes(99))
    for mapped in (False, True):
        refused(lambda: read_array(tmp_path / "bomb.npy", mapped), "bomb.npy", "claims 1,000,000,000,000")  # noqa: B023


def test_pair_files(tmp_path):
    path = tmp_path / "bomb.bin"
    path.write_bytes(lzma.compress(bytes(2**23)))
    refused(lambda: read_bin(path), "bomb.bin", "FACESYN_MAX_BYTES")
    picture = JPEG + bytes(5 * 2**20)
    path.write_bytes(pickle.dumps(([picture] * 300, [True, False] * 75)))  # the picture once, and 299 references
    outcome, said, memory = measured(lambda p: bin_to_npz(p, tmp_path / "x.npz"), path)
    assert outcome == "read" and memory < MEMORY, (said, memory)


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table(dict(image=[bytes(2**22), bytes(2**22 + 1)], label=[0, 1])), path, compression="zstd")
    refused(lambda: open_parquet([path]).read(0), "bomb.parquet", "FACESYN_MAX_BYTES")
    pq.write_table(pa.table(dict(image=pa.nulls(10**6, pa.binary()), label=np.zeros(10**6, int))), path)
    refused(lambda: open_parquet([path]), "bomb.parquet", "FACESYN_MAX_BYTES")
    often = pa.DictionaryArray.from_arrays(np.zeros(1500, np.int32), pa.array([JPEG + os.urandom(2**19)]))
    for image in (often, pa.StructArray.from_arrays([often], ["bytes"])):
        pq.write_table(pa.table(dict(image=image, label=np.zeros(1500, int))), path)
        outcome, said, memory = measured(lambda p: open_parquet([p]).read(700), path)
        assert outcome == "read" and memory < MEMORY, (said, memory)


def sparse_entry(size: int) -> bytes:
    "The header of a sparse file of `size` bytes, in GNU's old form, without content"
    member = tarfile.TarInfo("0.jpg")
    member.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[483:495], head[148:156] = b"%011o\0" % size, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_tars(tmp_path):
    path = tmp_path / "bomb.tar"
    path.write_bytes(sparse_entry(2**33 - 1) + bytes(10240))
    refused(lambda: open_tars([path]), "bomb.tar", "0.jpg claims 8,589,934,591 bytes")
    with tarfile.open(path, "w") as tar:
        for name, size in (("0.jpg", 2**23), ("0.cls", 1)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(b"0" * size))
    refused(lambda: open_tars([path]), "bomb.tar", "0.jpg", "FACESYN_MAX_BYTES")
    member = tarfile.TarInfo("0.jpg")
    member.size, member.type = 2**30, tarfile.GNUTYPE_LONGNAME
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(lambda: open_tars([path]), "bomb.tar is not a whole tar")


def test_pictures(tmp_path):
    (tmp_path / "set" / "ann").mkdir(parents=True)
    (tmp_path / "set" / "ann" / "0.jpg").write_bytes(JPEG + bytes(2**23))
    refused(lambda: open_folder(tmp_path / "set").read(0), "0.jpg", "FACESYN_MAX_BYTES")
    Image.new("RGBA", (8000, 8000)).save(tmp_path / "bomb.png", compress_level=1)
    outcome, said, memory = measured(lambda p: read_image(p, 32, PHOTOGRAPHS), tmp_path / "bomb.png")
    assert outcome == "read" and memory < MEMORY, (said, memory)
    out = io.BytesIO()
    Image.new("RGB", (4700, 4700)).save(out, "WEBP", lossless=True, quality=0, method=0)
    refused(lambda: decode_image(out.getvalue(), name="bomb.webp"), "bomb.webp", "4700 x 4700 pixels")


OPENED = dict(identity=load_encoder, attributes=AttributeNet.from_pretrained, id3=ID3Pipeline.from_pretrained)
CONFIGS = [
    ("identity", "config.json", dict(layers=[10**7, 1, 1, 1])),
    ("identity", "config.json", dict(dim=10**12)),
    ("identity", "config.json", dict(widths=[16] * 10**5)),
    ("identity", "config.json", dict(layers=[1, 1, 3, 1])),  # weights that are not there, and would be random
    ("identity", "config.json", dict(layers=[1, 1, 1, 1])),  # weights that nobody takes
    ("attributes", "config.json", dict(layers=[1, 10**7])),
    ("attributes", "config.json", dict(layers="many")),
    ("id3", "unet/config.json", dict(layers_per_block=10**7)),
    ("id3", "unet/config.json", dict(block_out_channels=[10**10] * 3)),
    ("id3", "conditions/config.json", dict(width=10**11)),
    ("id3", "conditions/config.json", dict(hidden=[512] * 10**5)),
    ("id3", "scheduler/scheduler_config.json", dict(num_train_timesteps=10**12)),
    ("id3", "model_index.json", dict(unet=["nowhere"])),
]


@pytest.mark.parametrize("row", CONFIGS, ids=lambda row: f"{row[0]} {row[1]} {[*row[2]][0]}")
def test_networks(row, tmp_path):
    kind, name, change = row
    shutil.copytree(SHIPPED / kind, tmp_path / "net")
    file = tmp_path / "net" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    started = time.monotonic()
    refused(lambda: OPENED[kind](tmp_path / "net"), str(tmp_path / "net"))
    assert time.monotonic() - started < 20


def test_pipelines_of_others(tmp_path):
    shutil.copytree(SHIPPED / "idbooth", tmp_path / "sd")
    base = dict(safety_checker=None, dtype=torch.float32)
    assert opened(StableDiffusionPipeline.from_pretrained, tmp_path / "sd", **base).unet
    file = tmp_path / "sd" / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(num_hidden_layers=10**7)))
    refused(lambda: opened(StableDiffusionPipeline.from_pretrained, tmp_path / "sd", **base), str(file), "10000000")


def test_autoencoders(tmp_path):
    shutil.copytree(SHIPPED / "idbooth" / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(layers_per_block=10**7)))
    refused(lambda: open_vae(tmp_path / "vae"), str(file), "layers_per_block")
    file.write_text("[1]")
    refused(lambda: open_vae(tmp_path / "vae"), str(file), "object")


def test_checkpoints_of_others(tmp_path):
    path = tmp_path / "bomb.pth"  # first a view of one number
    torch.save({"fc.weight": torch.zeros(1).expand(2**14, 2**14)}, path)
    refused(lambda: load_encoder(path), "bomb.pth", "FACESYN_MAX_BYTES")
    state = {
        "layer1.9999999.conv2.weight": torch.zeros(16, 16, 3, 3),
        "layer1.0.conv2.weight": torch.zeros(16, 16, 3, 3),
    }
    torch.save(state | {"fc.weight": torch.zeros(8, 16)}, path)
    refused(lambda: load_encoder(path), "bomb.pth", "layers")
