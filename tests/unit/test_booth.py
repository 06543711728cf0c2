"""ID-Booth on a pipeline of a few thousand weights: precision, restarts, batches, and several people."""

import multiprocessing
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from facesyn.core.checks import refused
from facesyn.core.files import read_json, weights_digest
from facesyn.core.images import generator, read_image
from facesyn.core.training import Keep
from facesyn.diffusion.schedule import add_noise, estimate_x0, target
from facesyn.diffusion.text_to_image import build_text_encoder, build_tokenizer, build_vae, sd_scheduler, text_pipeline
from facesyn.diffusion.unet import build_unet
from facesyn.methods.idbooth import BoothLoss, booth_loss
from facesyn.methods.idbooth_pictures import PromptSampling, know, make_priors
from facesyn.methods.idbooth_training import LORA_FILE, TARGETS, BoothRecipe, Lora, train_person
from facesyn.methods.people import booth_prompt, generate_people
from facesyn.nets.encoders import Encoder
from facesyn.rendered.faces import render_faces

CARD = dict(name="n", source="noise", method="m", licence="CC0-1.0", limits="all")
FORK = multiprocessing.get_context("fork")
HOW, RECIPE = PromptSampling(2, batch=2), BoothRecipe(steps=2, batch=2, rank=2, alpha=6)


def small(scheduler=None):
    torch.manual_seed(0)
    tokenizer, vae = build_tokenizer(), build_vae(32, (16, 16))
    words, unet = build_text_encoder(tokenizer, 32, 1), build_unet(16, (32, 32), 32, 4, 1, 16, "cross", False)
    pipe = text_pipeline(vae.eval(), words.eval(), tokenizer, unet.eval(), scheduler or sd_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def looks():
    torch.manual_seed(1)
    return Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3072, 8)), size=32)


@pytest.fixture(scope="module")
def pictures():
    return render_faces([3] * 4, range(4), 32)[0]


def test_v_prediction_and_no_prior(looks):
    pipe, g = small(sd_scheduler("v_prediction")), generator(1)
    x0, words, eps = (torch.randn(*s, generator=g) for s in ((3, 4, 16, 16), (3, 5, 32), (3, 4, 16, 16)))
    y, negatives, t = torch.randn(3, 8, generator=g), torch.randn(3, 2, 8, generator=g), torch.tensor([20, 300, 700])
    x_t = add_noise(pipe.scheduler, x0, eps, t)
    assert torch.allclose(estimate_x0(pipe.scheduler, target(pipe.scheduler, x0, eps, t), x_t, t), x0, atol=1e-5)
    batch = dict(x0=x0, words=words, y=y, negatives=negatives)
    terms = booth_loss(pipe, looks, batch, t, eps, BoothLoss(prior=0.0))
    assert "anybody" not in terms and terms["identity"].isfinite()


def test_pictures_of_anybody_whatever_the_batch(looks, tmp_path):
    one, other = (
        make_priors(small(), looks, tmp_path / str(k), 6, how=replace(HOW, batch=k))["images"].astype(int)
        for k in (3, 4)
    )
    assert np.abs(one - other).max() <= 1


def test_half_precision(looks, pictures, tmp_path):
    "The LoRA is single precision over a base in half precision"
    pipe = small().to(torch.bfloat16)
    known = know(pipe, pictures, looks)
    half = replace(RECIPE, steps=1, optim=replace(RECIPE.optim, precision="bf16"))
    weights = load_file(train_person(pipe, known, known, looks, Keep(tmp_path), half) / LORA_FILE)
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in weights.values())


def test_a_tracker_gets_the_log(looks, pictures, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    pipe = small()
    known = know(pipe, pictures, looks)
    train_person(pipe, known, known, looks, Keep(tmp_path, every=1, log_with=["tensorboard"]), RECIPE)
    events = accumulator(str(tmp_path / "facesyn"))
    events.Reload()
    assert [event.step for event in events.Scalars("similarity")] == [1, 2]


def test_the_file_is_read_by_diffusers(looks, pictures, tmp_path):
    "The same pictures as with its matrices put in by hand, alpha among them"
    pipe = small()
    known = know(pipe, pictures, looks)
    trained = train_person(
        pipe, known, known, looks, Keep(tmp_path), replace(RECIPE, optim=replace(RECIPE.optim, lr=0.01))
    )
    assert all(p.grad is None for net in (pipe.vae, pipe.text_encoder, looks) for p in net.parameters())

    def drawn():
        return pipe("photo of sks person", num_inference_steps=3, generator=generator(0), output_type="pt").images

    bare, lora, named = drawn(), Lora(pipe.unet, 2, 6), dict(pipe.unet.named_parameters())
    assert len(lora._parameters) == 2 * len(TARGETS) * 8
    with torch.no_grad():
        for k, v in load_file(trained / LORA_FILE).items():
            k = k.removeprefix("unet.").replace("lora.down.weight", "lora_A.person.weight")
            named[k.replace("lora.up.weight", "lora_B.person.weight")].copy_(v)
    by_hand = drawn()
    pipe.unet.unload_lora()
    pipe.load_lora_weights(trained, adapter_name="person")
    assert torch.equal(drawn(), by_hand) and not torch.allclose(by_hand, bare)


def test_people_whatever_the_batch(tmp_path):
    pipe = small()
    crowd = [dict(name=n, number=k, sex="", lora=None) for k, n in enumerate(("ada", "bob"), 3)]

    def made(run, images=3, **how):
        return generate_people(pipe, crowd, images, tmp_path / run, CARD, replace(HOW, **how))

    made("two")
    made("three", batch=3)
    for file in ("ada/0002.png", "bob/0000.png"):
        one, other = (read_image(tmp_path / run / file).astype(int) for run in ("two", "three"))
        assert np.abs(one - other).max() <= 1
    late = {made(f"until{hi}", 1, guidance_interval=(0.0, hi))["sha256"] for hi in (0.0, 0.3, 1.0)}
    assert len(late) == 3  # guided at no step, at the last, at both
    assert not re.search(
        r"\bada\b", (tmp_path / "two/README.md").read_text()
    )  # no name leaves the folders and manifest


@pytest.mark.distributed
def test_people_by_two_processes_of_which_one_is_killed(tmp_path):
    crowd = [dict(name=f"person {k}", number=k, sex="", lora=None) for k in range(6)]

    def made(run):
        torch.set_num_threads(1)
        return generate_people(small(), crowd, 4, tmp_path / run, CARD, HOW)

    alone, (killed, other) = made("alone"), [FORK.Process(target=made, args=("both",)) for _ in range(2)]
    killed.start(), other.start()
    while not [*(tmp_path / "both").glob("person*/*.png")]:
        time.sleep(0.01)
    killed.kill()
    killed.join(), other.join()
    assert other.exitcode == 0 and read_json(tmp_path / "both/card.json") == alone
    assert not [*(tmp_path / "both").glob(".facesyn*")]


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_a_picture_alone_and_among_others(kind):
    prompts = [booth_prompt(1, j) for j in range(3)]
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        pipe = small().to(dtype)
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
        streams = [[generator(2, j) for j in range(3)] for _ in range(2)]
        options = dict(num_inference_steps=4, guidance_scale=5.0, output_type="pt")
        together = pipe(prompts, generator=streams[0], **options).images
        alone = torch.cat([pipe([q], generator=[s], **options).images for q, s in zip(prompts, streams[1])])
        assert (together - alone).abs().max() < most


@pytest.fixture(scope="module")
def person(looks, pictures, tmp_path_factory):
    "The folder of a person's LoRA, strong enough to be seen, for `small()`"
    pipe, folder = small(), tmp_path_factory.mktemp("person")
    known = know(pipe, pictures, looks)
    return train_person(pipe, known, known, looks, Keep(folder), replace(RECIPE, optim=replace(RECIPE.optim, lr=0.1)))


def renamed(name, key):
    "A key of a LoRA file as others write it"
    if name == "kohya":
        key = (
            key.replace("unet.", "lora_unet_", 1)
            .replace(".lora.down.weight", "|down")
            .replace(".lora.up.weight", "|up")
        )
        return key.replace(".", "_").replace("|", ".lora_") + ".weight"
    return {"without unet": key.removeprefix("unet."), "peft": "base_model.model." + key.removeprefix("unet.")}[name]


def drawn(lora, out):
    people = [dict(name="ada", number=1, sex="", lora=lora)]
    generate_people(small(), people, 2, out, CARD, PromptSampling(2, batch=2))
    return np.stack([read_image(out / "ada" / f"{j:04d}.png") for j in range(2)]).astype(int)


def other(person, folder, tensors, alpha=6):
    folder.mkdir()
    with safe_open(person / LORA_FILE, "pt") as f:
        about = {
            k: re.sub(r'"unet.lora_alpha": \d+', f'"unet.lora_alpha": {alpha}', v) for k, v in f.metadata().items()
        }
    save_file(tensors, folder / LORA_FILE, metadata=about)
    return folder


def test_a_lora_under_others_names_is_read_or_refused(person, tmp_path):
    own = load_file(person / LORA_FILE)
    hers, base = drawn(person, tmp_path / "hers"), drawn(None, tmp_path / "base")
    assert np.abs(hers - base).mean() > 1
    kohya = other(person, tmp_path / "k", {renamed("kohya", k): v for k, v in own.items()})
    for name in ("without unet", "peft"):
        folder = other(person, tmp_path / name, {renamed(name, k): v for k, v in own.items()})
        refused(lambda f=folder: drawn(f, tmp_path / f"drawn {f.name}"), str(folder), "none of a U-Net")
    half = other(person, tmp_path / "half", dict(sorted(own.items())[: len(own) // 2]))
    refused(lambda: drawn(half, tmp_path / "drawn half"), str(half), "does not fit this pipeline", "left over")
    assert np.abs(drawn(kohya, tmp_path / "drawn kohya") - hers).max() <= 1
    for name, some in (("every key", own), ("half of them", dict(sorted(own.items())[: len(own) // 2]))):
        (tmp_path / name).mkdir()
        save_file(some, tmp_path / name / LORA_FILE)  # no description of the layers
    refused(lambda: drawn(tmp_path / "half of them", tmp_path / "drawn them"), "half of them", "left over")
    assert (drawn(tmp_path / "every key", tmp_path / "drawn all") != base).any()


def test_another_alpha_is_another_lora(person, tmp_path):
    strong = other(person, tmp_path / "strong", load_file(person / LORA_FILE), 9)
    assert (strong / LORA_FILE).read_bytes() != (person / LORA_FILE).read_bytes()
    drawn(person, tmp_path / "out")
    refused(lambda: drawn(strong, tmp_path / "out"), "told")


def test_a_lora_of_the_users_own_stays(person, tmp_path):
    pipe = small()
    pipe.unet.load_lora_adapter(load_file(person / LORA_FILE), adapter_name="mine", prefix="unet")
    before = {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    refused(lambda: generate_people(pipe, [], 1, tmp_path, CARD, HOW), "LoRA of its own (mine)", "fuse_lora")
    assert all(v.equal(before[k]) for k, v in pipe.unet.state_dict().items())


def test_what_a_tokenizer_was_asked_last_is_not_part_of_its_digest():
    one, other = build_tokenizer(), build_tokenizer()
    one("a face", padding="max_length", max_length=9, truncation=True)
    assert weights_digest(dict(t=one)) == weights_digest(dict(t=other))
    other.add_tokens(["nobody"])
    assert weights_digest(dict(t=one)) != weights_digest(dict(t=other))
