"""One way to do a thing: one checkpoint, one refusal, one shuffle, one schedule, one progress bar; few arguments."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "facesyn"
ROOMS = {str(p.relative_to(PACKAGE)): ast.parse(p.read_text()) for p in sorted(PACKAGE.glob("*/*.py"))}
FUNCTIONS = [
    (room, node)
    for room, tree in ROOMS.items()
    for node in ast.walk(tree)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
]


def calls(name):
    "(room, call) of each call of a function of this name, whatever it is taken from"
    for room, tree in ROOMS.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name == getattr(node.func, "attr", getattr(node.func, "id", None)):
                yield room, node


def defined(name):
    return [room for room, node in FUNCTIONS if node.name.lstrip("_") == name]


@pytest.mark.parametrize(
    "name, room",
    [
        ("save_checkpoint", "core/checkpoints.py"),
        ("load_checkpoint", "core/checkpoints.py"),
        ("train_loop", "core/training.py"),
        ("learning_rate", "core/training.py"),
        ("shuffled_rows", "core/batches.py"),
        ("same_settings", "core/files.py"),
        ("bar", "core/files.py"),
    ],
)
def test_is_defined_once(name, room):
    assert defined(name) == [room]


@pytest.mark.parametrize("gone", ["progress", "batch_index", "save_search", "load_search"])
def test_has_no_second_way(gone):
    assert not defined(gone)


def test_only_the_checkpoint_writes_safetensors_with_settings():
    "`save_file` with a header; features of the priors have none"
    headed = {room for room, call in calls("save_file") if len(call.args) > 2 or call.keywords}
    assert headed == {"core/checkpoints.py"}


def test_rows_are_shuffled_in_one_place():
    "The others draw no batches: anchors from a gallery, and the order of a person's prompts"
    assert {room for room, _ in calls("randperm")} == {"core/batches.py", "sphere/galleries.py", "methods/people.py"}


def test_trainers_share_the_loop():
    "Who makes an optimiser has its updates done by the loop"
    trainers = {"diffusion/training.py", "nets/recogniser.py", "nets/attributes.py"}
    assert {room for room, _ in calls("train_loop")} == trainers
    assert {room for name in ("SGD", "AdamW", "Adam") for room, _ in calls(name)} == {*trainers, "core/training.py"}


def test_schedules_are_diffusers():
    assert {room for room, _ in calls("get_scheduler")} == {"core/training.py"}


def test_progress_is_one_bar():
    assert {room for room, _ in calls("tqdm")} == {"core/files.py"}


def test_settings_are_refused_in_one_wording():
    texts = {
        room
        for room, tree in ROOMS.items()
        for raised in ast.walk(tree)
        if isinstance(raised, ast.Raise)
        for node in ast.walk(raised)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "other settings" in node.value
    }
    assert texts == {"core/files.py"}


def test_endings_are_read_in_one_place():
    "`ending` takes NET.ONNX for net.onnx; what is left passes a suffix on"
    seen = {
        room
        for room, tree in ROOMS.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("suffix", "suffixes")
    }
    assert {room for room in seen if room.split("/")[0] in ("data", "nets")} == {"data/dataset.py"}


MOST = 8


def arguments(node):
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def test_few_arguments():
    "Public functions and methods; a pipeline's call follows diffusers"
    many = {
        f"{room} {node.name}" for room, node in FUNCTIONS if arguments(node) > MOST and not node.name.startswith("_")
    }
    assert not many, f"{many}: options that travel together are one small frozen dataclass"
