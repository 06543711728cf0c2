"""A few mutants for each reader of `fuzz.py`, which a person runs with many: python tests/hostile/fuzz.py 150"""

import subprocess
import sys
from pathlib import Path

import pytest


def test_damaged_files_are_read_or_refused_by_name():
    "In a process of its own: readers are forked from it, which a process that has computed in threads must not be"
    for module in ("pyarrow", "lmdb", "insightface"):
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz.py"), "3"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
