"""RandAugment against a chain of Pillow's operations, one picture at a time; its draws; and a training with every
random change that is stopped and goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from facesyn.core.images import generator
from facesyn.core.training import Keep
from facesyn.data.faces import Faces
from facesyn.nets.augmentation import OPERATIONS, RAND_KINDS, augment, colour_jitter, rand_augment, random_crop
from facesyn.nets.recogniser import Recipe, train_recogniser


def pictures(n, h, w):
    "Noise, smooth ramps, and pictures with one, two and few grey levels"
    rng = np.random.default_rng(0)
    out = rng.integers(0, 256, (n, h, w, 3), dtype=np.uint8)
    ramp = np.add.outer(np.arange(h), np.arange(w)) * 2
    for k in range(0, n, 5):
        out[k] = ramp[..., None] + np.array([0, 20, 60])
        if k + 1 < n:
            out[k + 1] = 40 + k
        if k + 2 < n:
            out[k + 2] = np.where(out[k + 2] < 30, 7, 250)
        if k + 3 < n:
            out[k + 3] = out[k + 3] // 16 + 100
    return torch.as_tensor(out)


def pil(image, kind, level, sign):
    "The usual implementation's call for `level` of 30"
    w, h = image.size
    v = sign * level / 30
    if kind == "identity":
        return image
    if kind == "shear_x":
        return image.transform((w, h), Image.Transform.AFFINE, (1, 0.3 * v, 0, 0, 1, 0))
    if kind == "shear_y":
        return image.transform((w, h), Image.Transform.AFFINE, (1, 0, 0, 0.3 * v, 1, 0))
    if kind == "translate_x":
        return image.transform((w, h), Image.Transform.AFFINE, (1, 0, -int(150 / 331 * w * v), 0, 1, 0))
    if kind == "translate_y":
        return image.transform((w, h), Image.Transform.AFFINE, (1, 0, 0, 0, 1, -int(150 / 331 * h * v)))
    if kind == "rotate":
        return image.rotate(30 * v)
    if kind == "posterize":
        return ImageOps.posterize(image, 8 - round(level / 7.5))
    if kind == "solarize":
        return ImageOps.solarize(image, 255 - 255 * level / 30)
    if kind == "autocontrast":
        return ImageOps.autocontrast(image)
    if kind == "equalize":
        return ImageOps.equalize(image)
    if kind == "grayscale":
        return image.convert("L").convert("RGB")
    return dict(
        brightness=ImageEnhance.Brightness,
        color=ImageEnhance.Color,
        contrast=ImageEnhance.Contrast,
        sharpness=ImageEnhance.Sharpness,
    )[kind](image).enhance(1 + 0.9 * v)


@pytest.mark.parametrize(
    "size,magnitude,kinds,varied",
    [
        ((48, 48), 16, RAND_KINDS, False),
        ((40, 57), 30, tuple(OPERATIONS), True),
        ((33, 20), 7, tuple(OPERATIONS)[::-1], False),
    ],
)
def test_equals_pillow_one_picture_at_a_time(size, magnitude, kinds, varied):
    images = pictures(120, *size)
    ours = rand_augment(images, generator(3, 1), 4, magnitude, kinds, varied)
    draws = torch.rand(len(images), 4, 3, generator=generator(3, 1), dtype=torch.float64).numpy()
    used = set()
    for image, out, rows in zip(images.numpy(), ours.numpy(), draws):
        image = Image.fromarray(image)
        for kind, sign, level in rows:
            used.add(name := kinds[int(kind * len(kinds))])
            image = pil(image, name, 1 + int(level * magnitude) if varied else magnitude, -1 if sign < 0.5 else 1)
        assert np.array_equal(np.array(image), out)
    assert used == set(kinds)


def test_draws_do_not_depend_on_the_batch():
    images = pictures(40, 24, 24)
    for change in (
        lambda x, g: rand_augment(x, g, 3, 20, varied=True),
        lambda x, g: random_crop(x, g, 0.5),
        lambda x, g: colour_jitter(x, g, 0.3),
    ):
        whole = change(images, generator(1))
        for n in (1, 2, 7, 39):
            assert torch.equal(change(images[:n], generator(1)), whole[:n])
        assert whole.dtype == torch.uint8 and whole.shape == images.shape and not torch.equal(whole, images)


def test_kinds_signs_and_magnitudes_are_even():
    "On a ramp from left to right a translation, and its sign and size, can be read off"
    n, w = 6000, 300
    ramp = torch.arange(w, dtype=torch.float64).mul(254 / w).add(1).byte().view(1, 1, w, 1).expand(n, 1, w, 3)
    out = rand_augment(ramp, generator(2), 1, 15, ["translate_x", "identity"], varied=True)
    left, right = (
        (out[:, 0, :, 0] == 0).int().cumprod(1).sum(1),
        (out[:, 0, :, 0].flip(1) == 0).int().cumprod(1).sum(1),
    )
    assert abs((left > 0).sum() - n / 4) < 150 and abs((right > 0).sum() - n / 4) < 150
    counts = torch.bincount(left[left > 0])
    sizes = [150 * w * k // 331 // 30 for k in range(1, 16)]
    assert counts.nonzero().squeeze(1).tolist() == sizes and abs(counts[sizes] / (n / 60) - 1).max() < 0.4


def test_augment_is_the_parts_in_order():
    images = pictures(20, 32, 32)
    g = generator(5)
    x = augment(images, g)
    x = rand_augment(colour_jitter(random_crop(x, g, 0.8), g, 0.2), g, ops=2, magnitude=10)
    assert torch.equal(augment(images, generator(5), crop=0.8, jitter=0.2, rand=dict(ops=2, magnitude=10)), x)
    holes = augment(images, generator(5), erase=(1, 0.05, 0.05), crop=0.8, jitter=0.2, rand=dict(ops=2, magnitude=10))
    changed = (holes != x).any(-1).flatten(1)
    assert (
        (holes[(holes != x).any(-1)] == 128).all()
        and (changed.float().mean(1) > 0.02).all()
        and (changed.float().mean(1) < 0.07).all()
    )


def test_training_with_every_change_goes_on_where_it_stopped(tmp_path):
    images, calls = pictures(96, 16, 16).numpy(), []

    def read(k):
        calls.append(len(k))
        if len(calls) == 10:
            raise OSError("stopped")
        return images[k]

    faces = Faces(np.arange(96) % 6, [f"p{k}" for k in range(6)], np.zeros((96, 4)), 16, read)
    network = dict(size=16, layers=(1, 1), widths=(16, 16), dim=8, se=True)
    recipe = Recipe(
        epochs=3,
        batch=16,
        lr=0.05,
        s=16.0,
        erase=[0.5, 0.02, 0.1],
        crop=0.9,
        jitter=0.1,
        rand=dict(ops=2, magnitude=10, kinds=["rotate", "equalize"]),
    )

    def trained(recipe=recipe, keep=Keep(tmp_path, seconds=0.0)):
        return train_recogniser(faces, network, recipe, keep, device="cpu", memory=0)

    with pytest.raises(OSError):
        trained()
    resumed, log = trained()
    alone, same_log = trained(keep=Keep())
    plain, _ = trained(replace(recipe, rand=None), Keep())
    assert log == same_log and all(
        torch.equal(a, b) for a, b in zip(resumed.state_dict().values(), alone.state_dict().values())
    )
    assert not torch.equal(plain.fc.weight, alone.fc.weight)
    with pytest.raises(ValueError, match="other settings .*rand.ops: 2 -> 3"):
        trained(replace(recipe, rand=dict(ops=3)))
