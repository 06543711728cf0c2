"""The floors of the house: what may import what."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "facesyn"
FLOORS = ["core", "sphere", "rendered", "data", "nets", "measure", "diffusion", "methods", "report", "cli"]
ROOMS = sorted(p for p in [*PACKAGE.glob("*/*.py"), PACKAGE / "cli.py"] if p.name != "__init__.py")


def floor(room):
    "A room's floor; the command line is one by itself"
    return room.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    "(module below facesyn as a tuple, names) of each import of the package by a module"
    here = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                yield here[: len(here) - node.level] + module, [a.name for a in node.names]
            elif module[:1] == ("facesyn",):
                yield module[1:], [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("facesyn."):
                    yield tuple(name.name.split(".")[1:]), []


def test_every_folder_is_a_floor():
    assert ROOMS and {floor(p) for p in ROOMS} == set(FLOORS)


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_floor_imports_only_floors_above_it(room):
    here = FLOORS.index(floor(room))
    for module, _ in imports(room):
        assert module and FLOORS.index(module[0]) <= here, f"{floor(room)} imports {'.'.join(module)}"
        assert len(module) > 1, f"{room.name} imports the door of {module[0]}, not a room"


def number(room):
    "The number of the notebook that a room is made from: its place on its floor"
    return int(re.search(r"File to edit: \S+/(\d\d)_\w+\.ipynb", room.read_text())[1])


@pytest.mark.parametrize("room", [p for p in ROOMS if floor(p) != "cli"], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_before_it(room):
    for module, _ in imports(room):
        if module[0] == floor(room):
            other = PACKAGE.joinpath(*module[:2]).with_suffix(".py")
            assert number(other) < number(room), f"{room.stem} imports {other.stem}, which is read after it"


METHODS = ("id3", "cemiface", "idbooth")


def method(room):
    "The method that a room of `methods` belongs to, by the beginning of its name; None: it serves several"
    return next((m for m in METHODS if room == m or room.startswith(f"{m}_")), None)


@pytest.mark.parametrize("room", [p for p in ROOMS if floor(p) == "methods" and method(p.stem)], ids=lambda p: p.stem)
def test_methods_do_not_import_each_other(room):
    used = {method(m[1]) for m, _ in imports(room) if m[0] == "methods"}
    assert used <= {method(room.stem), None}


def test_every_method_has_rooms():
    assert {method(p.stem) for p in ROOMS if floor(p) == "methods"} == {*METHODS, None}


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_names_stay_in_their_room(room):
    for module, names in imports(room):
        private = [n for n in names if n.startswith("_")]
        assert not private, f"{room.name} takes {private} of {'.'.join(module)}"
