"""ID³, CemiFace and what they share, checked on networks of a few weights: units, guidance, solvers, latents."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import nn

from facesyn.core.images import generator, to_float
from facesyn.core.training import Keep, Optim
from facesyn.diffusion.latents import EvenPatches, Patches, encode_images, even_patches, latents_digest
from facesyn.diffusion.sampling import Guidance, interval_options
from facesyn.diffusion.schedule import (
    add_noise,
    error_weight,
    estimate_eps,
    estimate_x0,
    output_from_eps,
    signal_noise,
    target,
)
from facesyn.diffusion.unet import Denoiser, build_unet
from facesyn.methods.cemiface import CemiFaceConditions, CemiFaceWeights, cemiface_loss, similarity_seen
from facesyn.methods.cemiface_training import CemiFaceRecipe, cemiface_batches, cemiface_objective, train_cemiface
from facesyn.methods.id3 import ID3Conditions, ID3Weights, id3_loss, prior_kl, time_weight
from facesyn.methods.id3_sampling import AdjustedScore, ID3Pipeline, adjusted_output
from facesyn.methods.id3_training import ID3Recipe, train_id3
from facesyn.nets.encoders import Encoder

KINDS = ("epsilon", "v_prediction")
T, G = torch.tensor([10, 200, 500, 800]), generator(0)
X0, EPS = torch.rand(4, 3, 8, 8, generator=G) * 2 - 1, torch.randn(4, 3, 8, 8, generator=G)
IMAGES = torch.randint(0, 256, (12, 8, 8, 3), dtype=torch.uint8, generator=G)
S = torch.tensor([[0.0, 30, 0, 40]]).repeat(12, 1)


def seeded(make):
    torch.manual_seed(0)
    return make()


ENCODER = seeded(lambda: Encoder(nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), size=8))
Y = ENCODER(to_float(IMAGES))


def says(kind, answer, conditions):
    "(scheduler, a model that always gives `answer(scheduler, x_t, t)`)"
    scheduler = DDPMScheduler(1000, prediction_type=kind)

    def network(x_t, t, **_):
        return type("Out", (), dict(sample=answer(scheduler, x_t, t)))

    network.config = build_unet(8, (8, 8), 16, head_dim=8).config
    return scheduler, type("Model", (), dict(unet=staticmethod(network), conditions=conditions))


# the schedule


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_are_the_schedulers_own(kind):
    t = torch.tensor([0, 500, 999])
    scheduler = DDPMScheduler(prediction_type=kind, clip_sample=False)
    x_t, wrong = add_noise(scheduler, X0[:3], EPS[:3], t), torch.randn(3, 3, 8, 8, generator=generator(1))
    assert torch.allclose(x_t, scheduler.add_noise(X0[:3], EPS[:3], t), atol=1e-6)
    back = output_from_eps(scheduler, estimate_eps(scheduler, wrong, x_t, t), x_t, t)
    assert torch.allclose(back, wrong, rtol=1e-4, atol=1e-3)
    for other in (scheduler, DDIMScheduler.from_config(scheduler.config, clip_sample=False)):
        other.set_timesteps(1000)
        for k in t.tolist():
            theirs = other.step(wrong, k, x_t, generator=generator(0)).pred_original_sample
            assert torch.allclose(estimate_x0(other, wrong, x_t, k), theirs, rtol=1e-5, atol=1e-5)


def test_weights_of_guidance_sum_to_one():
    g = Guidance(dict(identity=2.0, attributes=1.5), interval=(0.2, 0.7), shown_below=0.9)
    assert all(abs(sum(p[0] for p in g.passes(t, 1000)) - 1) < 1e-12 for t in range(1000))


def test_an_interval_in_a_pipeline_of_diffusers():
    scheduler, seen = DDIMScheduler(timestep_spacing="trailing"), {}

    class Follows:
        "Stands for the pipeline: notes the scale of each step"

        def __call__(self, guidance_scale, callback_on_step_end=lambda *a: None):
            self.scheduler, self._guidance_scale, scales = scheduler, guidance_scale, []
            scheduler.set_timesteps(5)
            for k, t in enumerate(scheduler.timesteps):
                scales.append(round(self._guidance_scale, 3))
                callback_on_step_end(self, k, t, {})
            return scales

    for interval in ((0.0, 1.0), (0.3, 0.7)):
        seen[interval] = Follows()(**interval_options(scheduler, 5, 7.5, interval))
    assert seen == {(0.0, 1.0): [7.5] * 5, (0.3, 0.7): [1, 1, 7.5, 7.5, 1]}  # at levels 1, .8, .6, .4, .2


def test_digests_of_latents_tell_shapes_apart():
    pictures = torch.arange(256 * 12).reshape(16, 8, 8, 3).byte()
    assert latents_digest(Patches(), pictures) != latents_digest(Patches(), pictures.reshape(4, 16, 16, 3))


# ID³


def id3_batch(n=4):
    return dict(x0=X0[:n], y=ENCODER(X0[:n]), s=S[:n])


def test_the_loss_is_the_same_in_eps_and_in_v():
    conditions = seeded(lambda: ID3Conditions(8, (8, 8), 16))
    both = []
    for kind in KINDS:
        sched, model = says(kind, lambda s, x_t, t: output_from_eps(s, EPS + 0.1, x_t, t), conditions)
        both.append(id3_loss(model, sched, ENCODER, id3_batch(), T, EPS))
    assert all(torch.allclose(both[0][k], both[1][k], rtol=1e-3, atol=1e-6) for k in both[0])
    assert torch.allclose(both[0]["denoise"], torch.tensor(0.01), rtol=1e-3)


def test_the_identity_follows_the_weight_of_the_error_only_if_asked():
    sched, unet = DDPMScheduler(), seeded(lambda: build_unet(8, (8, 8), 16, head_dim=8))
    model = Denoiser(unet, ID3Conditions(8, (8, 8), 16))

    def loss_of(batch=id3_batch(), t=T, eps=EPS, **weights):  # noqa: B008
        return id3_loss(model, sched, ENCODER, batch, t, eps, ID3Weights(**weights))

    w, c = time_weight(T + 1), error_weight(sched, T, "v").clamp(max=20)
    for per, expected in (("loss", w), ("error", w * c)):
        assert torch.allclose(loss_of(denoise="v", per=per)["constant"] - prior_kl(sched, X0), expected.mean())
    alone = loss_of({k: v[::2] for k, v in id3_batch().items()}, T[::2], EPS[::2])["cosine"]
    assert torch.allclose(loss_of(share=0.5)["cosine"], alone, atol=1e-5)
    assert loss_of(t=T + 1, identity=0.0)["reconstruct"] == 0  # no image at t = 1


def gaussian():
    "(x_t, network, f, y, mean variance) of pictures x0 ~ N(mu, Sigma), whose best denoiser is linear"
    g, D = generator(1), 12
    root, mu, A = (torch.randn(*n, generator=g).double() for n in ((D, D), (D,), (5, D)))
    root, mu, unit = 0.05 * root, 0.3 * mu.tanh(), torch.eye(D).double()
    sched, x0 = DDIMScheduler(), mu + torch.randn(6, D, generator=g).double() @ root.T
    a, b = (v.flatten() for v in signal_noise(sched, 300, x0))
    J = a * root @ root.T @ torch.linalg.inv(a**2 * root @ root.T + b**2 * unit)
    x_t = (a * x0 + b * torch.randn(6, D, generator=g).double()).reshape(6, 3, 2, 2)

    def network(x):
        flat = x.flatten(1)
        return ((flat - a * (mu + (flat - a * mu) @ J.T)) / b).reshape(x.shape)

    def f(x):
        return F.normalize(x.flatten(1) @ A.T)

    return sched, x_t, network, f, F.normalize(torch.randn(6, 5, generator=g).double()), (root @ root.T).trace() / D


def test_the_adjusted_output():
    sched, x_t, network, f, y, variance = gaussian()
    plain = network(x_t)
    assert adjusted_output(network, sched, x_t, 300, None, None, AdjustedScore()).equal(plain)  # no encoder is run
    assert adjusted_output(network, sched, x_t, 900, y, f, AdjustedScore(1.0)).equal(plain)  # later than `until`
    shift = adjusted_output(network, sched, x_t, 300, y, f, AdjustedScore(50.0, clip=0.2)) - plain
    assert (shift.flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1) <= 0.2 + 1e-9).all() and shift.abs().sum() > 0
    before = (f(estimate_x0(sched, plain, x_t, 300)) * y).sum(1)
    for gradient in ("exact", "stop"):
        how = AdjustedScore(0.01, gradient, variance=variance.item())
        moved = adjusted_output(network, sched, x_t, 300, y, f, how)
        assert ((f(estimate_x0(sched, moved, x_t, 300)) * y).sum(1) > before).all()


def id3(scheduler, vae=None, channels=3, size=8):
    unet = build_unet(size, (8, 8), 16, in_channels=channels, head_dim=8)
    pipe = ID3Pipeline(unet, ID3Conditions(8, (8, 8), 16), scheduler, vae)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, y=Y[:3], **more):
    streams = [generator(7, j) for j in range(3)]
    return pipe(y, S[:3], encoder=ENCODER, generator=streams, num_inference_steps=3, output_type="pt", **more).images


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_eulers_steps_are_ddims(gamma):
    pipe = seeded(lambda: id3(DDIMScheduler(timestep_spacing="leading", clip_sample=False)))
    config, one = pipe.scheduler.config, drawn(pipe, gamma=gamma)
    pipe.scheduler = EulerDiscreteScheduler.from_config(config)
    assert torch.allclose(drawn(pipe, gamma=gamma), one, atol=1e-4 * one.abs().max())
    for kind in (DDPMScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = kind.from_config(config)
        assert drawn(pipe, gamma=gamma, eta=1.0).isfinite().all()


def test_who_is_hidden_is_not_asked_for():
    pipe = seeded(lambda: id3(DDIMScheduler()))
    assert drawn(pipe, gamma=0.5, shown_below=0.0).equal(drawn(pipe, shown_below=0.0))
    assert drawn(pipe, guidance_scale=3.0, guidance_interval=(0.0, 0.0)).equal(drawn(pipe))


def autoencoder():
    "Of images of 8 pixels, which it halves; random weights"
    blocks = dict(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=8)
    torch.manual_seed(2)
    down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    vae = AutoencoderKL(down_block_types=down, up_block_types=up, **blocks)
    return vae.eval().requires_grad_(False)


def test_id3_on_latents():
    vae = autoencoder()
    pipe = id3(DDIMScheduler(clip_sample=False), vae, 4, 4)
    assert drawn(pipe, gamma=0.3).shape == (3, 3, 8, 8)
    batch = dict(x0=encode_images(vae, to_float(IMAGES[:4])), y=Y[:4], s=S[:4])
    terms = id3_loss(pipe, DDPMScheduler(), ENCODER, batch, T, torch.randn(4, 4, 4, 4), decode=pipe.decode)
    assert terms["identity"].requires_grad


# CemiFace


def test_a_network_that_predicts_v_is_judged_by_its_noise():
    output = torch.randn(4, 3, 8, 8, generator=generator(1))
    sched, model = says("v_prediction", lambda *_: output, CemiFaceConditions(8))
    batch = dict(x0=X0, y=ENCODER.features(X0), m=torch.zeros(4))
    terms = cemiface_loss(model, sched, None, batch, T, EPS, CemiFaceWeights(weight=0))
    abar = sched.alphas_cumprod[T][:, None, None, None]
    assert torch.allclose(terms["denoise"], (abar * (output - target(sched, X0, EPS, T)) ** 2).mean(), rtol=1e-4)


def test_shares_and_hidden_conditions():
    unet, sched, seen = build_unet(8, (16, 16), 8, head_dim=8, pooled=False), DDPMScheduler(), similarity_seen(ENCODER)
    model = Denoiser(unet, CemiFaceConditions(8, known=(True, True)))
    batch = dict(x0=X0, y=ENCODER.features(X0), m=X0[:, 0, 0, 0])
    half = cemiface_loss(model, sched, seen, batch, T, EPS, CemiFaceWeights(share=0.5))
    two = cemiface_loss(model, sched, seen, {k: v[::2] for k, v in batch.items()}, T[::2], EPS[::2])
    assert torch.allclose(half["simmat"], two["simmat"], atol=1e-5)
    recipe = CemiFaceRecipe(1, drop=(1.0, 1.0), weights=CemiFaceWeights(0.0))
    batches = [
        cemiface_batches(IMAGES, y, np.ones((2, len(IMAGES))), sched, recipe)(0, 4)
        for y in (np.stack([Y, Y]), -np.stack([Y, Y]))
    ]
    one, other = (cemiface_objective(sched, None, recipe.weights)(model, b)["loss"] for b in batches)
    assert one.equal(other) and not batches[0]["y"].equal(batches[1]["y"])


# both


@pytest.mark.parametrize("kind, residual", [(EvenPatches, False), (AutoencoderKL, True)])
def test_training_on_latents(kind, residual, tmp_path):
    told, optim = dict(channels=(8, 8), head_dim=8), Optim(3e-3, ema=0.5)
    vae = even_patches(IMAGES, 2, 0.75) if kind is EvenPatches else autoencoder()
    kept = [Keep(tmp_path / name) for name in ("one", "other")]
    pipes = [
        train_id3(IMAGES, Y, S, ENCODER, ID3Recipe(2, 6, told, 16, (8, 8), optim=optim), kept[0], vae),
        train_cemiface(IMAGES, ENCODER, CemiFaceRecipe(2, 6, told, residual=residual, optim=optim), kept[1], vae),
    ]
    assert bool(pipes[1].unet.config.class_embed_type) == residual
    assert all((keep.folder / "latents.npy").is_file() == (kind is AutoencoderKL) for keep in kept)
    for pipe in pipes:
        assert isinstance(pipe.vae, kind) and not pipe.scheduler.config.clip_sample
        pipe.save_pretrained(tmp_path / type(pipe).__name__)
        again = type(pipe).from_pretrained(tmp_path / type(pipe).__name__)
        y = ENCODER.features(to_float(IMAGES[:2])) if pipe is pipes[1] else Y[:2]
        options = dict(num_inference_steps=2, output_type="np")
        one, other = (p(y, generator=generator(0), **options).images for p in (pipe, again))
        assert one.shape == (2, 8, 8, 3) and (one == other).all()
