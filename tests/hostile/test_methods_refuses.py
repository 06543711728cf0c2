"""Bad input to the floor `methods`: a row is a call and the words that its error must have."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import nn

from facesyn.core.checks import refused
from facesyn.core.images import generator
from facesyn.core.training import Keep, Optim
from facesyn.core.watching import Watch
from facesyn.diffusion.latents import Patches
from facesyn.diffusion.text_to_image import build_text_encoder, build_tokenizer, build_vae, sd_scheduler, text_pipeline
from facesyn.diffusion.unet import build_unet
from facesyn.methods.cemiface import CemiFaceConditions, CemiFaceWeights, draw_m, whitening
from facesyn.methods.cemiface_sampling import CemiFacePipeline, asked_similarities, calibrate, m_for
from facesyn.methods.cemiface_training import CemiFaceRecipe, train_cemiface
from facesyn.methods.generation import add_copies, generate, sample
from facesyn.methods.id3 import ID3Conditions, ID3Weights
from facesyn.methods.id3_sampling import AdjustedScore, ID3Pipeline
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.methods.idbooth import BoothLoss, landmarks_of, time_weight
from facesyn.methods.idbooth_pictures import PromptSampling, check_pipeline, know, make_priors, read_priors
from facesyn.methods.idbooth_training import BoothRecipe, train_person, words_of
from facesyn.methods.inquiries import Screen, choose_inquiries, ranked_groups
from facesyn.methods.people import CONSENT, NEGATIVE, check_consent, generate_people
from facesyn.methods.plans import Plan, bootstrap_attributes, plan
from facesyn.methods.tars import generate_tars
from facesyn.nets.attributes import train_attributes
from facesyn.nets.encoders import Encoder
from facesyn.nets.recogniser import train_recogniser

NAN, INF = float("nan"), float("inf")
CARD = dict(name="n", source="noise", method="m", licence="CC0-1.0", limits="all")


def unit(*shape):
    return F.normalize(torch.randn(*shape, generator=generator(0)), dim=-1)


def spoilt(x, row, value=NAN):
    x = x.clone()
    x[row] = value
    return x


# ID³
Y, S = unit(3, 6), torch.tensor([[0.0, 30, 0, 40]]).repeat(3, 1)
IMAGES = torch.randint(0, 256, (12, 8, 8, 3), dtype=torch.uint8, generator=generator(1))
ENCODER = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 6)), size=8)
EMB, ATTRIBUTES = unit(12, 6), torch.zeros(12, 4)
RECIPE = ID3Recipe(2, 6, dict(channels=(8, 8), head_dim=8), 16, (8, 8), optim=Optim(3e-3, ema=0.5))
TOLD = (IMAGES, EMB, ATTRIBUTES)


def id3(known=None):
    pipe = ID3Pipeline(build_unet(8, (8, 8), 16, head_dim=8), ID3Conditions(6, (8, 8), 16, known), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def id3_faces(y=Y, s=S, known=None, **more):
    return lambda: id3(known)(y, s, num_inference_steps=1, **more)


def id3_trained(images=IMAGES, y=EMB, s=ATTRIBUTES, keep=Keep(), vae=None, begin=None, encoder=ENCODER, **other):  # noqa: B008
    return train_id3(images, y, s, encoder, replace(RECIPE, **other), keep, vae or Patches(2, 2.0), begin)


ID3 = [
    (lambda: ID3Weights(denoise="x0"), "denoise='x0'", "min_snr"),
    (lambda: ID3Weights(per="t"), "per='t'"),
    (lambda: ID3Weights(share=0.0), "share=0.0"),
    *((lambda v=v: ID3Weights(identity=v), f"identity={v!r}") for v in (-1.0, NAN, "1")),
    (lambda: ID3Weights(reconstruct=INF), "reconstruct=inf"),
    (lambda: ID3Recipe(1, drop=(0.5,)), "drop="),
    *((lambda v=v: ID3Recipe(v), f"ID3Recipe: steps={v!r}") for v in (0, -1, 2.5, True)),
    (lambda: ID3Recipe(1, 0), "ID3Recipe: batch=0"),
    (lambda: id3_trained(encoder="net.onnx"), "load_encoder(path)"),
    (lambda: id3_trained(unet=dict(chanels=(8, 8))), "unet.chanels", "do you mean channels"),
    (lambda: AdjustedScore(gradient="cheap"), "gradient='cheap'"),
    (id3_faces(2 * Y), "y row 0", "norm 2"),
    (id3_faces(Y[:, :4]), "y has shape (3, 4)"),
    (id3_faces(gamma=1.0), "gamma=1.0", "encoder"),
    (id3_faces(s=S[:2]), "s has shape (2, 4)"),
    (id3_faces(output_type="latent"), "'latent'"),
    (id3_faces(guidance_scale=dict(age=2.0)), "names age"),
    (id3_faces(negative_y=2 * Y, guidance_scale=2.0), "negative_y row 0"),
    (id3_faces(negative_y=Y), "would do nothing"),
    (id3_faces(s=None, guidance_scale=dict(attributes=2.0)), "no attributes is given"),
    (id3_faces(known=(True, False), guidance_scale=dict(attributes=2.0)), "without hiding attributes"),
    (id3_faces(known=(False, True), shown_below=0.5), "without hiding identity"),
    (lambda: id3_trained(IMAGES[:, :4]), "(12, 4, 8, 3)"),
    (lambda: id3_trained(y=2 * EMB), "y row 0"),
    (lambda: id3_trained(y=EMB[:5]), "y has shape (1, 5, 6)"),
    (lambda: id3_trained(s=ATTRIBUTES[:, :3]), "s has shape (12, 3)"),
]


A_PATH = [
    (lambda: id3_trained("data/faces"), "open_faces(path, size)"),
    (lambda: cemiface_trained("data/faces"), "open_faces(path, size)"),
    (lambda: id3_trained(keep="data/runs/x"), "Keep(folder)"),
    (lambda: cemiface_trained(keep="data/runs/x"), "Keep(folder)"),
    (lambda: train_recogniser("data/faces"), "open_faces(path, size)"),
    (lambda: train_attributes("data/faces"), "open_faces(path, size)"),
    (lambda: train_person(None, {}, {}, ENCODER, "data/runs/x"), "Keep(folder)"),
]


@pytest.mark.parametrize("call, words", A_PATH, ids=[f"{k} {words}" for k, (_, words) in enumerate(A_PATH)])
def test_a_path_where_something_open_is_expected(call, words):
    refused(call, words, "got str", kind=TypeError)


def test_id3_training_with_other_settings(tmp_path):
    begin = id3_trained(keep=Keep(tmp_path))
    bgr = Encoder(ENCODER.net, size=8, channels="bgr")
    for other, words in (
        (dict(images=255 - IMAGES), "latents"),
        (dict(y=-EMB), "conditions"),
        (dict(encoder=bgr), "encoder"),
        (dict(weights=ID3Weights(0.0)), "weights.identity: 1.0 -> 0.0"),
    ):
        refused(lambda: id3_trained(keep=Keep(tmp_path), steps=3, **other), words)
    for other, words in (
        (dict(prediction="v_prediction"), "prediction: epsilon there"),
        (dict(width=24), "conditions.width: 16 there"),
        (dict(vae=Patches(2)), "vae: another one"),
    ):
        refused(lambda: id3_trained(begin=begin, **other), words)


def test_what_cemiface_cannot_begin_from(tmp_path):
    begin = cemiface_trained(keep=Keep(tmp_path))
    refused(lambda: cemiface_trained(keep=Keep(tmp_path), steps=3, begin=begin), "other begin")
    for other, words in (
        (dict(prediction="v_prediction"), "prediction: epsilon there"),
        (dict(joint=True), "conditions.joint: False there, True now"),
        (dict(residual=True), "unet."),
        (dict(raw=False), "conditions.length:"),
        (dict(vae=Patches(2)), "vae: another one"),
    ):
        refused(lambda: cemiface_trained(begin=begin, **other), words)


@pytest.mark.parametrize("train", ["id3_trained", "cemiface_trained"])
def test_looks_at_what_is_not_there(train, tmp_path):
    for how, words in ((Watch(9, (0, 99)), "rows holds 99"), (Watch(9, steps=1001), "num_inference_steps=1001")):
        refused(lambda: globals()[train](keep=Keep(tmp_path, watch=how)), words)


# CemiFace
FEATURES = 3 * unit(4, 8)
FIRST = torch.tensor([[False, True], [True, True], [True, True], [True, True]])
CLOUD = torch.randn(500, 6, generator=generator(1)) @ torch.diag(torch.tensor([5.0, 3, 1, 0.5, 0.1, 0])) + 2
ASKED, REACHED = np.linspace(-1, 1, 11), np.linspace(-0.062, 0.662, 11)


def cemiface(y=FEATURES, m=0.3, length=None, **more):
    unet = build_unet(8, (16, 16), 8, head_dim=8, pooled=False)
    pipe = CemiFacePipeline(unet, CemiFaceConditions(8, length), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return lambda: pipe(y, m, num_inference_steps=1, **more)


def cemiface_trained(images=IMAGES, keep=Keep(), vae=None, encoder=ENCODER, begin=None, **other):  # noqa: B008
    recipe = CemiFaceRecipe(2, 6, dict(channels=(16, 16), head_dim=8), optim=Optim(3e-3, ema=0.5))
    return train_cemiface(images, encoder, replace(recipe, **other), keep, vae, begin=begin)


CEMIFACE = [
    (lambda: CemiFaceConditions(8, length=0.0), "length=0.0"),
    (lambda: CemiFaceConditions(8)(FEATURES, torch.zeros(4), FIRST), "without hiding identity"),
    (lambda: CemiFaceConditions(8, known=(True, False))(FEATURES, torch.zeros(4), ~FIRST), "without hiding m"),
    (lambda: CemiFaceRecipe(0), "CemiFaceRecipe: steps=0"),
    (lambda: CemiFaceRecipe(1, drop=(0.5, 2.0)), "drop=", "identity, m"),
    (lambda: cemiface_trained(unet=dict(layers_per_blok=2)), "unet.layers_per_blok", "do you mean layers_per_block"),
    (lambda: cemiface_trained(encoder="net.onnx"), "load_encoder(path)"),
    (lambda: draw_m(3, low=-1.5), "-1.5", "-1 <= low"),
    (lambda: draw_m(3, low=0.5, high=0.0), "-1 <= low"),
    (lambda: draw_m(3, step=0.06), "0.06", "do not lead"),
    (lambda: CemiFaceWeights(step=0.3), "0.3", "do not lead"),
    (lambda: CemiFaceWeights(share=0.0), "share"),
    (lambda: whitening(CLOUD, 6), "have 5"),
    (lambda: whitening(CLOUD, 0), "0 directions"),
    (lambda: whitening(CLOUD[:1], 2), "two rows"),
    (lambda: whitening(spoilt(CLOUD, 7), 2), "feature 7"),
    (cemiface(F.normalize(FEATURES), length=6.0), "length 1", "about 6.00"),
    (cemiface(m=1.2), "m row 0 is 1.2"),
    (cemiface(FEATURES * 0), "y row 0 is zero"),
    (cemiface(m=[0.0, 1.0]), "m has shape (2,)"),
    (cemiface(FEATURES[:, :5]), "y has shape (4, 5)"),
    (cemiface(guidance_scale=dict(m=2.0), negative_m=-5.0), "negative_m row 0 is -5"),
    (cemiface(guidance_scale=2.0, negative_y=0 * FEATURES), "negative_y row 0 is zero"),
    (cemiface(guidance_scale=2.0, negative_y=FEATURES * NAN), "negative_y row 0"),
    (cemiface(negative_m=1.0), "would do nothing"),
    (cemiface(guidance_scale=2.0), "without hiding identity"),
    (lambda: cemiface_trained(IMAGES.permute(0, 3, 1, 2)), "(12, 3, 8, 8)"),
    (lambda: cemiface_trained(IMAGES / 255), "float32"),
    (lambda: cemiface_trained(IMAGES[:, :4]), "(12, 4, 8, 3)"),
    (lambda: cemiface_trained(IMAGES[:0]), "(0, 8"),
    (lambda: cemiface_trained(vae=Patches(3)), "patch=3"),
    (lambda: id3_trained(vae=Patches(3)), "patch=3", "8 pixels"),
    (lambda: cemiface_trained(vae=build_vae(8, (16, 16))), "give `keep` a folder"),
    (lambda: asked_similarities(3, 2, m=[]), "m = []"),
    (lambda: asked_similarities(3, 2, m=[0.0, 1.2]), "1.2"),
    (lambda: asked_similarities(3, 2, interval=(0.5,)), "interval (0.5,)"),
    (lambda: asked_similarities(3, 2, interval=(0.5, 0.0)), "low <= high"),
    (lambda: asked_similarities(3, 2, interval=(0.0, 2.0)), "interval (0.0, 2.0)"),
    (lambda: m_for(0.9, ASKED, REACHED), "m from -1 to 1 gave -0.062 to 0.662"),
    (lambda: calibrate(float, [1.0, 0.0, -1.0]), "rising"),
    (lambda: calibrate(float, [0.0]), "at least two"),
    (lambda: calibrate(lambda m: NAN), "m = -1.0 is not finite"),
]


def test_cemiface_training_with_other_settings(tmp_path):
    cemiface_trained(keep=Keep(tmp_path))
    bgr = Encoder(ENCODER.net, 8, channels="bgr")
    for other, words in (
        (dict(weights=CemiFaceWeights(0.1)), "weights.weight: 0.05 -> 0.1"),
        (dict(images=255 - IMAGES), "images"),
        (dict(encoder=bgr), "encoder"),
    ):
        refused(lambda: cemiface_trained(keep=Keep(tmp_path), steps=3, **other), words)


# inquiries and generation
CANDIDATES, QUALITY, POSE = torch.randn(58, 16, generator=generator(3)), np.linspace(1, 2, 58), np.zeros((58, 4))
WHO = np.repeat(np.arange(6), [5, 10, 12, 6, 5, 20])
ROWS = plan(Y[:, None].expand(3, 4, 6), s=S[:, None].expand(3, 4, 4), seed=5)
POOL = np.zeros((5, 4))


def twice(rows, r):
    "A plan with row `r` once more at its end"
    index = [*range(len(rows)), r]
    conditions = {k: v[index] for k, v in rows.conditions.items()}
    return Plan(rows.identities[index], rows.images[index], conditions, rows.seed)


GENERATION = [
    (lambda: choose_inquiries(spoilt(CANDIDATES, 4), POSE, QUALITY), "candidate 4 is not finite"),
    (lambda: choose_inquiries(CANDIDATES, POSE[:1], QUALITY), "'pose': 1"),
    (lambda: choose_inquiries(CANDIDATES, POSE, QUALITY, screen=Screen(quality=3.0)), "none of 58", "quality=3.0"),
    (lambda: ranked_groups(CANDIDATES, WHO, 6), "identity 0 has 5 pictures for 6 groups"),
    (lambda: ranked_groups(spoilt(CANDIDATES, 2), WHO), "picture 2 is not finite"),
    (lambda: ranked_groups(CANDIDATES, WHO[1:]), "57 labels"),
    (lambda: ranked_groups(CANDIDATES, WHO, 0), "0 groups"),
    (lambda: bootstrap_attributes(POOL[:, :3], 1, 1), "(5, 3)"),
    (lambda: bootstrap_attributes(np.full((5, 4), NAN), 1, 1), "row 0 of the pool"),
    (lambda: bootstrap_attributes(POOL, 1, 1, yaw_mix=2), "yaw_mix", "2"),
    (lambda: plan(Y), "(identities, images, dim)", "(3, 6)"),
    (lambda: plan(Y[:, None], s=S), "s must have 3 x 1 rows"),
    (lambda: generate(id3(), ROWS, "nowhere", CARD, unit=0), "unit from 1 on", "12, 64 and 0"),
    (lambda: generate(id3(), ROWS, "nowhere", CARD, batch=0), "batch", "12, 0 and 1000"),
    (lambda: generate(id3(), twice(ROWS, 7), "nowhere", CARD), "rows 7 and 12", "image 3 of identity 1"),
    (lambda: generate(id3(), replace(ROWS, identities=ROWS.identities[:0]), "nowhere", CARD), "rows", "0, 64"),
    (lambda: generate(id3(), ROWS, "nowhere", {}), "licence"),
]


@pytest.mark.parametrize("wrong", [dict(guidence_scale=2), dict(steps=0), dict(gamma=0.1), dict(guidance_scale=2.0)])
@pytest.mark.parametrize("draw", [generate, generate_tars])
def test_a_drawing_that_is_refused_leaves_nothing(draw, wrong, tmp_path):
    with pytest.raises((TypeError, ValueError)):
        draw(id3((False, False)), ROWS, tmp_path / "new", CARD, **dict(steps=1) | wrong)
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "there/notes.txt").write_text("mine")
    with pytest.raises((TypeError, ValueError)):
        draw(id3((False, False)), ROWS, tmp_path / "there", CARD, **dict(steps=1) | wrong)
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["notes.txt"]


def test_generation_with_other_settings(tmp_path):
    torch.manual_seed(0)
    pipe, options = id3(), dict(card=CARD, steps=1)
    generate(pipe, ROWS, tmp_path, **options)
    for call, words in (
        (lambda: generate(pipe, ROWS, tmp_path, **options | dict(steps=2)), "steps: 1 -> 2"),
        (lambda: generate(id3(), ROWS, tmp_path, **options), "weights"),
        (lambda: generate(pipe, plan(Y[:, None], seed=5), tmp_path, **options), "plan"),
        (lambda: add_copies(tmp_path, np.zeros((2, 8, 8, 3), np.uint8), 2), "2 images for 3 identities"),
    ):
        refused(call, words)
    with torch.no_grad():
        pipe.unet.conv_out.bias[0] = NAN
    refused(lambda: sample(pipe, ROWS, np.array([7, 8]), num_inference_steps=1), "image 3 of identity 1")


# ID-Booth
FACES = np.zeros((4, 32, 32, 3), np.uint8)
LOOKS = Encoder(nn.Sequential(nn.Flatten(), nn.Linear(3072, 8)), size=32)
HOW = PromptSampling(2, batch=4)
BOOTH_RECIPE = BoothRecipe(steps=1, batch=2, rank=2)


@pytest.fixture(scope="module")
def booth():
    torch.manual_seed(0)
    tokenizer, vae = build_tokenizer(), build_vae(32, (16, 16))
    words, unet = build_text_encoder(tokenizer, 32, 1), build_unet(16, (32, 32), 32, 4, 1, 16, "cross", False)
    pipe = text_pipeline(vae.eval(), words.eval(), tokenizer, unet.eval(), sd_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def nobody(x, marks):
    return x, torch.zeros(len(x), dtype=torch.bool)


BOOTH = [
    (lambda: time_weight(0, kind="squard"), "'squard'", "squared"),
    (lambda: BoothLoss(weight="squard"), "squard"),
    (lambda: BoothLoss(reduce="least"), "least"),
    (lambda: BoothLoss(method="portraitbooth"), "expected one of"),
    *((lambda k=k: BoothRecipe(**{k: 0}), f"BoothRecipe: {k}=0") for k in ("steps", "batch", "rank", "negatives")),
    (lambda: BoothRecipe(positive="best"), "best"),
    (lambda: landmarks_of(lambda image: [], FACES), "picture 0", "4 of 4"),
    (lambda: check_pipeline(SimpleNamespace(unet=1, scheduler=2)), "no vae, text_encoder, tokenizer"),
]


def test_booth_pictures(booth, tmp_path):
    noise = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator(1))
    y = know(booth, noise, LOOKS)["y"]
    for call, words in (
        (lambda: know(booth, noise, LOOKS, y=y.roll(1, 0)), "not its own"),
        (lambda: know(booth, noise[:, :16], LOOKS), "resize"),
        (lambda: know(booth, noise, LOOKS, align=lambda x, marks: (x, torch.arange(len(x)) != 2)), "picture 2"),
        (lambda: words_of(booth, ["portrait photo of person " * 9]), "limit"),
        (lambda: make_priors(booth, LOOKS, tmp_path / "none", 2, how=HOW, align=nobody), "none of the 2"),
    ):
        refused(call, words)
    make_priors(booth, LOOKS, tmp_path / "priors", 3, how=HOW)
    refused(lambda: make_priors(booth, LOOKS, tmp_path / "priors", 7, how=HOW), "n: 3 -> 7")
    (tmp_path / "priors/00002.png").unlink()
    refused(lambda: read_priors(tmp_path / "priors"), "00002.png", kind=FileNotFoundError)
    refused(lambda: read_priors(tmp_path / "nowhere"), "nowhere", kind=FileNotFoundError)


def test_booth_training(booth, tmp_path):
    person = know(booth, torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=generator(2)), LOOKS)
    one = {k: v[:1] for k, v in person.items()}

    def trained(person=person, recipe=BOOTH_RECIPE, keep=Keep(tmp_path / "a")):  # noqa: B008
        return train_person(booth, person, person, LOOKS, keep, recipe)

    trained()
    refused(lambda: trained(recipe=replace(BOOTH_RECIPE, loss=BoothLoss(margin=0.3))), "loss.margin: 1.0 -> 0.3")
    refused(lambda: trained(dict(person, y=person["y"].flip(0))), "pictures")
    refused(lambda: trained(keep=Keep()), "folder")
    refused(lambda: trained(keep=Keep(tmp_path / "x", watch=Watch(9))), "Watch(9)", "draws no pictures")
    other = replace(BOOTH_RECIPE, positive="other")
    refused(lambda: trained(one, other, Keep(tmp_path / "x")), "two pictures")
    assert not (tmp_path / "x").exists()
    booth.unet.to(torch.bfloat16)
    refused(lambda: trained(keep=Keep(tmp_path / "half")), "precision='bf16'")
    booth.unet.to(torch.float32)


def test_people(booth, tmp_path):
    ada = dict(name="ada", number=3, sex="female", lora=None)
    refused(
        lambda: generate_people(booth, [dict(ada, lora=tmp_path)], 1, tmp_path / "new", CARD, HOW),
        "train this person first",
        kind=FileNotFoundError,
    )
    long = PromptSampling(negative_prompt=NEGATIVE)
    refused(lambda: generate_people(booth, [ada], 1, tmp_path / "new", CARD, long), "limit")
    refused(lambda: generate_people(booth, [ada], 1, tmp_path / "new", {}, HOW), "licence")
    generate_people(booth, [ada], 1, tmp_path / "made", CARD, HOW)
    more = replace(HOW, steps=3)
    refused(lambda: generate_people(booth, [ada], 1, tmp_path / "made", CARD, more), "steps: 2 -> 3")


def test_consent(tmp_path):
    refused(lambda: check_consent(tmp_path, ["ada"]), "need the consent", kind=FileNotFoundError)
    entries = dict(ada=dict(agreed=True, terms="all"), bob=dict(agreed=False, terms="withdrawn"), cleo="yes")
    (tmp_path / "consent.json").write_text(json.dumps(entries | dict(dan=dict(agreed=True, terms=" "))))
    lacking = dict(bob="has not agreed", cleo='stands there as "yes"', dan="has no terms", eve="is not in it")
    for name, why in lacking.items():
        refused(lambda: check_consent(tmp_path, ["ada", name]), "no consent of 1 of 2 people", f"{name} {why}")
    refused(
        lambda: check_consent(tmp_path, lacking),
        "4 of 4 people",
        *[f"{name} {why}" for name, why in lacking.items()],
        CONSENT,
    )
    (tmp_path / "consent.json").write_text('["ada"]')
    refused(lambda: check_consent(tmp_path, ["ada"]), "consent.json: expected an object", "got list")


@pytest.mark.parametrize("row", [*ID3, *CEMIFACE, *GENERATION, *BOOTH], ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)
