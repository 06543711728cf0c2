"""Trainers of recognisers and attribute networks: stopped and called again, and what they make of a small set."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from facesyn.core.images import generator
from facesyn.core.training import Keep
from facesyn.data.faces import Faces
from facesyn.nets.attributes import AttributeRecipe, mirror, train_attributes
from facesyn.nets.backbones import MobileFaceNet
from facesyn.nets.recogniser import Recipe, train_recogniser

TOY = dict(size=16, layers=(1, 1), widths=(16, 16), dim=16)
RECIPES = {
    train_recogniser: Recipe(epochs=3, batch=32, lr=0.1, s=16.0, flip=False, shift=1, erase=0.2),
    train_attributes: AttributeRecipe(epochs=3, batch=64, lr=1e-2),
}


def patterns(people=12, each=24, size=16):
    "A coarse colour pattern a person, seen through noise; every second age is unknown"
    g, n = generator(0), people * each
    pixels = torch.rand(people, 4, 4, 3, generator=g).repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    labels = torch.arange(people).repeat_interleave(each)
    noise = torch.randn(n, size, size, 3, generator=g)
    images = ((pixels[labels] + 0.15 * noise).clamp(0, 1) * 255).byte()
    attributes = torch.rand(n, 4, generator=g) * torch.tensor([60, 60, 60, 100]) - torch.tensor([30, 30, 30, 0])
    attributes[::2, 3] = torch.nan
    return Faces(labels, [f"p{k}" for k in range(people)], attributes, size, lambda k: images[k].numpy())


def failing(faces, calls):
    "The same faces, whose reading fails after `calls` batches"
    left = [calls + 1]  # one look to tell the pictures apart

    def read(index):
        left[0] -= 1
        if left[0] < 0:
            raise OSError("pulled the plug")
        return faces.read(index)

    return replace(faces, read=read)


@pytest.mark.parametrize("train", RECIPES, ids=lambda train: train.__name__)
def test_resumes_bit_for_bit(train, tmp_path):
    faces, recipe, net = patterns(), RECIPES[train], dict(TOY, dropout=0.1) if train is train_recogniser else TOY
    whole, log = train(faces, net, recipe, device="cpu")
    where = dict(keep=Keep(tmp_path, seconds=0.0), device="cpu", memory=0)
    with pytest.raises(OSError, match="plug"):
        train(failing(faces, 6), net, recipe, **where)
    with safe_open(where["keep"].path, "pt") as f:
        assert json.loads(f.metadata()["state"])["step"] == 6
    again, relog = train(faces, net, recipe, **where)
    assert relog == log
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_mobilefacenet_learns():
    smallest = dict(size=32, blocks=(1, 0, 0, 0), scale=1, dim=16)
    net, log = train_recogniser(patterns(size=32), smallest, replace(RECIPES[train_recogniser], epochs=2), device="cpu")
    assert isinstance(net, MobileFaceNet) and log[-1]["accuracy"] > 2 / 12 and log[-1]["loss"] < log[0]["loss"]


def test_mirror():
    pictures = torch.as_tensor(patterns().read(np.arange(2)))
    images, signs = mirror(pictures, torch.ones(2, 4), torch.tensor([True, False]))
    assert signs.tolist() == [[1, -1, -1, 1], [1, 1, 1, 1]]
    assert torch.equal(images[0], pictures[0].flip(1)) and torch.equal(images[1], pictures[1])
