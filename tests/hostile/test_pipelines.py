"""Doors of generators and bases: what is absent asks no network, what plain diffusers makes of our folders, and what
pipelines are asked for."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    StableDiffusionPipeline,
)

from facesyn.core.checks import refused
from facesyn.core.files import shipped
from facesyn.core.images import generator
from facesyn.data.pairs import Pairs
from facesyn.diffusion.bases import open_base, save_base
from facesyn.diffusion.latents import EvenPatches, Patches, open_vae
from facesyn.diffusion.schedule import add_noise, denoising_error, error_weight, output_from_eps, prediction_type
from facesyn.diffusion.unet import build_unet
from facesyn.measure.verification import verify_pairs
from facesyn.methods import CemiFacePipeline, ID3Pipeline
from facesyn.methods.cemiface import CemiFaceConditions
from facesyn.methods.id3 import ID3Conditions
from facesyn.methods.idbooth_pictures import check_drawing, check_pipeline
from facesyn.methods.plans import bootstrap_attributes
from facesyn.nets.attributes import AttributeNet
from facesyn.nets.backbones import IResNet, MobileFaceNet, recogniser
from facesyn.nets.encoders import Encoder, embed, load_encoder
from facesyn.sphere.geometry import random_anchors
from facesyn.sphere.spreading import spread

NAN, INF = float("nan"), float("inf")
NETWORKS = [IResNet, MobileFaceNet, AttributeNet, Patches, EvenPatches, ID3Conditions, CemiFaceConditions]
PIPELINES = [ID3Pipeline, CemiFacePipeline]
MISSING = ["nowhere", "own/nowhere", "data/models/id4", "./nowhere", "/nowhere", Path("own/nowhere")]


@pytest.fixture
def offline(monkeypatch):
    "Whoever asks a network fails"

    def asked(*a, **k):
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)


@pytest.mark.parametrize("path", MISSING, ids=str)
@pytest.mark.parametrize("kind", [*NETWORKS, *PIPELINES], ids=lambda kind: kind.__name__)
def test_what_is_not_there(kind, path, offline):
    refused(lambda: kind.from_pretrained(path), str(path).removeprefix("./"), kind=FileNotFoundError)


def test_bases_and_autoencoders_that_are_not_there(offline, tmp_path):
    (tmp_path / "models").mkdir()
    for path in ("nowhere", "models/nowhere", "a/b/c", tmp_path / "nowhere", Path("own/nowhere")):
        refused(lambda path=path: open_base(path, root=tmp_path), str(path), kind=FileNotFoundError)
        refused(lambda path=path: open_vae(path), str(path), kind=FileNotFoundError)


def test_folders_of_something_else(tmp_path, offline):
    refused(lambda: ID3Pipeline.from_pretrained(tmp_path), "model_index.json is missing", kind=FileNotFoundError)
    refused(lambda: ID3Pipeline.from_pretrained(shipped("cemiface")), "CemiFacePipeline", "ID3Pipeline does not read")
    refused(lambda: load_encoder(shipped("id3")), "it holds a generator", kind=FileNotFoundError)
    refused(lambda: load_encoder(tmp_path / "none"), "there is no such folder", kind=FileNotFoundError)
    refused(lambda: IResNet.from_pretrained(shipped("attributes")), "AttributeNet", "expected IResNet")


def faces_of(n=4, **more):
    torch.manual_seed(0)
    conditions = ID3Conditions(6, (8, 8), 16, known=(True, True))
    pipe = ID3Pipeline(build_unet(8, (8, 8), 16, head_dim=8), conditions, more.pop("scheduler", DDIM))
    pipe.set_progress_bar_config(disable=True)
    return pipe


DDIM = DDIMScheduler(timestep_spacing="trailing")
Y = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator(0)), dim=1)


def streams(n=4):
    return [generator(0, k) for k in range(n)]


def drawn(pipe, *a, n=4, **more):
    more = dict(generator=streams(n), num_inference_steps=3, output_type="pt") | more
    return pipe(*a, **more).images


@pytest.mark.parametrize("name", ["id3", "cemiface"])
@pytest.mark.parametrize("again", [False, True], ids=["shipped", "saved"])
def test_plain_diffusers(name, again, tmp_path, offline):
    kind, folder = dict(id3=ID3Pipeline, cemiface=CemiFacePipeline)[name], shipped(name)
    if again:
        kind.from_pretrained(folder).save_pretrained(folder := tmp_path / "my own")
        assert str(shipped(name)) not in (folder / "model_index.json").read_text()
    refused(lambda: DiffusionPipeline.from_pretrained(folder), "trust_remote_code=True")
    assert type(DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)) is kind
    assert type(kind.from_pretrained(folder)) is kind and "trust_remote_code" in (folder / "pipeline.py").read_text()


def test_a_folder_runs_no_code(tmp_path):
    "Our own door does not look at pipeline.py"
    faces_of().save_pretrained(tmp_path)
    (tmp_path / "pipeline.py").write_text("raise AssertionError('the code in the folder was run')")
    assert isinstance(ID3Pipeline.from_pretrained(tmp_path), ID3Pipeline)


def test_pipelines_of_older_versions_are_read(tmp_path):
    faces_of().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | dict(_class_name="ID3Pipeline")))
    assert torch.allclose(drawn(ID3Pipeline.from_pretrained(tmp_path), Y), drawn(faces_of(), Y), atol=1e-3)


def test_the_shipped_base_in_plain_diffusers(tmp_path, offline):
    pipe = StableDiffusionPipeline.from_pretrained(shipped("idbooth"))
    pipe.set_progress_bar_config(disable=True)
    check_pipeline(pipe)
    assert pipe("photo of a person", num_inference_steps=2).images[0].size == (32, 32)
    save_base(pipe, tmp_path, half=True)
    again = StableDiffusionPipeline.from_pretrained(tmp_path)
    assert again.text_encoder.dtype == again.unet.dtype == torch.float32
    sizes = [sum(p.stat().st_size for p in d.rglob("*.safetensors")) for d in (tmp_path, shipped("idbooth"))]
    assert abs(sizes[0] - sizes[1]) < 1e4
    again.text_encoder.half()
    refused(lambda: check_drawing(again), "text_encoder torch.float16", "unet torch.float32")


def test_none_is_unknown_and_people_are_rows():
    pipe = faces_of()
    unknown = np.tile(np.array([np.nan, 30, np.nan, 40], np.float32), (4, 1))
    assert torch.equal(drawn(pipe, Y, [None, 30, None, 40]), drawn(pipe, Y, unknown))
    assert torch.equal(drawn(pipe, Y, [[None, 30, None, 40]] * 4), drawn(pipe, Y, unknown))
    y = spread(random_anchors(2, 6, 0), 2, lb=0.6, ub=0.9)
    s = bootstrap_attributes(np.array([[0.0, 10, 0, 30], [5, 20, 0, 60]]), 2, 2)
    assert torch.equal(drawn(pipe, y, s), drawn(pipe, y.reshape(4, 6), s.reshape(4, 4)))
    more = dict(guidance_scale=2.0)
    assert torch.equal(drawn(pipe, y, s, negative_y=-y, **more), drawn(pipe, y, s, negative_y=-y.flatten(0, 1), **more))
    unet = build_unet(8, (16, 16), 6, head_dim=16, pooled=False)
    cemi = CemiFacePipeline(unet, CemiFaceConditions(6), DDIM)
    cemi.set_progress_bar_config(disable=True)
    m = np.array([[0.1, 0.2], [0.3, 0.4]])
    assert torch.equal(drawn(cemi, y, m), drawn(cemi, y.flatten(0, 1), m.ravel()))


ZERO = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing")
ASKED = [
    (dict(generator=streams(3)), "3 generators for 4 images"),
    (dict(generator=streams(3), eta=1.0, latents=torch.zeros(4, 3, 8, 8)), "3 generators for 4 images"),
    (dict(n=4, generator=streams(5)), "5 generators for 4 images"),
    (dict(latents=torch.zeros(4, 3, 4, 4)), "latents (4, 3, 4, 4)"),
    (dict(latents=torch.full((4, 3, 8, 8), NAN)), "expected finite numbers"),
    *((dict(num_inference_steps=k), f"num_inference_steps={k!r}") for k in (0, -1, 1001, 2.5, True, None)),
    *((dict(eta=k), f"eta={k}") for k in (-0.1, 1.5, NAN)),
    (dict(y=Y * NAN), "y row 0 is not a unit vector"),
    (dict(y=[[None] * 6] * 4), "y row 0 is not a unit vector"),
    (dict(s=[INF, 0, 0, 30]), "s holds an infinite number"),
    (dict(s=[[0, 0, 0, 30]] * 3 + [[0, 0, -INF, 30]]), "s holds an infinite number in row 3"),
    (dict(s=["young", 0, 0, 0]), "s is not an array of numbers"),
    (dict(s=[[0, 0, 0, 30], [0, 0, 0]]), "s is not an array of numbers"),
    (dict(s=[0, 0, 30]), "s has shape (3,)"),
    *((dict(gamma=k), f"gamma={k}") for k in (NAN, INF, -1.0)),
    *((dict(gamma=1.0, until=k), f"until={k}") for k in (-0.1, 1.5, NAN)),
    (dict(gamma=1.0, clip=-1.0), "clip=-1.0"),
    (dict(gamma=1.0, variance=0.0), "variance=0.0"),
    (dict(guidance_scale=NAN), "identity is nan"),
]


@pytest.mark.parametrize("asked, words", ASKED, ids=[words for _, words in ASKED])
def test_what_cannot_be_drawn(asked, words):
    torch.manual_seed(0)
    eyes = Encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6)), 8)
    more = dict(y=Y, encoder=eyes, num_inference_steps=2) | asked
    refused(lambda: faces_of()(**more), words)


def test_half_precision_draws_nearly_the_same():
    pipe, eyes = ID3Pipeline.from_pretrained(shipped("id3")), load_encoder(shipped("identity"))
    pipe.set_progress_bar_config(disable=True)
    y = random_anchors(2, 64, 0)
    for more in (dict(), dict(encoder=eyes, gamma=0.5, clip=0.5)):
        exact = drawn(pipe.to(torch.float32), y, n=2, **more)
        half = drawn(pipe.to(torch.float16), y, n=2, **more)
        assert half.isfinite().all() and (half.float() - exact).abs().mean() < 0.02 * exact.std(), more


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_no_signal_at_the_end(kind):
    "A network that predicts noise is refused; one that predicts v draws and learns"
    refused(lambda: prediction_type(kind(**ZERO)), kind.__name__, "rescale_betas_zero_snr=False", "v_prediction")
    refused(lambda: faces_of(scheduler=kind(**ZERO)), "rescale_betas_zero_snr")
    assert prediction_type(kind(**ZERO | dict(rescale_betas_zero_snr=False))) == "epsilon"
    v = kind(prediction_type="v_prediction", **ZERO)
    assert drawn(faces_of(scheduler=v), Y).isfinite().all()


def test_losses_without_signal_at_the_end():
    v, x0 = DDIMScheduler(prediction_type="v_prediction", **ZERO), torch.randn(2, 3, 8, 8, generator=generator(0))
    t, eps = torch.tensor([999, 10]), torch.randn(2, 3, 8, 8, generator=generator(1))
    output = torch.zeros_like(x0).requires_grad_()
    for weighting in ("eps", "min_snr"):
        loss = denoising_error(v, output, add_noise(v, x0, eps, t), eps, t, weighting).sum()
        (g,) = torch.autograd.grad(loss, output)
        assert loss.isfinite() and g.isfinite().all()
    refused(lambda: error_weight(v, t, "v"), "weighting='v'", "min_snr")
    refused(lambda: output_from_eps(v, eps, x0, 999), "no signal")


KARRAS = dict(use_karras_sigmas=True, timestep_spacing="trailing")
SPREAD = [
    (EulerDiscreteScheduler, KARRAS, dict(use_karras_sigmas=False)),
    (EulerDiscreteScheduler, dict(use_exponential_sigmas=True), None),
    (EulerDiscreteScheduler, dict(timestep_spacing="linspace"), dict(timestep_spacing="trailing")),
    (HeunDiscreteScheduler, KARRAS, dict(use_karras_sigmas=False)),
    (KDPM2DiscreteScheduler, dict(timestep_spacing="trailing"), "take another"),
    (KDPM2DiscreteScheduler, KARRAS, "take another"),
]


@pytest.mark.parametrize("kind, config, advice", SPREAD, ids=lambda v: getattr(v, "__name__", str(v)))
def test_the_advice_about_whole_steps_helps(kind, config, advice):
    torch.manual_seed(0)
    eyes = Encoder(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 6)), 8)
    more = dict(encoder=eyes, gamma=0.1, until=1.0, num_inference_steps=7)
    pipe = faces_of(scheduler=kind(**config))
    with pytest.raises(ValueError, match="whole steps are needed") as said:
        drawn(pipe, Y, **more)
    if advice == "take another":
        assert advice in str(said.value) and "set " not in str(said.value)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(kind(timestep_spacing="trailing").config)
    else:
        words = str(said.value).split(", set ")[1]
        changes = dict(part.split("=") for part in words.split(", "))
        changes = {k: {"False": False}.get(v, v.strip("'")) for k, v in changes.items()}
        assert advice is None or changes == advice
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **changes)
    assert drawn(pipe, Y, **more).isfinite().all()


def test_a_trained_network_is_taken():
    "As it is: it learns on"
    torch.manual_seed(0)
    net = recogniser("tiny32").train()
    pictures = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8, generator=generator(0))
    pairs = Pairs("noise", pictures.numpy(), np.arange(20) % 2 == 0)
    assert verify_pairs(net, [pairs]) == verify_pairs(Encoder(recogniser_like(net), 32), [pairs])
    assert net.training and all(p.requires_grad for n, p in net.named_parameters() if n != "features.weight")
    refused(lambda: embed(torch.nn.Linear(2, 2), pictures), "Linear is no encoder")


def recogniser_like(net):
    other = recogniser("tiny32")
    other.load_state_dict(net.state_dict())
    return other.eval()
