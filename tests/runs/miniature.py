"""The `full` profiles from end to end, small: python tests/runs/miniature.py full|full_cemiface|full_idbooth FOLDER

Networks, sizes and losses are the profile's. Counts of steps, people and pictures are smaller, and everything that a
user brings is made here, in a checkout of its own in FOLDER: rendered faces as photographs, five .bin files by our
writer, encoder and judge as .onnx of IResNet-50 and IR-SE50 with random weights, and for ID-Booth a base of the size of
Stable Diffusion 1.5 with random weights. A detector cannot be made: --detector names an SCRFD .onnx. The numbers that
come out mean nothing. What was done before a kill is kept, as in any profile.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from facesyn.core.files import write_json
from facesyn.core.images import to_float, write_image
from facesyn.data.pairs import Pairs, write_bin
from facesyn.nets.backbones import recogniser
from facesyn.rendered.faces import render_faces

ROOT = Path(__file__).parents[2]
BINS = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw")
FEW = dict(
    full="""
id3_train.optim.steps=4 id3_train.optim.batch=2 id3_train.optim.warmup=2
id3_generate.identities=3 id3_generate.images=2 id3_generate.sampler.steps=2 id3_generate.sampler.batch=6
recognise.recogniser.epochs=1 recognise.recogniser.batch=3 recognise.seeds=[0]
id3_report.people=2 id3_report.images=2 id3_report.sampler.steps=2""",
    full_cemiface="""
cemiface_train.optim.steps=4 cemiface_train.optim.batch=2 cemiface_train.optim.warmup=2
inquiries.wanted=3 inquiries.screen.limit=1.0
cemiface_generate.images=2 cemiface_generate.sampler.steps=2 cemiface_generate.sampler.batch=6
recognise.recogniser.epochs=1 recognise.recogniser.batch=3 recognise.seeds=[0] recognise.recogniser.more.milestones=[]
cemiface_report.people=2 cemiface_report.sampler.steps=2""",
    full_idbooth="""
idbooth_train.pipeline=data/base idbooth_train.priors.images=1 idbooth_train.priors.steps=1 idbooth_train.lora.steps=1
idbooth_generate.images=1 idbooth_generate.steps=1
idbooth_report.rounds=10 idbooth_report.neighbours=1
idbooth_augment.added=[1] idbooth_augment.images=4 idbooth_augment.recogniser.epochs=1
idbooth_augment.recogniser.batch=2 idbooth_augment.seeds=[0] idbooth_augment.recogniser.more.milestones=[]
recognise.recogniser.epochs=1 recognise.recogniser.batch=2 recognise.seeds=[0]
recognise.recogniser.more.milestones=[]""",
)


def write_faces(folder, first, people, images, size):
    "Rendered faces as <person>/<picture>"
    each, number = np.divmod(np.arange(people * images), images)
    for i, j, picture in zip(each, number, render_faces(first + each, number, size)[0]):
        write_image(picture, folder / f"person{i}/{j}.png")


def export(name, path):
    "A recogniser of 112 pixels as .onnx: random weights, and batch norms that saw 16 faces"
    torch.manual_seed(len(name))
    net = recogniser(name).train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    with torch.no_grad():
        net(to_float(render_faces(range(16), range(16), 112)[0]))
    axes = dict(input={0: "n"}, output={0: "n"})
    names = dict(input_names=["input"], output_names=["output"], dynamic_axes=axes)
    torch.onnx.export(net.eval(), torch.zeros(1, 3, 112, 112), path, dynamo=False, **names)


def base(folder):
    "A pipeline of the sizes of Stable Diffusion 1.5, with random weights and a small tokenizer"
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data/models/idbooth/tokenizer", model_max_length=77)
    text = CLIPTextConfig(49408, 768, 3072, 768, 12, 12, 77, bos_token_id=0, eos_token_id=tokenizer.eos_token_id)
    wide, down, up = (320, 640, 1280, 1280), "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
    blocks = dict(down_block_types=[down] * 3 + ["DownBlock2D"], up_block_types=["UpBlock2D"] + [up] * 3)
    vae = (128, 256, 512, 512)
    coders = dict(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)
    StableDiffusionPipeline(
        AutoencoderKL(**coders, block_out_channels=vae, layers_per_block=2, latent_channels=4, sample_size=512),
        CLIPTextModel(text),
        tokenizer,
        UNet2DConditionModel(64, **blocks, block_out_channels=wide, cross_attention_dim=768, attention_head_dim=8),
        PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True),
        None,
        None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def checkout(profile, folder, detector):
    "A checkout in `folder` with all that the profile needs in data/"
    for name in ("settings.ini", "nbs", "facesyn", "data/models", "data/records"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    data = folder / "data"
    write_faces(data / "faces", 0, 8, 3, 112)
    write_faces(data / "inquiry_faces", 50, 5, 1, 112)
    for k, name in enumerate(BINS):
        people = 100 + 40 * k + np.arange(40) // 2 + np.arange(40) // 2 % 2 * (np.arange(40) % 2) * 1000
        same = np.arange(20) % 2 == 0
        write_bin(
            Pairs(name, render_faces(people, np.arange(40), 112)[0].numpy(), same), data / f"benchmarks/{name}.bin"
        )
    (data / "networks").mkdir(exist_ok=True)
    if not (data / "networks/attributes").exists():
        (data / "networks/attributes").symlink_to(ROOT / "data/models/attributes")
    for name, net in dict(encoder="r50", judge="irse50").items():
        export(net, data / f"networks/{name}.onnx")
    if profile == "full_idbooth":
        write_faces(data / "people", 80, 2, 2, 512)
        told = dict(agreed=True, terms="rendered, for a test")
        write_json({f"person{k}": told for k in range(2)}, data / "people/consent.json")
        (data / "networks/scrfd.onnx").symlink_to(Path(detector).resolve())
        base(data / "base")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=FEW)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detector", help="an SCRFD .onnx, for full_idbooth")
    asked = parser.parse_args()
    if not (asked.folder / "data/networks").exists():
        checkout(asked.profile, asked.folder.resolve(), asked.detector)
    began, options = time.time(), [word for few in FEW[asked.profile].split() for word in ("-p", few)]
    where = dict(cwd=asked.folder, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    subprocess.run([sys.executable, "-m", "facesyn", "run", asked.profile, *options], check=True, **where)
    print(f"{asked.profile}: {(time.time() - began) / 60:.1f} minutes")
