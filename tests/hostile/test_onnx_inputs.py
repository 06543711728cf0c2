"""ONNX networks of every layout, precision, batch and scaling: all see what the plain one sees, or the error says why
not."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facesyn.core.checks import refused
from facesyn.core.files import weights_digest
from facesyn.core.images import generator
from facesyn.nets.encoders import Encoder, embed, load_encoder, unlike_pictures
from facesyn.nets.onnx_inputs import input_range, scaling_inside
from facesyn.nets.onnx_nets import read_onnx

RUNS = dict(argvalues=[True, False], ids=["torch", "runtime"])
TURN = [0, 3, 1, 2]


def node(op, inputs, output, **a):
    return helper.make_node(op, inputs.split(), [output], name=output, **a)


def network(path, shape=("n", 3, 32, 32), before=(), middle=None, kind=TensorProto.FLOAT, **constants):
    "Convolution, ReLU and Gemm, after the nodes `before`, the last of which gives z"
    g = np.random.default_rng(0)
    sizes = dict(w=(8, 3, 3, 3), f=(16, 8 * 8 * 8))
    weights = {k: g.normal(size=size).astype(np.float32) / 10 for k, size in sizes.items()} | constants
    nodes = [*before, node("Conv", f"{'z' if before else 'x'} w", "c", strides=[4, 4], pads=[1] * 4)]
    nodes += [node("Relu", "c", "r"), middle or node("Flatten", "r", "flat"), node("Gemm", "flat f", "y", transB=1)]
    real = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    known = [
        numpy_helper.from_array(np.asarray(v, v.dtype if np.asarray(v).dtype == np.int64 else real), k)
        for k, v in weights.items()
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [info("x", kind, shape)], [info("y", kind, [None, 16])], known)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def chain(*ops):
    "Nodes from x to z, each by one constant c0, c1, ..."
    names = ["x", *(f"t{k}" for k in range(len(ops) - 1)), "z"]
    return [node(op, f"{names[k]} c{k}", names[k + 1]) for k, op in enumerate(ops)]


def constants(*values):
    return {f"c{k}": np.float32(v) for k, v in enumerate(values)}


ONE = dict(middle=node("Reshape", "r sides", "flat"), sides=np.array([1, 8 * 8 * 8]))
FORMS = dict(
    any_size=dict(shape=("n", 3, "h", "w")),
    batch_of_one=dict(shape=(1, 3, 32, 32)),
    one_in_the_graph=dict(shape=(1, 3, 32, 32), **ONE),
    one_undeclared=dict(**ONE),
    batch_of_four=dict(shape=(4, 3, 32, 32)),
    last=dict(shape=("n", 32, 32, 3), before=[node("Transpose", "x", "z", perm=TURN)]),
    last_of_any_size=dict(shape=("n", "h", "w", "c"), before=[node("Transpose", "x", "z", perm=TURN)]),
    last_of_one=dict(shape=(1, 32, 32, 3), before=[node("Transpose", "x", "z", perm=TURN)], **ONE),
    half=dict(kind=TensorProto.FLOAT16),
    half_of_one=dict(shape=(1, 3, 32, 32), kind=TensorProto.FLOAT16),
    subtracted=dict(before=chain("Sub", "Mul"), **constants([127.5], [1 / 127.5])),
    added=dict(before=chain("Add", "Div"), **constants(-127.5, 127.5)),
    multiplied=dict(before=chain("Mul", "Sub"), **constants(1 / 127.5, 1.0)),
    by_colour=dict(before=chain("Sub", "Div"), **constants(np.full((1, 3, 1, 1), 127.5), np.full((3, 1, 1), 127.5))),
    of_unit_range=dict(before=chain("Sub", "Div"), **constants(0.5, 0.5)),
    twice_multiplied=dict(before=chain("Mul", "Sub", "Mul"), **constants(1 / 255, 0.5, 2.0)),
)
PICTURES = torch.rand(5, 3, 32, 32, generator=generator(0)) * 2 - 1


@pytest.mark.parametrize("differentiable", **RUNS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_sees_the_same(form, differentiable, tmp_path):
    plain = load_encoder(network(tmp_path / "plain.onnx"), size=32)
    other = load_encoder(network(tmp_path / "other.onnx", **FORMS[form]), differentiable=differentiable, size=32)
    far = np.abs(embed(plain, PICTURES) - embed(other, PICTURES)).max()
    assert far < (5e-3 if "half" in form else 1e-5)
    if differentiable:
        x = PICTURES.clone().requires_grad_()
        other(x)[:, 0].sum().backward()
        assert (x.grad.flatten(1).norm(dim=1) > 0).all()


def test_other_beginnings_are_no_scaling(tmp_path):
    "Constants after the first layer, or of a network that takes -1..1, change nothing"
    after = dict(middle=node("Flatten", "s", "flat"))
    graph = onnx.load(str(network(tmp_path / "late.onnx", **after)))
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(127.5), "m"))
    graph.graph.node.insert(2, node("Sub", "r m", "s"))
    onnx.save(graph, str(tmp_path / "late.onnx"))
    assert input_range(*scaling_inside(read_onnx(tmp_path / "late.onnx"))) == {}
    same = network(tmp_path / "same.onnx", before=chain("Mul"), **constants(1.0))
    assert input_range(*scaling_inside(read_onnx(same))) == {}


BAKED = FORMS["subtracted"]
REFUSED = [
    (dict(), dict(size=48), "32 high and 32 wide, and is given 48 x 48"),
    (
        dict(shape=("n", 3, 32, 24), f=np.ones((16, 8 * 8 * 6))),
        dict(size=32),
        "32 high and 24 wide, and is given 32 x 32",
    ),
    (dict(shape=("n", 3, "h", "w")), dict(size=48), "cannot run on pictures of 48 x 48"),
    (dict(shape=("n", 1, 32, 32)), dict(size=32), "its dimension 1 is 1, expected 3 colours"),
    (dict(shape=("n", 32, 32, 4)), dict(size=32), "its dimension 1 is 32, expected 3 colours"),
    (dict(shape=("n", 3, 32)), dict(size=32), "(any, 3, 32): expected pictures (n, 3, h, w)"),
    (dict(kind=TensorProto.UINT8), dict(size=32), "of uint8: expected float or float16"),
    (BAKED, dict(size=32, mean=127.5), "mean=127.5 would scale its pictures twice"),
    (BAKED, dict(size=32, std=[128.0, 128.0, 128.0]), "std=[128.0, 128.0, 128.0] would scale"),
    (FORMS["of_unit_range"], dict(size=32, mean=127.5), "mean=0, std=255"),
    (dict(), dict(size=32, crop=(0, 0, 24, 32)), "is given 32 x 24"),
    (dict(shape=("n", 3, "h", "w")), dict(size=32, crop=(8, 0, 40, 32)), "crop (8, 0, 40, 32)"),
    (dict(f=np.zeros((16, 512), np.float32) + 1), dict(size=32), "sees five unlike pictures as one person"),
]


@pytest.mark.parametrize("form, options, words", REFUSED, ids=[row[2] for row in REFUSED])
@pytest.mark.parametrize("differentiable", **RUNS)
def test_refused(form, options, words, differentiable, tmp_path):
    file = network(tmp_path / "net.onnx", **form)
    refused(lambda: load_encoder(file, differentiable=differentiable, **options), "net.onnx", words)


def test_the_scaling_may_be_said_again(tmp_path):
    file = network(tmp_path / "net.onnx", **BAKED)
    assert torch.equal(
        load_encoder(file, size=32)(PICTURES), load_encoder(file, size=32, mean=0, std=[1, 1, 1])(PICTURES)
    )


def test_networks_that_runtime_runs_have_digests_of_their_own(tmp_path):
    other = np.random.default_rng(1).normal(size=(16, 512))
    a = load_encoder(network(tmp_path / "a.onnx"), differentiable=False, size=32)
    b = load_encoder(network(tmp_path / "b.onnx", f=other), differentiable=False, size=32)
    again = load_encoder(tmp_path / "a.onnx", differentiable=False, size=32)
    digests = [weights_digest(dict(encoder=e)) for e in (a, b, again)]
    assert digests[0] == digests[2] != digests[1]


def test_a_network_fed_twice_the_scaling(tmp_path):
    "What the check at the door looks for: twice scaled, the plain network's five patterns are one"
    encoder = load_encoder(network(tmp_path / "plain.onnx"), size=32)
    twice = Encoder(encoder.net, 32, mean=127.5 + 127.5**2, std=127.5**2)
    with torch.no_grad():
        near = [(y @ y.T).min().item() for y in (e(unlike_pictures(32)) for e in (encoder, twice))]
    assert near[0] < 0.5 and near[1] > 0.99


def test_damaged_graphs_are_named(tmp_path):
    file = network(tmp_path / "net.onnx", **FORMS["subtracted"])
    data, rng = file.read_bytes(), np.random.default_rng(0)
    for k in range(60):
        damaged = bytearray(data[: int(rng.integers(len(data)))] if k % 3 == 0 else data)
        for at in rng.integers(min(500, len(damaged)), size=3):
            damaged[at] = int(rng.integers(256))
        file.write_bytes(damaged)
        try:
            load_encoder(file, size=32)
        except ValueError as e:
            assert "net.onnx" in str(e)
