"""Encoders on real networks and real faces, which are not part of this repository: skipped where ../shared/data is
absent."""

import os
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facesyn.core.images import to_float, to_uint8, write_image
from facesyn.data.faces import folder_faces, read_manifest
from facesyn.measure.scores import eer
from facesyn.measure.verification import verify
from facesyn.nets.alignment import similarity, template, warp
from facesyn.nets.encoders import embed, load_encoder
from facesyn.nets.onnx_nets import onnx_to_torch
from facesyn.nets.photographs import find_faces, load_models, predict_photo_attributes, prepare_photos
from facesyn.rendered.faces import render_faces

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
IMAGENET = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
NETWORKS = dict(
    edgeface_xxs_q_dequant=dict(size=112),
    mobilefacenet_foamliu=dict(size=112, **IMAGENET),
    mobilefacenet_casia_112x96=dict(size=112, std=128.0, crop=(8, 0, 104, 112)),
)
NETWORKS["face-reidentification-retail-0095"] = dict(size=128, channels="bgr", mean=0.0, std=1.0)
RETAIL = 128 * torch.tensor(
    [
        [30.2946 / 96, 51.6963 / 112],
        [65.5318 / 96, 51.5014 / 112],
        [48.0252 / 96, 71.7366 / 112],
        [33.5493 / 96, 92.3655 / 112],
        [62.7299 / 96, 92.2041 / 112],
    ]
)  # Open Model Zoo's template for face-reidentification-retail
LFW = dict(edgeface_xxs_q_dequant=99.63, mobilefacenet_foamliu=99.52, mobilefacenet_casia_112x96=99.12) | {
    "face-reidentification-retail-0095": 99.43
}  # per cent, 10 folds, as published beside the files
pytestmark = pytest.mark.skipif(not (DATA / "weights").is_dir(), reason=f"no real networks: {DATA}/weights is absent")


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_equals_onnxruntime(name):
    session = pytest.importorskip("onnxruntime").InferenceSession(DATA / "weights" / f"{name}.onnx")
    shape = session.get_inputs()[0].shape[1:]
    x = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if NETWORKS[name].get("std") == 1.0:
        x = x * 127.5 + 127.5
    (expected,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        ours = onnx_to_torch(DATA / "weights" / f"{name}.onnx")(x)
    assert np.allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_encoders_agree_on_drawn_faces(name):
    "The same preprocessing and features, by torch and by ONNX Runtime; the second refuses a gradient"
    pytest.importorskip("onnxruntime")
    faces = render_faces(range(4), [0] * 4, 112)[0]
    ours, theirs = (
        load_encoder(DATA / "weights" / f"{name}.onnx", differentiable=d, **NETWORKS[name]) for d in (True, False)
    )
    e = embed(ours, faces)
    assert ours.dim == theirs.dim == e.shape[1] and np.abs(e - embed(theirs, faces)).max() < 1e-4
    with pytest.raises(ValueError, match="differentiable=False"):
        theirs(to_float(faces).requires_grad_())


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_the_pixels(name):
    encoder = load_encoder(DATA / "weights" / f"{name}.onnx", **NETWORKS[name])
    x = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    y = encoder(x)
    assert y.shape == (2, encoder.dim) and torch.allclose(y.norm(dim=1), torch.ones(2), atol=1e-5)
    y[:, 0].sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.skipif(
    not (DATA / "lfw_aligned112.npz").is_file(), reason=f"no real faces: {DATA}/lfw_aligned112.npz is absent"
)
def test_edgeface_knows_people_of_lfw():
    "The first 15 genuine and 15 impostor pairs of each fold: the full protocol gives 99.6 %"
    with np.load(DATA / "lfw_aligned112.npz", allow_pickle=False) as d:
        jpeg, offsets, pairs, issame = d["jpeg"], d["offsets"], d["pairs"], d["issame"].astype(bool)
    chosen = np.concatenate(
        [
            600 * fold + np.flatnonzero(issame[600 * fold : 600 * (fold + 1)] == same)[:15]
            for fold in range(10)
            for same in (True, False)
        ]
    )
    images = np.stack(
        [
            np.asarray(Image.open(BytesIO(jpeg[offsets[k] : offsets[k + 1]].tobytes())).convert("RGB"))
            for k in pairs[chosen].T.ravel()
        ]
    )
    e1, e2 = np.split(
        embed(load_encoder(DATA / "weights" / "edgeface_xxs_q_dequant.onnx", size=112), images, batch=50), 2
    )
    cosine, same = (e1 * e2).sum(1), issame[chosen]
    assert verify(e1, e2, same)["accuracy"] > 0.98 and eer(cosine[same], cosine[~same]) < 0.02
    assert abs(cosine[same].mean() - 0.636) < 0.04 and abs(cosine[~same].mean() - 0.012) < 0.02


def lfw(index):
    "uint8 (k, 112, 112, 3)"
    with np.load(DATA / "lfw_aligned112.npz", allow_pickle=False) as d:
        jpeg, offsets = d["jpeg"], d["offsets"]
    return np.stack(
        [np.asarray(Image.open(BytesIO(jpeg[offsets[k] : offsets[k + 1]].tobytes())).convert("RGB")) for k in index]
    )


class ViewTwo:
    """The pictures of LFW's View 2 that occur in pairs, as faces for `embed`; with `target` (5, 2) aligned to it in 128
    pixels instead of ArcFace's template in 112"""

    def __init__(self, target=None):
        with np.load(DATA / "lfw_aligned112.npz", allow_pickle=False) as d:
            self.jpeg, self.offsets, pairs, self.issame = d["jpeg"], d["offsets"], d["pairs"], d["issame"].astype(bool)
        self.used, back = np.unique(pairs, return_inverse=True)
        self.pairs, self.labels, self.M = (
            back.reshape(pairs.shape),
            np.zeros(len(self.used), int),
            None if target is None else similarity(template(112)[None], target),
        )

    def read(self, index):
        x = np.stack(
            [
                np.asarray(
                    Image.open(BytesIO(self.jpeg[self.offsets[k] : self.offsets[k + 1]].tobytes())).convert("RGB")
                )
                for k in self.used[index]
            ]
        )
        return x if self.M is None else to_uint8(warp(to_float(torch.as_tensor(x)), self.M.expand(len(x), 2, 3), 128))


@pytest.mark.skipif(
    os.environ.get("FACESYN_SLOW") != "1", reason="the whole protocol takes many minutes a network: set FACESYN_SLOW=1"
)
@pytest.mark.skipif(
    not (DATA / "lfw_aligned112.npz").is_file(), reason=f"no real faces: {DATA}/lfw_aligned112.npz is absent"
)
@pytest.mark.parametrize("name", NETWORKS)
def test_lfw_view_2_on_both_paths(name):
    """6,000 pairs in 10 folds, features of picture and mirror image summed: the published accuracy by ONNX Runtime and
    by torch, and the same embeddings"""
    faces, e, reached = ViewTwo(RETAIL if "retail" in name else None), {}, {}
    for path, differentiable in (("ONNX Runtime", False), ("torch", True)):
        began = time.time()
        e[path] = embed(
            load_encoder(DATA / "weights" / f"{name}.onnx", differentiable=differentiable, **NETWORKS[name]),
            faces,
            batch=64,
        )
        result = verify(*(e[path][k] for k in faces.pairs.T), faces.issame, repeats=True)
        reached[path] = 100 * result["accuracy"]
        print(
            f"{name}, {path}: {100 * result['accuracy']:.2f} +- {100 * result['std']:.2f} %,"
            f" {len(faces.labels)} pictures,"
            f" {time.time() - began:.0f} s",
            flush=True,
        )
    difference = np.abs(e["torch"] - e["ONNX Runtime"]).max()
    print(f"{name}: largest difference of the unit embeddings {difference:.1e}", flush=True)
    assert difference < 1e-4 and all(abs(a - LFW[name]) < 0.1 + 1e-6 for a in reached.values()), reached


@pytest.mark.skipif(
    not (DATA / "lfw_aligned112.npz").is_file(), reason=f"no real faces: {DATA}/lfw_aligned112.npz is absent"
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_photos_are_found_and_aligned_again(tmp_path):
    """Turned, enlarged faces on a grey canvas: the detector finds them, the crop is upright again, and the encoder sees
    the same person"""
    pytest.importorskip("insightface")
    faces = lfw(range(0, 12000, 1000))
    for k, face in enumerate(faces):
        canvas = Image.new("RGB", (320, 280), (90, 90, 90))
        canvas.paste(Image.fromarray(face).resize((168, 168), Image.Resampling.BICUBIC), (70, 60))
        write_image(
            np.asarray(canvas.rotate(25, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))),
            tmp_path / "photos" / f"{k:02d}.png",
        )
    write_image(np.full((200, 200, 3), 90, np.uint8), tmp_path / "photos" / "nobody.png")
    models = load_models(DATA / "weights" / "scrfd_500m_kps_dyn.onnx", det_size=(320, 320))
    card = prepare_photos(
        tmp_path / "photos",
        tmp_path / "out",
        lambda file, image: find_faces(models, image),
        dict(name="photos", source="test", method="aligned", licence="none", limits="test"),
    )
    assert (
        card["images"] == len(faces)
        and card["rejected"] == 1
        and '"photo": "nobody.png", "reason": "no face; if these 200 x 200 px'
        in (tmp_path / "out" / "rejected.jsonl").read_text()
    )
    again = folder_faces(tmp_path / "out", 112).read(np.arange(len(faces)))
    encoder = load_encoder(DATA / "weights" / "edgeface_xxs_q_dequant.onnx", size=112)
    cosine = (embed(encoder, faces) * embed(encoder, again)).sum(1)
    turned = np.array(
        [np.array(r["landmarks"])[1] - np.array(r["landmarks"])[0] for r in read_manifest(tmp_path / "out")]
    )
    assert np.abs(np.rad2deg(np.arctan2(turned[:, 1], turned[:, 0])) + 25).mean() < 5  # eyes turned as the canvas was
    assert cosine.mean() > 0.85 and cosine.min() > 0.6, cosine


@pytest.mark.skipif(
    not (DATA / "lfw_aligned112.npz").is_file(), reason=f"no real faces: {DATA}/lfw_aligned112.npz is absent"
)
def test_old_genderage_tells_ages():
    """insightface's older network behind the interface of the newer one: its answers counted one by one, the same for a
    turned photo, alike for two pictures of one person"""
    pytest.importorskip("insightface")
    models, session = (
        load_models(DATA / "weights" / "genderage_old.onnx"),
        pytest.importorskip("onnxruntime").InferenceSession(DATA / "weights" / "genderage_old.onnx"),
    )
    with np.load(DATA / "lfw_aligned112.npz", allow_pickle=False) as d:
        pairs = d["pairs"][d["issame"].astype(bool)][::75]
    faces = lfw(pairs.T.ravel())
    ages = predict_photo_attributes(models, faces)
    assert set(models) == {"genderage"} and torch.isnan(ages[:, :3]).all()
    (out,) = session.run(None, {"data": faces.transpose(0, 3, 1, 2).astype(np.float32)})
    assert ages[:, 3].tolist() == [sum(np.argmax(row[2 + 2 * k : 4 + 2 * k]) for k in range(100)) for row in out]
    first, second = ages[:, 3].numpy().reshape(2, -1)
    turned, marks = [], template(112).numpy() - 55.5
    for face in faces[:20]:
        canvas = Image.new("RGB", (320, 320))
        canvas.paste(Image.fromarray(face).resize((168, 168), Image.Resampling.BICUBIC), (76, 76))
        turned.append(np.asarray(canvas.rotate(25, Image.Resampling.BICUBIC)))
    c, s = np.cos(np.deg2rad(25)), np.sin(np.deg2rad(25))  # counter-clockwise, y downwards
    where = dict(box=(60, 60, 260, 260), landmarks=159.5 + 1.5 * marks @ np.array([[c, -s], [s, c]]))
    again = predict_photo_attributes(models, turned, [where] * 20)[:, 3].numpy()
    print(
        f"ages {first.mean():.1f} +- {first.std():.1f}; two pictures of one person: r"
        f" {np.corrcoef(first, second)[0, 1]:.2f}, {np.abs(first - second).mean():.1f} years apart; turned:"
        f" {np.abs(again - first[:20]).mean():.1f}"
    )
    assert (
        25 < first.mean() < 55
        and first.std() > 5
        and np.corrcoef(first, second)[0, 1] > 0.6
        and np.abs(again - first[:20]).mean() < 3
    )
