"""Law 7: no path that follows from a name; every profile says what it shows, what it needs and how long it takes."""

from pathlib import Path

import pytest
import yaml

from facesyn.core.doctor import strings
from facesyn.core.profiles import SMOKE, placed, read_profile

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "nbs/runs/params").glob("*"))


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.name)
def test_a_profile_is_one_file_that_begins_with_three_comments(path):
    assert path.suffix == ".yaml", "one file a profile"
    lines = path.read_text().splitlines()
    for line, start in zip(lines, ("# ", "# Needs: ", "# Takes: ")):
        assert line.startswith(start) and len(line) > len(start) + 3 and len(line) <= 120


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.name)
def test_no_path_follows_from_the_profiles_name(path):
    text = path.read_text()
    assert f"data/runs/{path.stem}/" not in text and SMOKE not in text, "write ./x"
    said, defaults = yaml.safe_load(text), {run.name: run.defaults for run in read_profile(path.stem, ROOT).runs}
    for run in defaults:
        for name, value in (said[run] or {}).items():
            inside = [p for _, p in strings(value, name) if p.startswith("./")]
            assert not inside or placed(value, "x") != placed(defaults[run][name], "x"), (
                f"{run}.{name} follows by itself"
            )
