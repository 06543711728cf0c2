"""Several processes, over gloo on the CPU, are one process that is faster: the same weights, one record of them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from facesyn.core.images import generator
from facesyn.core.training import Keep, Optim
from facesyn.diffusion.latents import Patches
from facesyn.methods.cemiface_training import CemiFaceRecipe, train_cemiface
from facesyn.methods.id3 import ID3Weights
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.nets.encoders import Encoder, embed

pytestmark = pytest.mark.distributed
PICTURES = torch.randint(0, 256, (40, 16, 16, 3), dtype=torch.uint8, generator=generator(1))
# What makes rounding large is left out: a bias before a group of one channel has no gradient but rounding, which Adam
# makes as large as any, and from predicted noise the one-step estimate is divided by sqrt(abar_t), .006 at the end
HOW = dict(batch=16, unet=dict(channels=(64, 64), head_dim=32), prediction="v_prediction", drop=(0.2, 0.2))


def eyes():
    torch.manual_seed(0)
    return Encoder(nn.Sequential(nn.Flatten(), nn.Linear(768, 8)), size=16)


def id3(out, steps, accumulate=1):
    told = dict(width=32, hidden=(8,), weights=ID3Weights(share=0.25), optim=Optim(5e-4, accumulate=accumulate))
    y, recipe = embed(eyes(), PICTURES, flip=False), ID3Recipe(steps, **told, **HOW)
    return train_id3(PICTURES, y, np.zeros((40, 4)), eyes(), recipe, Keep(out, workers=1), Patches(2))


def cemiface(out, steps, accumulate=1):
    recipe = CemiFaceRecipe(steps, optim=Optim(5e-4, accumulate=accumulate), **HOW)
    return train_cemiface(PICTURES, eyes(), recipe, Keep(out), Patches(2))


def launched(processes, *told):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", __file__]
    ended = subprocess.run([*command, *map(str, told)], capture_output=True, text=True, timeout=300)
    assert not ended.returncode, ended.stderr[-3000:]


def weights(out):
    return {
        k: v for k, v in load_file(Path(out) / "checkpoint.safetensors").items() if k.startswith(("model.", "ema."))
    }


@pytest.mark.parametrize("method", ["id3", "cemiface"])
def test_two_processes_end_in_the_weights_of_one(method, tmp_path):
    torch.set_num_threads(1)
    globals()[method](tmp_path / "one", 20)
    one = weights(tmp_path / "one")
    first = globals()[method](tmp_path / "first", 1).unet.state_dict()
    moved = max((v - one[f"model.unet.{k}"]).abs().max() for k, v in first.items())
    globals()[method](tmp_path / "parts", 20, accumulate=4)
    launched(2, method, tmp_path / "two", 20)
    for other in ("parts", "two"):
        apart = max((v - one[k]).abs().max() for k, v in weights(tmp_path / other).items())
        assert apart < 1e-4 < 5e-3 < moved, f"{other}: {apart}, of {moved}"
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("one", "two")]
    assert len({len(log.splitlines()) for log in logs}) == 1


def test_one_goes_on_where_two_stopped(tmp_path):
    torch.set_num_threads(1)
    id3(tmp_path / "one", 12)
    launched(2, "id3", tmp_path / "both", 6)
    id3(tmp_path / "both", 12, accumulate=2)
    one = weights(tmp_path / "one")
    assert max((v - one[k]).abs().max() for k, v in weights(tmp_path / "both").items()) < 1e-4


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="a batch of 16 cannot be shared by 3 processes"):
        launched(3, "id3", tmp_path, 1)


def apart(out, steps):
    "Each process has a folder of its own, as on machines that share none"
    id3(out / os.environ["RANK"], steps)


def test_processes_that_do_not_see_one_folder_are_refused(tmp_path):
    torch.set_num_threads(1)
    id3(tmp_path / "0", 2)
    with pytest.raises(AssertionError, match="processes differ: 2 and 0 updates done in .*, do all see that folder"):
        launched(2, "apart", tmp_path, 4)


if __name__ == "__main__":
    torch.set_num_threads(1)
    globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
