"""Every public door of a floor opens, and no room has the name of one."""

from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "facesyn"
FLOORS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("floor", FLOORS)
def test_doors_open(floor):
    door = import_module(f"facesyn.{floor}")
    rooms = {p.stem for p in (PACKAGE / floor).glob("*.py")}
    same = rooms & set(door.__all__)
    assert not same, f"rooms of {floor} and names that its door gives: {sorted(same)}"
    for name in door.__all__:
        assert getattr(door, name) is not None, f"facesyn.{floor}.{name}"
