"""What the diffusion floor refuses, and the words in which it does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from facesyn.core.checks import refused
from facesyn.core.training import Keep, Optim
from facesyn.diffusion.latents import EvenPatches, Patches, even_patches, open_vae, stored_latents
from facesyn.diffusion.pipeline import FacePipeline
from facesyn.diffusion.sampling import Guidance, guidance_of, interval_options
from facesyn.diffusion.schedule import error_weight, prediction_type, signal_noise
from facesyn.diffusion.text_to_image import build_text_encoder, build_tokenizer, build_vae, sd_scheduler, text_pipeline
from facesyn.diffusion.training import check_drop, check_faces, check_share, face_batches, train
from facesyn.diffusion.unet import build_unet
from facesyn.methods import CemiFacePipeline, ID3Pipeline
from facesyn.methods.id3 import ID3Conditions

PICTURES = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NAN, INF = float("nan"), float("inf")
DDIM = DDIMScheduler(timestep_spacing="trailing")


def net(width=16):
    return build_unet(8, (8, 8), width, head_dim=8)


def pipe():
    return FacePipeline(net(), ID3Conditions(6, (8, 8), 16), DDIM)


CALLS = [
    (lambda: prediction_type(FlowMatchEulerDiscreteScheduler()), "FlowMatchEulerDiscreteScheduler", "variance"),
    (lambda: prediction_type(DDIMScheduler(prediction_type="sample")), "DDIMScheduler", "'sample'"),
    (lambda: signal_noise(DDIM, torch.tensor(0.5), torch.zeros(1)), "t=0.5", "whole steps"),
    (lambda: error_weight(DDIM, torch.tensor([1]), "snr"), "'snr'", "min_snr"),
    (lambda: build_unet(9), "size=9", "halved"),
    (lambda: build_unet(8, (8, 10), head_dim=8), "head_dim=8", "(10,)"),
    (lambda: build_unet(8, kind="film"), "'film'", "added_kv"),
    (lambda: even_patches(PICTURES, 4, 2.0), "power=2.0"),
    (lambda: even_patches(PICTURES, 4, NAN), "power=nan"),
    (lambda: even_patches(torch.zeros(4, 16, 16, 3, dtype=torch.uint8), 4), "all patches are the same"),
    (lambda: face_batches(PICTURES, dict(left=torch.zeros(5, 3))), "6 images", "'left': 5"),
    *((lambda drop=drop: check_drop(drop), "drop=") for drop in ((0.5,), 0.5, (1.5, 0), (NAN, 0.0), (0, 0, 0))),
    *((lambda share=share: check_share(share), "share=") for share in (0.0, -0.5, 2, NAN, "1")),
    *((lambda x=x: check_faces(x), "uint8 images") for x in (PICTURES / 255, PICTURES[:, :4], PICTURES[:0])),
    (lambda: Guidance(dict(m=-1.0)), "scale of m"),
    (lambda: Guidance(dict(identity="2")), "identity is '2'"),
    (lambda: Guidance(dict(identity=NAN)), "identity is nan"),
    (lambda: Guidance(dict(identity=INF)), "identity is inf"),
    *(
        (lambda pair=pair: Guidance(interval=pair), "guidance_interval")
        for pair in ((0.7, 0.2), (0.7,), 0.5, {0.0, 1.0})
    ),
    (lambda: Guidance(shown_below=2.0), "shown_below=2.0"),
    (lambda: Guidance(shown_below="0.5"), "shown_below='0.5'"),
    (lambda: guidance_of(("identity", "m"), dict(attribute=2.0)), "names attribute", "identity, m"),
    (lambda: guidance_of(("identity", "m"), dict(m=2.0), unknown=["m"]), "no m is given"),
    (lambda: guidance_of(("identity", "m"), dict(m=2.0), negative=["identity"]), "would do nothing"),
    (lambda: interval_options(DDIM, 5, 7.5, (0.7, 0.3)), "interval"),
    (lambda: interval_options(DDIM, 5, 1.0, (0.3, 0.7)), "above 1"),
    (lambda: pipe().check("y", torch.zeros(2, 3), 5, 3), "y has shape (2, 3)", "(5, 3)"),
    (lambda: pipe().sample(1, None, 1, 0.0, None, None, "jpg"), "'jpg'", "pil, np or pt"),
    (lambda: FacePipeline(net(24), ID3Conditions(6, (8, 8), 16), DDIM), "16 wide", "24"),
    (lambda: FacePipeline(net(), ID3Conditions(6, (8, 8), 16), FlowMatchEulerDiscreteScheduler()), "FlowMatch"),
]


@pytest.mark.parametrize("row", CALLS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


@pytest.mark.parametrize("pipeline", [ID3Pipeline, CemiFacePipeline])
@pytest.mark.parametrize("path", [Path("nowhere"), Path("no/where"), "./where", "a/path/that/is/not/there", "/nowhere"])
def test_a_local_path_that_is_not_there(pipeline, path):
    "No network is asked for it"
    refused(lambda: pipeline.from_pretrained(path), str(path), "no such folder", kind=FileNotFoundError)


def test_weights_that_are_no_numbers(tmp_path):
    broken = ID3Pipeline(net(), ID3Conditions(6, (8, 8), 16), DDIM)
    with torch.no_grad():
        broken.unet.conv_out.bias[0] = NAN
    broken.save_pretrained(tmp_path)
    refused(lambda: ID3Pipeline.from_pretrained(tmp_path), "conv_out.bias")


def test_text_pipelines_whose_parts_do_not_fit():
    tokens = build_tokenizer()
    words, unet = build_text_encoder(tokens, 32, 1), build_unet(16, (32, 32), 64, 4, 1, 32, "cross", False)
    narrow = build_unet(16, (32, 32), 32, 3, 1, 32, "cross", False)
    refused(lambda: text_pipeline(build_vae(32, (16, 16)), words, tokens, unet, sd_scheduler()), "32 wide", "64")
    refused(lambda: text_pipeline(build_vae(32, (16, 16)), words, tokens, narrow, sd_scheduler()), "4 channels", "3")


def test_folders_of_autoencoders(tmp_path):
    refused(lambda: open_vae(tmp_path / "none"), "none", kind=FileNotFoundError)
    Patches().save_pretrained(tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    refused(lambda: open_vae(tmp_path), "no weights", kind=FileNotFoundError)
    (tmp_path / "config.json").write_text("[]")
    refused(lambda: open_vae(tmp_path), "config.json", "expected an object")
    (tmp_path / "config.json").write_text("{}")
    refused(lambda: open_vae(tmp_path), "_class_name is None", EvenPatches.__name__)


def test_latents_that_are_not_finite(tmp_path):
    white = np.full((2, 4, 4, 3), 255, np.uint8)
    refused(lambda: stored_latents(Patches(1, 1e6), white, tmp_path / "latents.npy"), "image 0")


def test_training_with_other_settings_or_a_loss_that_is_no_number(tmp_path):
    def loss_fn(model, batch):
        return dict(loss=model(batch["x"]).square().mean())

    def lost(model, batch):
        return loss_fn(model, batch) | dict(identity=torch.tensor(NAN))

    def trained(loss=loss_fn, steps=2, keep=Keep(tmp_path), **more):  # noqa: B008
        options = dict(optim=Optim(1e-3, schedule="cosine"), settings=dict(data="random")) | more
        batch = dict(x=torch.ones(1, 2))
        return train(torch.nn.Linear(2, 2), lambda *at: batch, loss, steps, 1, keep=keep, **options)

    trained()
    for other, words in (
        (dict(optim=Optim(2e-3, schedule="cosine")), "lr: 0.001 -> 0.002"),
        (dict(settings=dict(data="else")), "data: 'random' -> 'else'"),
        (dict(steps=3), "steps: 2 -> 3"),
    ):
        refused(lambda: trained(**other), words)
    odd = Optim(accumulate=2)
    refused(lambda: trained(keep=Keep(), optim=odd), "a batch of 1 cannot be shared by 1 processes with 2 parts each")
    refused(lambda: trained(lost, keep=Keep()), "step 1", "identity", kind=FloatingPointError)
