"""Pose by a network of two pixels: degrees by which the brightest column lies to the left."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facesyn.data.faces import parametric_faces
from facesyn.nets.photo_attributes import onnx_attributes

pytest.importorskip("onnxruntime")
LEFT = np.tile([1.0, -1], (3, 2, 1)).reshape(1, -1) / 6 * 60  # left column minus right column, 60 degrees at most
PICTURES = np.zeros((3, 2, 2, 3), np.uint8)
PICTURES[0, :, 0], PICTURES[1, :, 1], PICTURES[2] = 255, 255, 100


@pytest.fixture
def pose(tmp_path):
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1)]
    weights = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in dict(w=LEFT, b=np.zeros(1)).items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])
    graph = helper.make_graph(nodes, "linear", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "pose.onnx"))

    def ask(faces, factor=-1.0, **kw):
        gives = dict(yaw=dict(column=0, factor=factor))
        return onnx_attributes(tmp_path / "pose.onnx", faces, gives, size=2, mean=0.0, std=255.0, **kw)

    return ask


def test_angles_are_clipped_to_their_range(pose):
    assert np.allclose(pose(PICTURES, factor=9.0)[:, 1], [90, -90, 0], atol=1e-3)


def test_a_margin_is_filled_by_reflection(pose):
    assert (abs(pose(PICTURES, margin=0.5)[:2, 1]) < 30).all()  # the reflected margins bring the other side in


def test_faces_and_arrays_alike(pose):
    faces = parametric_faces(2, 2, size=16)
    assert np.array_equal(pose(faces), pose(faces.read(np.arange(4))), equal_nan=True)
    assert pose(PICTURES[:0]).shape == (0, 4)
