"""Every name that a floor offers at its door is there."""

import importlib

import pytest

FLOORS = ["core", "sphere", "rendered", "data", "nets", "measure", "diffusion", "methods", "report"]


@pytest.mark.parametrize("floor", ["", *FLOORS])
def test_public_names_exist(floor):
    door = importlib.import_module(f"facesyn.{floor}".rstrip("."))
    assert door.__all__ and door.__doc__
    missing = [name for name in door.__all__ if not hasattr(door, name)]
    assert not missing, f"{door.__name__} offers {missing}"
