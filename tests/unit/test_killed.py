"""A training killed by the operating system ends, when started again, in the same weights: a recogniser's and an ID³
generator's."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import nn

from facesyn.core.training import Keep, Optim
from facesyn.data.faces import Faces
from facesyn.diffusion.training import train
from facesyn.diffusion.unet import Denoiser, build_unet
from facesyn.methods.id3 import ID3Conditions
from facesyn.methods.id3_training import id3_batches, id3_objective
from facesyn.nets.encoders import Encoder
from facesyn.nets.recogniser import Recipe, train_recogniser

NETWORK, RECIPE = dict(size=16, layers=(1, 1), widths=(16, 16), dim=8), Recipe(epochs=3, batch=16, lr=0.05, s=16.0)


def faces(pause=0.0):
    "Six people of sixteen noise pictures; reading a batch takes `pause` seconds"
    pictures = np.random.default_rng(0).integers(0, 256, (96, 16, 16, 3), dtype=np.uint8)
    names = [f"p{k}" for k in range(6)]
    return Faces(np.arange(96) % 6, names, np.zeros((96, 4)), 16, lambda k: (time.sleep(pause), pictures[k])[1])


def recogniser(folder, pause=0.0):
    keep = Keep(folder, seconds=0.0, workers=1)
    network, log = train_recogniser(faces(pause), NETWORK, RECIPE, keep, device="cpu", memory=0)
    return network.state_dict(), log


def generator(folder, pause=0.0):
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), size=8)
    model = Denoiser(build_unet(8, (16, 16), 32, head_dim=8), ID3Conditions(8, (16, 8), 32))
    pictures, rng = torch.randint(0, 256, (24, 8, 8, 3), dtype=torch.uint8), np.random.default_rng(0)
    y = encoder(torch.randn(24, 3, 8, 8))
    scheduler = DDPMScheduler(1000)
    batches = id3_batches(pictures, y, rng.uniform(0, 60, (24, 4)), scheduler, drop=(0.1, 0.1))

    def slowly(first, count):
        time.sleep(pause)
        return batches(first, count)

    keep = Keep(folder, seconds=1.0, every=10, workers=2)
    trained = train(model, slowly, id3_objective(scheduler, encoder), 30, 4, Optim(1e-3, ema=0.9), keep)
    return trained.state_dict(), (Path(folder) / "log.jsonl").read_text()


@pytest.mark.parametrize("training", [recogniser, generator])
def test_killed_training_resumes_bit_for_bit(training, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    child = subprocess.Popen([sys.executable, __file__, training.__name__, str(killed)])
    for _ in range(1200):
        if (killed / "checkpoint.safetensors").exists():
            break
        time.sleep(0.1)
    child.kill()
    assert child.wait() == -9 and (killed / "checkpoint.safetensors").exists(), "the child ended or never saved"
    torch.set_num_threads(1)
    (weights, log), (expected, whole_log) = training(killed), training(whole)
    assert log == whole_log and all(torch.equal(weights[k], expected[k]) for k in expected)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dict(recogniser=recogniser, generator=generator)[sys.argv[1]](sys.argv[2], pause=0.5)
