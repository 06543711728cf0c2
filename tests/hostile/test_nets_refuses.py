"""Bad input to the floor `nets` (photographs, augmentation, encoders, ONNX): calls and the words of their errors."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facesyn.core.checks import refused
from facesyn.core.images import generator, write_image
from facesyn.core.training import Keep
from facesyn.core.watching import Watch
from facesyn.data.faces import Faces
from facesyn.nets.alignment import align, similarity, template
from facesyn.nets.attributes import AttributeNet, AttributeRecipe, normalise_attributes, train_attributes
from facesyn.nets.augmentation import rand_augment
from facesyn.nets.backbones import IResNet, MobileFaceNet, check_finite, load_recogniser, recogniser
from facesyn.nets.encoders import Encoder, load_encoder
from facesyn.nets.margins import MarginHead
from facesyn.nets.onnx_export import export_onnx
from facesyn.nets.onnx_nets import RuntimeNet, onnx_to_torch
from facesyn.nets.photo_attributes import check_gives, onnx_attributes, read_column
from facesyn.nets.photographs import known_landmarks, load_models, photo_files, prepare_photos
from facesyn.nets.recogniser import Recipe, check_labels, train_recogniser

UPRIGHT = template()[None].repeat(4, 1, 1)
SWAPPED = UPRIGHT[:, [1, 0, 2, 4, 3]]  # left and right exchanged
ROWS_OUT = np.array([[10.0, -20, 0, 1, 0, 1, 2, 1], [0.0, 5, 1, 0, 0, 1, 2, 3]])
FACES = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=generator(0))
TINY = Encoder(recogniser("tiny32").eval(), 32)
SMALL = IResNet(112, (1, 1, 1, 1), (16, 16, 16, 16), 16)
JUDGE = Encoder(recogniser("tiny32").eval(), 32, differentiable=False)
LITTLE = dict(size=16, layers=(1, 1), widths=(16, 16), dim=16)
X = torch.rand(4, 3, 32, 32, generator=generator(1)) * 2 - 1
NAN = torch.nn.Linear(2, 2)
NAN.weight.data[0, 1] = torch.nan


def labelled(*labels, known=np.nan):
    "Noise pictures of 16 px of people with these labels"
    pictures = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    names, attributes = [f"p{k}" for k in range(max(labels, default=-1) + 1)], np.full((len(labels), 4), known)
    return Faces(labels, names, attributes, 16, lambda index: pictures[index])


def changed(x, row, value):
    x = x.clone()
    x[row] = value
    return x


def shared(**told):
    return train_recogniser(labelled(0, 0, 1, 1), LITTLE, Recipe(1, 4, **told), device="cpu")


CALLS = [
    (lambda: template(200), "size 200"),
    (lambda: similarity(UPRIGHT[0], template()), "landmarks (n, 5, 2)"),
    (lambda: similarity(changed(UPRIGHT, (2, 1, 0), torch.nan), template()), "landmarks 2: NaN"),
    (lambda: similarity(changed(UPRIGHT, 1, 7.0), template()), "landmarks 1: the points coincide"),
    (
        lambda: similarity(changed(UPRIGHT, 3, UPRIGHT[3, [1, 0, 2, 4, 3]]), template()),
        "landmarks 3",
        "no upright face",
    ),
    (lambda: align(FACES, UPRIGHT), "2 images but landmarks of 4"),
    (lambda: rand_augment(FACES, generator(0), kinds=["invert"]), "['invert']: choose from identity"),
    (lambda: rand_augment(FACES, generator(0), magnitude=31), "31 is not in 0..30"),
    (lambda: rand_augment(FACES, generator(0), magnitude=0, varied=True), "0 is not in 1..30"),
    (lambda: rand_augment(FACES, generator(0), kinds=[]), "given"),
    (lambda: Encoder(recogniser("tiny32"), 32, channels="grb"), "'grb'", "rgb or bgr"),
    (lambda: TINY(changed(X, (2, 0, 5, 5), torch.nan)), "image 2 of the batch"),
    (lambda: TINY(FACES), "float images (n, 3, h, w)", "uint8"),
    (lambda: JUDGE(X.clone().requires_grad_()), "differentiable=False"),
    (lambda: load_encoder("toy.onnx"), "toy.onnx: give the size"),
    (lambda: export_onnx(TINY, "x.onnx"), "at least 112"),
    (lambda: export_onnx(Encoder(SMALL, 112, channels="bgr"), "x.onnx"), "RGB"),
    (lambda: export_onnx(Encoder(SMALL, 112, crop=(0, 0, 112, 112)), "x.onnx"), "square faces"),
    (lambda: read_column(ROWS_OUT, "age", column=8), "age: columns 8 to 8"),
    (lambda: read_column(ROWS_OUT, "age", column=-1), "age: columns -1"),
    (lambda: read_column(ROWS_OUT, "age", column=4, counted=3), "age: columns 4 to 9"),
    (lambda: check_gives(dict()), "expected some of pitch"),
    (lambda: check_gives(["yaw"]), "expected some of pitch"),
    (lambda: check_gives(dict(yaw=None)), "yaw: None"),
    (lambda: check_gives(dict(jaw=dict(column=0))), "jaw"),
    (lambda: check_gives(dict(yaw=dict(colum=0))), "colum"),
    (lambda: onnx_attributes("x.onnx", FACES, dict(yaw={}), margin=1.0, size=16), "margin=1.0"),
    (lambda: check_finite(NAN, "my network"), "my network: tensor weight has 1 NaN"),
    (lambda: IResNet(size=16, layers=(1, 1), widths=(8, 16)), "at least 16 channels"),
    (lambda: TINY.net(X[:, :, :16]), "expected (n, 3, 32, 32)", "(4, 3, 16, 32)"),
    (lambda: recogniser("mobilenet"), "no network 'mobilenet'", "mobilefacenet"),
    (lambda: Recipe(schedule="stairs"), "stairs", "linear"),
    (lambda: MarginHead(2, 3, "sphereface"), "no margin 'sphereface'", "arcface"),
    (lambda: MarginHead(2, 3)(torch.zeros(1, 2), torch.tensor([3])), "3..3 do not fit 3 classes"),
    (lambda: check_labels(SimpleNamespace(labels=[0, 0, 2, 2], names=["a", "b", "c"])), "identity 1 (b)"),
    (lambda: check_labels(labelled(0, 0)), "at least 2 identities"),
    (lambda: check_labels(labelled(0, 0, 1, 2, 2)), "identity 1 (p1) has one image"),
    (lambda: check_labels(labelled()), "without identity"),
    (lambda: train_recogniser(labelled(0, 0, 1, 1), "mobilefacenet"), "16 px and the network takes 112 px"),
    (lambda: train_recogniser(labelled(0, 0, 1, 1), "mobilenet"), "no network 'mobilenet'"),
    (lambda: train_recogniser(labelled(0, 0, 1, 1), LITTLE), "batch=128", "4 pictures"),
    (lambda: train_attributes(labelled(0, 0, 1, 1)), "known attribute"),
    (lambda: train_attributes(labelled(0, 1, known=30.0), LITTLE), "batch=128", "2 pictures"),
    *((lambda k=k: Recipe(**{k: 0}), f"Recipe: {k}=0") for k in ("epochs", "batch", "accumulate", "normalise")),
    *((lambda v=v: Recipe(sample=v), f"sample={v!r}") for v in (0, -0.1, 1.5, float("nan"), True, "all")),
    (lambda: Recipe(precision="fp8"), "precision='fp8'", "no, bf16, fp16"),
    (lambda: shared(precision="fp16"), "precision='fp16' needs a CUDA GPU", "cpu"),
    (lambda: shared(accumulate=3), "a batch of 4 cannot be shared by 1 processes with 3 parts each"),
    (lambda: shared(accumulate=2), "cannot see 4 pictures together", "may be 2 there"),
    (lambda: shared(normalise=3), "cannot see 3 pictures together"),
    (lambda: shared(accumulate=4, normalise=1), "cannot see 1 pictures together"),
    (lambda: MarginHead(2, 3)(X[:1, 0, 0, :2], torch.tensor([1]), torch.tensor([0, 2])), "not among those"),
    *((lambda k=k: AttributeRecipe(**{k: 0}), f"AttributeRecipe: {k}=0") for k in ("epochs", "batch")),
    (lambda: train_attributes(labelled(0, 1, known=30.0)), "16 px and the network takes 32 px"),
    (lambda: normalise_attributes([[0, 0, 20]]), "expected attributes (n, 4)", "(1, 3)"),
]


def test_a_folder_of_another_network(tmp_path):
    AttributeNet(16, (1, 1), (16, 16), 16).save_pretrained(tmp_path)
    refused(lambda: load_recogniser(tmp_path), "AttributeNet", str(tmp_path))
    refused(lambda: load_recogniser(tmp_path / "none"), "none", "no such folder", kind=FileNotFoundError)
    (tmp_path / "config.json").unlink()
    refused(lambda: load_recogniser(tmp_path), "config.json is missing", kind=FileNotFoundError)


def test_a_network_that_breaks(tmp_path):
    net = MobileFaceNet(32, (1, 0, 0, 0), 1, 16).eval()
    net.features.layers[3].bias.data[2] = torch.nan
    refused(lambda: net(X), "MobileFaceNet: tensor features.layers.3.bias")
    refused(lambda: TINY.net(changed(X, (2, 0, 5, 5), torch.nan)), "IResNet: the input has NaN")


CHANGES = [
    (train_recogniser, dict(lr=0.2), "lr: 0.1 -> 0.2"),
    (train_recogniser, dict(normalise=2), "normalise: None -> 2"),
    (train_recogniser, dict(sample=0.5), "sample: 1.0 -> 0.5"),
    (train_recogniser, dict(precision="bf16"), "precision: 'no' -> 'bf16'"),
    (train_recogniser, dict(rand=dict(ops=2)), "rand.ops: None -> 2"),
    (train_recogniser, dict(crop=0.9), "crop: 0.0 -> 0.9"),
    (train_recogniser, dict(jitter=0.1), "jitter: 0.0 -> 0.1"),
    (train_attributes, dict(lr=0.02), "lr: 0.1 -> 0.02"),
]


@pytest.mark.parametrize("train", [train_recogniser, train_attributes], ids=lambda train: train.__name__)
def test_a_checkpoint_of_another_training(train, tmp_path):
    recipe = dict(epochs=1, batch=4, lr=0.1)
    kind = Recipe if train is train_recogniser else AttributeRecipe
    faces, net = labelled(0, 0, 1, 1, known=30.0), LITTLE
    keep = Keep(tmp_path, seconds=0.0)
    train(faces, net, kind(**recipe), keep, device="cpu")
    for trainer, change, words in CHANGES:
        if trainer is train:
            refused(lambda: train(faces, net, kind(**recipe | change), keep, device="cpu"), str(tmp_path), words)  # noqa: B023
    negative = replace(faces, read=lambda k: 255 - faces.read(k))
    refused(lambda: train(negative, net, kind(**recipe), keep, device="cpu"), "other pixels")
    keep.path.write_bytes(keep.path.read_bytes()[:5000])
    refused(lambda: train(faces, net, kind(**recipe), keep, device="cpu"), "checkpoint.safetensors is not a checkpoint")


@pytest.mark.parametrize("train, kind", [(train_recogniser, Recipe), (train_attributes, AttributeRecipe)])
def test_a_training_that_draws_nothing_is_not_watched(train, kind, tmp_path):
    keep = Keep(tmp_path / "new", label="eyes", watch=Watch(9))
    call = lambda: train(labelled(0, 0, 1, 1, known=30.0), LITTLE, kind(1, 4), keep, device="cpu")  # noqa: E731
    refused(call, "Watch(9)", "eyes draws no pictures")
    assert not (tmp_path / "new").exists()


def test_a_loss_that_is_not_finite():
    wild = Recipe(epochs=4, batch=8, lr=1e30, warmup=0.0)
    refused(lambda: train_recogniser(labelled(*[0, 1] * 8), LITTLE, wild), "step", "loss", kind=FloatingPointError)


@pytest.mark.parametrize("row", CALLS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


def test_missing_files(tmp_path):
    (tmp_path / "empty").mkdir()
    for call in (load_encoder, load_models, onnx_to_torch, photo_files, known_landmarks):
        refused(lambda: call(tmp_path / "none"), "none", kind=FileNotFoundError)
    refused(lambda: load_models(tmp_path / "empty"), "empty", "non-commercial", kind=FileNotFoundError)
    refused(
        lambda: onnx_attributes(tmp_path / "none.onnx", FACES, dict(yaw=dict(column=0)), size=2),
        "none.onnx",
        kind=FileNotFoundError,
    )


def odd_checkpoints():
    mobile = MobileFaceNet(32, (1, 1, 1, 1), 1, 12).state_dict()
    moved = dict(mobile)
    moved["layers.8.weight"] = moved.pop("layers.3.layers.0.layers.1.layers.2.weight")
    cut = {k: v for k, v in mobile.items() if k != "features.layers.2.weight"}
    renamed = IResNet(32, (2, 1, 3), (16, 24, 32), 12).state_dict()
    renamed["extra.weight"] = renamed.pop("layer3.1.bn2.bias")
    return [
        (renamed, "missing layer3.1.bn2.bias, unexpected extra.weight"),
        (moved, "missing layers.3.layers.0.layers.1.layers.2.weight, unexpected layers.8.weight"),
        (cut, "x.pth is no IResNet or MobileFaceNet"),
        (dict(weights=torch.ones(3)), "x.pth is no IResNet"),
        ([torch.ones(3)], "expected a state dict"),
    ]


@pytest.mark.parametrize("state, words", odd_checkpoints(), ids=lambda v: v if isinstance(v, str) else "")
def test_checkpoints(state, words, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    refused(lambda: load_encoder(tmp_path / "x.pth"), "x.pth", words)


def test_a_checkpoint_that_is_text(tmp_path):
    (tmp_path / "text.pth").write_text("no tensors")
    refused(lambda: load_encoder(tmp_path / "text.pth"), "text.pth as a file of tensors")


def test_a_folder_knows_its_input(tmp_path):
    TINY.net.save_pretrained(tmp_path / "net")
    refused(lambda: load_encoder(tmp_path / "net", size=3), "knows its own input", "size")


def saved(path, *nodes, **weights):
    "An .onnx file of these nodes, from x (n, 2, h, w) to y"
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, "h", "w"]) for name in "xy"]
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(list(nodes), "odd", info[:1], info[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(pads=[0, 0, 1, 1]), "AveragePool of [2, 2] with pads [0, 0, 1, 1]"),
        (dict(auto_pad="SAME_UPPER"), "SAME_UPPER"),
        (dict(dilations=[2, 2]), "dilations [2, 2]"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_pools_without_a_torch_version(options, words, tmp_path):
    node = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], **options)
    refused(lambda: onnx_to_torch(saved(tmp_path / "odd.onnx", node)), "odd.onnx", words)


def test_weights_and_files_that_are_none(tmp_path):
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    refused(lambda: onnx_to_torch(saved(tmp_path / "nan.onnx", node, w=[np.nan])), "nan.onnx: tensor w")
    (tmp_path / "text.onnx").write_text("no graph")
    refused(lambda: onnx_to_torch(tmp_path / "text.onnx"), "cannot read", "text.onnx")
    refused(lambda: load_models(tmp_path / "text.onnx"), "text.onnx", "non-commercial")


def test_onnx_runtime(tmp_path):
    pytest.importorskip("onnxruntime")
    net = RuntimeNet(saved(tmp_path / "toy.onnx", helper.make_node("Mul", ["x", "w"], ["y"]), w=np.ones((2, 4, 4))))
    x = torch.rand(1, 2, 4, 4, generator=generator(2))
    refused(lambda: net(x.clone().requires_grad_()), "toy.onnx", "gives no gradient")
    refused(lambda: net(x[:, :, :3]), "toy.onnx")
    refused(lambda: RuntimeNet(tmp_path / "none.onnx"), "no ONNX file", kind=FileNotFoundError)
    (tmp_path / "text.onnx").write_text("no graph")
    refused(lambda: RuntimeNet(tmp_path / "text.onnx"), "text.onnx as ONNX")


def test_attributes_of_no_square(tmp_path):
    path = saved(tmp_path / "mean.onnx", helper.make_node("GlobalAveragePool", ["x"], ["y"]))
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(model, path)
    ask = dict(gives=dict(yaw=dict(column=0)), size=16)
    refused(lambda: onnx_attributes(path, FACES[:, :8].numpy(), **ask), "square")
    refused(lambda: onnx_attributes(path, FACES.numpy(), margin=0.99, **ask), "margin=0.99")


CARD = dict(name="photos", source="rendered", method="aligned", licence="Apache-2.0", limits="rendered")


def photographs(root):
    "Two pictures of a black square, with landmarks of an upright face"
    rows = []
    for k in range(2):
        write_image(np.zeros((112, 112, 3), np.uint8), root / "photos" / "ann" / f"{k}.png")
        rows.append(json.dumps(dict(file=f"ann/{k}.png", landmarks=template().tolist())))
    (root / "landmarks.jsonl").write_text("\n".join(rows) + "\n")
    return root / "photos", known_landmarks(root / "landmarks.jsonl")


def test_photographs(tmp_path):
    root, find = photographs(tmp_path)
    prepare_photos(root, tmp_path / "out", find, CARD)
    refused(lambda: prepare_photos(root, tmp_path / "out", find, CARD, size=128), "size: 112 -> 128")
    refused(lambda: prepare_photos(root, tmp_path / "out", find, CARD, enlarge=0.1), "enlarge: 2.5 -> 0.1")
    refused(
        lambda: prepare_photos(root, tmp_path / "small", find, CARD, enlarge=0.1), "none of the 2 photos", "rejected"
    )
    refused(lambda: prepare_photos(root, tmp_path / "c", find, dict(CARD, licence="")), "licence")
    write_image(np.zeros((8, 8, 3), np.uint8), root / "stray.png")
    refused(lambda: photo_files(root), "stray.png", "ann")
    (tmp_path / "landmarks.jsonl").write_text('{"file": "a", "landmarks": [[1, 2]]}\n')
    refused(lambda: known_landmarks(tmp_path / "landmarks.jsonl"), "landmarks.jsonl row 1")
