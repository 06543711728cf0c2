"""Steps a second and peak memory of one person's training by ID-Booth, as ratios to a plain DreamBooth-LoRA step on the
same network.

    python bench/bench_idbooth.py                    # Stable Diffusion 2.1's sizes with random weights, 512 px,
    bf16 base: needs a GPU with about 12 GB
    python bench/bench_idbooth.py --small            # the sizes of the built-in base, on any machine

The baseline does what diffusers' training example does at every step: the autoencoder and the text encoder are run on
the batch (one picture of the person, one of anybody), then the U-Net, the loss, the gradient, AdamW.
Ours have latents and words encoded once: `dreambooth` is the same loss, `triplet` adds the decoded estimate and an
encoder (an IResNet-100 at 112 px, or the small one). Prints a table and JSON.
"""

import argparse
import json
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from facesyn.core.images import pick_device
from facesyn.diffusion.text_to_image import build_text_encoder, build_tokenizer, build_vae, sd_scheduler
from facesyn.diffusion.unet import build_unet
from facesyn.methods.idbooth import BoothLoss, booth_loss
from facesyn.methods.idbooth_training import Lora, person_batches
from facesyn.nets.backbones import IResNet, recogniser
from facesyn.nets.encoders import Encoder


def networks(small, device, dtype):
    "Pixels, autoencoder, U-Net, text encoder, its tokens, encoder of faces"
    torch.manual_seed(0)
    if small:
        vae, unet, text, tokens, f = (
            build_vae(32, (32, 48)),
            build_unet(16, (48, 64, 96), 96, 4, 2, 16, "cross", False),
            build_text_encoder(build_tokenizer(), 96),
            32,
            Encoder(recogniser("tiny32", dim=64), 32),
        )
    else:
        vae = AutoencoderKL(
            sample_size=512,
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                projection_dim=512,
                hidden_act="gelu",
            )
        )
        tokens, f = 77, Encoder(IResNet(size=112, layers=(3, 13, 30, 3)), 112)
    for net in (vae, unet, text):
        net.requires_grad_(False).eval().to(device, dtype)
    return 32 if small else 512, vae, unet, text, tokens, f.to(device)


def measure(step, steps, device):
    "Seconds a step and peak bytes, after two to warm up"
    for k in range(2):
        step(k)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for k in range(steps):
        step(k)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps, torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def main(small, steps, device):
    device = pick_device(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    size, vae, unet, text, tokens, f = networks(small, device, dtype)
    scheduler, amp = sd_scheduler(), lambda: torch.autocast(device.type, torch.bfloat16, enabled=dtype != torch.float32)
    lora = Lora(unet, 4)
    optimizer = torch.optim.AdamW(lora.parameters(), 1e-4)
    pictures, ids = (
        torch.rand(2, 3, size, size, device=device, dtype=dtype) * 2 - 1,
        torch.randint(100, (2, tokens), device=device),
    )
    with torch.no_grad():
        q = vae.encode(pictures).latent_dist
        moments, words = torch.cat([q.mean, q.std], 1).float().cpu(), text(ids)[0].float().cpu()
        y = f.features(pictures.float()).cpu()
    pipe, known = SimpleNamespace(vae=vae, unet=unet, scheduler=scheduler), dict(moments=moments, y=y)
    batch_at = person_batches(pipe, *({k: v[row] for k, v in known.items()} for row in ([0], [1])), words.split(1))

    def update(loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lora.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def baseline(k):
        with amp():
            x0 = vae.encode(pictures).latent_dist.sample() * vae.config.scaling_factor
            eps, t = torch.randn_like(x0), torch.randint(1000, (2,), device=device)
            output = unet(scheduler.add_noise(x0, eps, t), t, encoder_hidden_states=text(ids)[0]).sample
            loss = sum(F.mse_loss(a.float(), b.float()) for a, b in zip(output.chunk(2), eps.chunk(2)))
        update(loss)

    def ours(method):
        def step(k):
            batch = {key: v.to(device) for key, v in batch_at(k, 1).items()}
            t, eps = torch.randint(1000, (2,), device=device), torch.randn(2, 4, *moments.shape[2:], device=device)
            with amp():
                terms = booth_loss(pipe, f, batch, t, eps, BoothLoss(method))
            update(terms["loss"])

        return step

    results = {
        name: measure(step, steps, device)
        for name, step in {
            "baseline": baseline,
            "dreambooth": ours("dreambooth"),
            "identity": ours("identity"),
            "triplet": ours("triplet"),
        }.items()
    }
    first, peak = results["baseline"]
    for name, (seconds, bytes_) in results.items():
        print(
            f"{name:12s} {1 / seconds:7.2f} steps/s  {first / seconds:5.2f} x the baseline"
            + (f"  {bytes_ / 2**30:6.2f} GiB  {bytes_ / peak:5.2f} x" if peak else "")
        )
    print(
        json.dumps(
            dict(
                device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                size=size,
                seconds={k: v[0] for k, v in results.items()},
                peak_bytes={k: v[1] for k, v in results.items()},
            )
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    main(**vars(parser.parse_args()))
