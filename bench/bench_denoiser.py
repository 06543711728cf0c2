"""Seconds of an update of a denoiser with its convolutions in channels_last, as a ratio to contiguous ones.

    python bench/bench_denoiser.py                   # the U-Nets of the 32 and 64 pixel profiles; a core, or a GPU

`train` keeps weights contiguous on a CPU and channels_last on a GPU: this is what says so. Forward and backward pass on
32 faces, float32 and bf16, taking turns, the best of five. Prints a table.
"""

import argparse

import torch
from timing import best_of
from torch.nn.utils import convert_conv2d_weight_memory_format

from facesyn.core.images import pick_device
from facesyn.diffusion.unet import build_unet, denoise

NETWORKS = {
    "64 px, patches of 4": dict(in_channels=48, channels=(96, 128, 160), attention_levels=2),
    "32 px, patches of 2": dict(in_channels=12, channels=(64, 96, 96), attention_levels=1),
}


def update(network, layout, precision, device):
    "A call that runs a forward and a backward pass of a network with random weights on 32 faces"
    torch.manual_seed(0)
    unet = convert_conv2d_weight_memory_format(
        build_unet(16, condition_dim=512, **network).to(device), getattr(torch, layout)
    )
    x, tokens = torch.randn(32, network["in_channels"], 16, 16, device=device), torch.randn(32, 2, 512, device=device)
    t, pooled = torch.randint(1000, (32,), device=device), torch.zeros(32, 512, device=device)

    def call():
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = denoise(unet, x, t, tokens, pooled)
        output.float().square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    call()
    return call


def main(device):
    device = pick_device(device)
    for name, network in NETWORKS.items():
        for precision in ("no", "bf16"):
            ways = {w: update(network, w, precision, device) for w in ("contiguous_format", "channels_last")}
            best = best_of(5, ways)
            ratio = best["channels_last"] / best["contiguous_format"]
            print(f"{name}, precision {precision}: channels_last takes {ratio:.2f} x the time of contiguous weights")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    main(**vars(parser.parse_args()))
