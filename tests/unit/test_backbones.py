"""Recognition networks against a second writing of them, by the names of their tensors."""

import torch
import torch.nn.functional as F

from facesyn.core.images import generator
from facesyn.nets.backbones import MobileFaceNet, load_recogniser, recogniser

BLOCKS = (1, 2, 1, 0)


def mobilefacenet(t, x, blocks):
    "MobileFaceNet with tensors `t`"

    def conv(name, x, stride=1, groups=1, pad=0, prelu=True):
        x = F.conv2d(x, t[f"{name}.layers.0.weight"], None, stride, pad, 1, groups)
        w, b, mean, var = (
            t[f"{name}.layers.1.{k}"][:, None, None] for k in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / (var + 1e-5).sqrt() * w + b
        return torch.where(x > 0, x, x * t[f"{name}.layers.2.weight"][:, None, None]) if prelu else x

    def narrow(name, x, stride=1):
        h = conv(f"{name}.layers.0", x)
        return conv(f"{name}.layers.2", conv(f"{name}.layers.1", h, stride, h.shape[1], 1), prelu=False)

    x = conv("layers.0", x, 2, pad=1)
    x = conv("layers.1", x, groups=64, pad=1)
    for k, n in zip((2, 4, 6), blocks[1:]):
        x = narrow(f"layers.{k}", x, 2)
        for j in range(n):
            x = x + narrow(f"layers.{k + 1}.layers.{j}", x)
    x = conv("features.layers.0", conv("conv_sep", x), groups=512, prelu=False)[:, :, 0, 0]
    x = x @ t["features.layers.2.weight"].T
    w, b, mean, var = (t[f"features.layers.3.{k}"] for k in ("weight", "bias", "running_mean", "running_var"))
    return (x - mean) / (var + 1e-5).sqrt() * w + b


@torch.no_grad()
def test_mobilefacenet(tmp_path):
    net, x = MobileFaceNet(32, BLOCKS, 1, 24), torch.rand(4, 3, 32, 32, generator=generator(0, 9)) * 2 - 1
    net.train()(x * 3)  # running means and variances of their own
    assert torch.allclose(net.eval()(x), mobilefacenet(net.state_dict(), x, BLOCKS), atol=1e-4)
    net.save_pretrained(tmp_path)
    assert torch.equal(load_recogniser(tmp_path).eval()(x), net(x))


def test_published_names():
    with torch.device("meta"):
        mobile, tiny, squeezed = MobileFaceNet(), recogniser("tiny32"), recogniser("tiny32", se=True)
    tensors = mobile.state_dict()
    assert tensors["features.layers.0.layers.0.weight"].shape == (512, 1, 7, 7)
    assert {
        "layers.1.layers.2.weight",
        "layers.3.layers.3.layers.1.layers.1.running_var",
        "layers.7.layers.1.layers.2.layers.0.weight",
        "features.layers.3.bias",
    } <= set(tensors)
    assert {
        "conv1.weight",
        "layer1.0.bn1.weight",
        "layer1.0.downsample.1.running_var",
        "layer3.1.conv2.weight",
        "bn2.bias",
        "fc.bias",
        "features.weight",
    } <= set(tiny.state_dict())
    assert not any(".se." in k for k in tiny.state_dict()) and "layer4.0.se.fc2.weight" in squeezed.state_dict()
