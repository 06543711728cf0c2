"""A training that is called again in its folder with other pictures, another encoder or another base is refused; and
what it stands on, damaged, is named or replaced."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from facesyn.core.checkpoints import load_checkpoint
from facesyn.core.checks import refused
from facesyn.core.files import weights_digest
from facesyn.core.images import generator
from facesyn.core.training import Keep, Optim
from facesyn.data.faces import Faces
from facesyn.diffusion.latents import Patches
from facesyn.diffusion.text_to_image import (
    build_text_encoder,
    build_tokenizer,
    build_vae,
    sd_scheduler,
    text_pipeline,
    token_ids,
)
from facesyn.diffusion.unet import build_unet
from facesyn.methods.cemiface_training import CemiFaceRecipe, train_cemiface
from facesyn.methods.generation import dataset_settings
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.methods.idbooth_pictures import PromptSampling, know, sampling_settings
from facesyn.methods.idbooth_training import LORA_FILE, BoothRecipe, train_person
from facesyn.methods.plans import plan
from facesyn.nets.attributes import AttributeRecipe, train_attributes
from facesyn.nets.backbones import recogniser
from facesyn.nets.encoders import Encoder, embed
from facesyn.nets.recogniser import Recipe, train_recogniser

OPTIM = Optim(1e-3)
UNET = dict(channels=(16, 32), head_dim=16)
ONE, OTHER = (torch.randint(0, 256, (200, 32, 32, 3), dtype=torch.uint8, generator=generator(k)) for k in (0, 1))
LAST = ONE.clone()
LAST[101, 3, 3] += 1  # one pixel of one picture


def encoder(seed=0, **more):
    torch.manual_seed(seed)
    return Encoder(recogniser("tiny32").eval(), 32, **more)


def faces(pictures):
    labels = np.arange(len(pictures)) // 20
    return Faces(labels, [f"p{k}" for k in range(10)], np.ones((200, 4)), 32, lambda k: pictures[k].numpy())


def id3(pictures, out, eyes):
    y = embed(eyes, pictures[:12], flip=False)
    return train_id3(pictures[:12], y, np.zeros((12, 4)), eyes, ID3Recipe(2, 4, UNET, 32, (8,), optim=OPTIM), Keep(out))


def cemiface(pictures, out, eyes):
    return train_cemiface(pictures[:12], eyes, CemiFaceRecipe(2, 4, UNET, optim=OPTIM), Keep(out))


def recogniser_of(pictures, out, eyes):
    return train_recogniser(faces(pictures), "tiny32", Recipe(1, 64), Keep(out), "cpu")


def attributes_of(pictures, out, eyes):
    return train_attributes(faces(pictures), dict(size=32), AttributeRecipe(1, 64), Keep(out), "cpu")


def base(seed=0):
    torch.manual_seed(seed)
    tokenizer, vae = build_tokenizer(), build_vae(32, (16, 16))
    words, unet = build_text_encoder(tokenizer, 32, 1), build_unet(16, (32, 32), 32, 4, 1, 16, "cross", False)
    pipe = text_pipeline(vae.eval(), words.eval(), tokenizer, unet.eval(), sd_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def lora(pictures, out, eyes, pipe=None):
    pipe = pipe or base()
    person, anybody = know(pipe, pictures[100:104], eyes), know(pipe, pictures[:4], eyes)
    return train_person(pipe, person, anybody, eyes, Keep(out), BoothRecipe(2, 2, 2))


TRAINERS = dict(id3=id3, cemiface=cemiface, recogniser=recogniser_of, attributes=attributes_of, lora=lora)


@pytest.mark.parametrize("name", TRAINERS)
def test_other_pictures_are_another_training(name, tmp_path):
    train, eyes = TRAINERS[name], encoder()
    train(ONE, tmp_path, eyes)
    train(ONE, tmp_path, eyes)  # the same: it has ended already
    refused(lambda: train(OTHER, tmp_path, eyes), "another set or training", "use another folder")


@pytest.mark.parametrize("name", ["recogniser", "attributes", "lora"])
def test_one_pixel_is_another_picture(name, tmp_path):
    train, eyes = TRAINERS[name], encoder()
    train(ONE, tmp_path, eyes)
    refused(lambda: train(LAST, tmp_path, eyes), "another set or training")


@pytest.mark.parametrize("name", ["id3", "cemiface", "lora"])
@pytest.mark.parametrize("other", [dict(seed=1), dict(channels="bgr"), dict(std=100.0), dict(mean=100.0)], ids=str)
def test_another_encoder(name, other, tmp_path):
    TRAINERS[name](ONE, tmp_path, encoder())
    refused(lambda: TRAINERS[name](ONE, tmp_path, encoder(**other)), "another set or training", "encoder")


def test_a_lora_of_another_base(tmp_path):
    eyes, pipe = encoder(), base()
    lora(ONE, tmp_path, eyes, pipe)
    with torch.no_grad():
        pipe.unet.conv_out.bias += 1
    refused(lambda: lora(ONE, tmp_path, eyes, pipe), "another set or training", "base")


def test_a_finished_lora_leaves_no_checkpoint(tmp_path):
    pipe, eyes = base(), encoder()
    person, anybody = know(pipe, ONE[:4], eyes), know(pipe, ONE[4:8], eyes)
    train_person(pipe, person, anybody, eyes, Keep(tmp_path, seconds=0), BoothRecipe(3, 2, 2))
    assert (tmp_path / LORA_FILE).exists() and not list(tmp_path.glob("checkpoint*"))


def changes():
    "What dataset_settings and sampling_settings must see, each as a change of a pipeline"

    def part(name, change):
        def made(pipe):
            change(getattr(pipe, name))

        return made

    def nudge(net):
        with torch.no_grad():
            next(net.parameters()).flatten()[0].add_(1e-6)

    def tokens(tokenizer):
        tokenizer.model_max_length = 20

    yield "weights", part("unet", nudge)
    yield "half", part("unet", lambda net: net.half())
    yield "scaling", part("vae", lambda vae: vae.register_to_config(scaling_factor=0.5))
    yield "words", part("text_encoder", nudge)
    yield "tokens", part("tokenizer", tokens)
    yield "scheduler", lambda pipe: setattr(pipe, "scheduler", DDIMScheduler.from_config(pipe.scheduler.config))
    yield "schedule", part("scheduler", lambda s: s.register_to_config(beta_end=0.02))


@pytest.mark.parametrize("name, change", list(changes()), ids=lambda v: v if isinstance(v, str) else "")
def test_what_pictures_depend_on(name, change):
    pipe, how = base(), PromptSampling(2)
    before = sampling_settings(pipe, how)
    change(pipe)
    assert sampling_settings(pipe, how) != before


def test_what_faces_depend_on(tmp_path):
    eyes = encoder()
    pipe, rows = id3(ONE, tmp_path, eyes), plan(np.eye(2, 128, dtype=np.float32)[:, None])

    def told(pipe=pipe, eyes=eyes):
        return dataset_settings(pipe, rows, 2, 2, dict(encoder=eyes, gamma=1.0))

    seen = [told(), *(told(eyes=encoder(**more)) for more in (dict(channels="bgr"), dict(mean=100.0), dict(std=90.0)))]
    pipe.vae = Patches(1, 2.0)
    seen += [told()]
    pipe.unet.half()
    assert len({json.dumps(s) for s in [*seen, told()]}) == 6


def trained(folder, lr=1e-2, steps=6):
    recipe = replace(RECIPE, lr=lr, epochs=steps)
    return train_recogniser(faces(ONE), "tiny32", recipe, Keep(folder, seconds=0), "cpu")


RECIPE = Recipe(2, 100)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_checkpoint(damage, tmp_path):
    "The former one is used, and a warning names the file; both damaged: an error names it"
    whole, log = trained(tmp_path)
    path, former = Keep(tmp_path).path, tmp_path / "checkpoint.former.safetensors"

    def damaged(file, bit=1):
        data = bytearray(file.read_bytes())
        if damage == "flip":
            data[len(data) // 2] ^= bit
        file.write_bytes(dict(cut=data[: len(data) // 3], empty=b"", text=b"nothing\n").get(damage, data))

    damaged(path)
    with pytest.warns(UserWarning, match="checkpoint.safetensors is not a checkpoint"):
        again, relog = trained(tmp_path)
    assert relog == log
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
    for file in (path, former):
        damaged(file, 2)
    refused(lambda: trained(tmp_path), "checkpoint.safetensors is not a checkpoint")


def test_every_flipped_bit_is_seen(tmp_path):
    trained(tmp_path)
    path, former = Keep(tmp_path).path, tmp_path / "checkpoint.former.safetensors"
    former.unlink()
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for at in [0, 8, 9, 100, len(data) - 1, *rng.integers(len(data), size=25)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :])
        with pytest.raises(ValueError, match="checkpoint.safetensors"), warnings.catch_warnings():
            warnings.simplefilter("error")
            load_checkpoint(path, {})


def test_a_bad_line_of_the_log_is_written_anew(tmp_path):
    _, log = trained(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epo')
    trained(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log


def test_the_advice_about_a_loss_that_is_lost(tmp_path):
    "Followed, it leads to a training, not to another refusal"
    with pytest.raises(FloatingPointError, match="smaller learning rate.* in another folder"):
        trained(tmp_path / "one", lr=1e30)
    refused(lambda: trained(tmp_path / "one", lr=1e-3), "use another folder, or remove it")
    trained(tmp_path / "other", lr=1e-3)


def test_digests_of_a_tokenizer():
    "How it was last used is nothing of it; how it will be is"
    tokenizer = build_tokenizer()
    one = weights_digest(dict(tokenizer=tokenizer))
    token_ids(tokenizer, ["photo of a person"]), tokenizer("photo", truncation=True, max_length=3)
    assert weights_digest(dict(tokenizer=tokenizer)) == one
    tokenizer.padding_side = "left"
    assert weights_digest(dict(tokenizer=tokenizer)) != one
