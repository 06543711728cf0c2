"""Types: mypy finds nothing in the package, and what a floor gives at its door says what it takes and gives."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = sorted(p.parent.name for p in (ROOT / "facesyn").glob("*/__init__.py"))
DOORS = [f"facesyn.{floor}.{name}" for floor in FLOORS for name in import_module(f"facesyn.{floor}").__all__]


def test_mypy_finds_nothing():
    said = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("door", ["facesyn.shipped", *DOORS])
def test_doors_are_annotated(door):
    "Every argument and the value of each function; what classes take is for mypy"
    module, _, name = door.rpartition(".")
    thing = getattr(import_module(module), name)
    if not inspect.isfunction(thing):
        return
    signature = inspect.signature(thing)
    bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    assert not bare, f"{door}: {', '.join(bare)} have no type"
    assert signature.return_annotation is not signature.empty, f"{door}: what does it return?"
