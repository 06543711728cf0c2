"""Checkpoints of arcface_torch and AdaFace. AdaFace's network is written here a second time, under its own names."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facesyn.core.checks import refused
from facesyn.core.images import generator
from facesyn.nets.backbones import IResNet, MobileFaceNet, recogniser
from facesyn.nets.encoders import load_encoder


def bn_noise(net):
    "Random statistics and weights in every batch norm, so that nothing cancels"
    g = generator(7)
    for m in net.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for v, low in ((m.running_mean, -0.2), (m.running_var, 0.5), (m.bias, -0.2), (m.weight, 0.5)):
                if v is not None:
                    v.data.copy_(torch.rand(v.shape, generator=g) + low)
    return net.eval()


class AdaSE(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.avg_pool, self.relu, self.sigmoid = nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Sigmoid()
        self.fc1 = nn.Conv2d(c, max(c // 16, 1), 1, bias=False)
        self.fc2 = nn.Conv2d(max(c // 16, 1), c, 1, bias=False)

    def forward(self, x):
        return x * self.sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(x)))))


class AdaBlock(nn.Module):
    def __init__(self, a, b, stride, se):
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if a == b
            else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(a),
            nn.Conv2d(a, b, 3, 1, 1, bias=False),
            nn.BatchNorm2d(b),
            nn.PReLU(b),
            nn.Conv2d(b, b, 3, stride, 1, bias=False),
            nn.BatchNorm2d(b),
        )
        if se:
            self.res_layer.add_module("se_block", AdaSE(b))

    def forward(self, x):
        return self.res_layer(x) + self.shortcut_layer(x)


class AdaNet(nn.Module):
    def __init__(self, layers, widths, dim, side, se=False):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.body = nn.Sequential(
            *(
                AdaBlock(a if k == 0 else b, b, 2 if k == 0 else 1, se)
                for n, a, b in zip(layers, (widths[0], *widths), widths)
                for k in range(n)
            )
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(widths[-1] * side**2, dim),
            nn.BatchNorm1d(dim, affine=False),
        )

    def forward(self, x):
        return self.output_layer(self.body(self.input_layer(x)))


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def test_as_many_parameters_as_published():
    with torch.device("meta"):
        assert parameters(AdaNet((3, 4, 14, 3), (64, 128, 256, 512), 512, 7)) == 43_585_600
        with_se = parameters(AdaNet((3, 4, 14, 3), (64, 128, 256, 512), 512, 7, se=True))
        assert with_se == parameters(recogniser("irse50")) - 1024 == 43_808_320


X = torch.rand(3, 3, 32, 32, generator=generator(3)) * 2 - 1


@torch.no_grad()
def test_adaface(tmp_path):
    ada = bn_noise(AdaNet((2, 1, 3), (16, 24, 32), 12, 4))
    state = {f"model.{k}": v for k, v in ada.state_dict().items()} | {"head.kernel": torch.ones(12, 5)}
    torch.save(dict(state_dict=state), tmp_path / "ada.ckpt")
    assert torch.allclose(load_encoder(tmp_path / "ada.ckpt").features(X), ada(X.flip(1)), atol=1e-4)
    irse = bn_noise(AdaNet((2, 1, 3), (16, 24, 48), 12, 4, se=True))
    torch.save(irse.state_dict(), tmp_path / "irse.pt")
    encoder = load_encoder(tmp_path / "irse.pt", channels="bgr")
    assert torch.allclose(encoder.features(X), irse(X.flip(1)), atol=1e-4) and encoder.net.config.se


@torch.no_grad()
def test_arcface_torch(tmp_path):
    arc = bn_noise(IResNet(32, (2, 1, 3), (16, 24, 32), 12))
    torch.save({f"module.{k}": v for k, v in arc.state_dict().items()}, tmp_path / "backbone.pth")
    assert torch.allclose(load_encoder(tmp_path / "backbone.pth").features(X), arc(X), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [(1, 2, 0, 1), (2, 1, 1, 0)])
def test_mobilefacenet(blocks, tmp_path):
    mobile = bn_noise(MobileFaceNet(32, blocks, 1, 12))
    torch.save({f"module.{k}": v for k, v in mobile.state_dict().items()}, tmp_path / "mobile.pt")
    mobile.save_pretrained(tmp_path / "mobile")
    for name in ("mobile.pt", "mobile"):
        assert torch.allclose(load_encoder(tmp_path / name).features(X), mobile(X), atol=1e-4)
    assert tuple(load_encoder(tmp_path / "mobile.pt").net.config.blocks) == blocks


@torch.no_grad()
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("before", ["net.", "model.net.", ""])
@pytest.mark.parametrize("said", [None, "channels", "model.yaml", "config.json"])
def test_cvlface(before, name, said, tmp_path):
    "The order is what is said beside the file, or asked for; never a guess"
    ada = bn_noise(AdaNet((2, 1, 3), (16, 24, 32), 12, 4))
    state = {before + k: v for k, v in ada.state_dict().items()}
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    if said is None:
        return refused(lambda: load_encoder(tmp_path / name), name, "channels='rgb'", "model.yaml")
    for order, x in (("RGB", X), ("BGR", X.flip(1))):
        if said == "model.yaml":
            (tmp_path / said).write_text(f"input_size: [3, 112, 112]\n# color_space: 'XYZ'\ncolor_space: '{order}'\n")
        if said == "config.json":
            (tmp_path / said).write_text(json.dumps(dict(conf=dict(name="ir50", color_space=order))))
        told = dict(channels=order.lower()) if said == "channels" else {}
        assert torch.allclose(load_encoder(tmp_path / name, **told).features(X), ada(x), atol=1e-4)


@torch.no_grad()
def test_a_training_of_arcface_torch(tmp_path):
    "checkpoint_gpu_0.pt: the backbone beside the head, the optimiser and the schedule"
    arc = bn_noise(IResNet(32, (2, 1, 3), (16, 24, 32), 12))
    optimiser = torch.optim.SGD(arc.parameters(), 0.1, 0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1)
    held = dict(state_dict_backbone=arc.state_dict(), state_dict_softmax_fc=dict(weight=torch.ones(5, 12)))
    held |= dict(epoch=2, global_step=7, state_optimizer=optimiser.state_dict())
    torch.save(held | dict(state_lr_scheduler=schedule.state_dict()), tmp_path / "checkpoint_gpu_0.pt")
    assert torch.allclose(load_encoder(tmp_path / "checkpoint_gpu_0.pt").features(X), arc(X), atol=1e-4)


def test_two_networks_in_a_file(tmp_path):
    arc = IResNet(32, (1, 1, 1), (16, 16, 16), 12).state_dict()
    torch.save({f"{who}.{k}": v for who in ("student", "teacher") for k, v in arc.items()}, tmp_path / "x.pt")
    refused(lambda: load_encoder(tmp_path / "x.pt"), "x.pt holds 2 networks", "'student.', 'teacher.'")
