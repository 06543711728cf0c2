"""Pages lead somewhere: links to files that exist, a README that fits, numbers that a record holds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), ROOT / "data/README.md"])
README = (ROOT / "README.md").read_text()


def prose(path):
    "The markdown of a page, without code and formulas"
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.S)


def links(path):
    "The relative targets of a page's links and pictures"
    return [t for t in re.findall(r"\]\(([^)\s]+)\)", prose(path)) if not re.match(r"[a-z]+:|#", t)]


@pytest.mark.parametrize("path", [*NOTEBOOKS, *MARKDOWN], ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(path):
    broken = [target for target in links(path) if not (path.parent / target.partition("#")[0]).exists()]
    assert not broken, f"{path.name} links to {broken}"


def test_readme_is_the_index_notebook():
    cells = json.loads((ROOT / "nbs/index.ipynb").read_text())["cells"]
    text = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "markdown")
    text = re.sub(r"\]\(([^:)#]+\))", r"](nbs/\1", text).replace("](nbs/../", "](")  # as the Makefile does it
    assert README.split() == text.split(), "run make readme"


def test_readme_fits():
    assert len(README.splitlines()) <= 120


def test_readme_links_every_room():
    linked = {(ROOT / target).resolve() for target in links(ROOT / "README.md")}
    rooms = [p for p in NOTEBOOKS if re.match(r"\d\d_", p.name)]
    unlinked = [p.relative_to(ROOT / "nbs") for p in rooms if p.resolve() not in linked]
    wanted = [f"[{p.stem[3:].replace('_', ' ')}]({p})" for p in unlinked]
    assert rooms and not wanted, f"add to the house in nbs/index.ipynb: {' · '.join(wanted)}"


def record(path):
    return json.loads((ROOT / "data/records" / path).read_text())["results"]


def mean_percent(path, kind):
    return np.mean(record(path)["mean_percent"][kind])


def rows(text):
    "First cell -> the others, of the table under the line that begins with `text`"
    lines = README.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(text)) + 2
    table = [line for line in lines[start : start + 9] if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("| ").split("|")] for line in table)}


def test_numbers_of_the_result_table_are_those_of_their_records():
    untrained, table = mean_percent("demo/recognise.json", "untrained"), {}
    for name, profile, report in (("ID³", "demo", "id3_report"), ("CemiFace, m = 0", "cemiface", "cemiface_report")):
        real, made = (mean_percent(f"{profile}/recognise.json", kind) for kind in ("real", "synthetic"))
        eer = {k: f"{100 * r['eer']:.1f}" for k, r in record(f"{profile}/{report}.json")["identity"].items()}
        table.setdefault("real (rendered)", [f"{real:.2f}", "1", eer["real"]])
        table[name] = [f"{made:.2f}", f"{(made - untrained) / (real - untrained):.2f}", eer["generated"]]
    assert rows("| 4,000 pictures of 250 people") == table
    assert record("demo/id3_generate.json")["images"] == record("cemiface/cemiface_generate.json")["images"] == 4000
    assert f"from an untrained network (about {untrained:.0f} %)" in README.replace("\n", " ")


def test_numbers_on_photographs_are_those_of_their_records():
    section = README.partition("## Your own faces")[2].partition("\n## ")[0]
    measured = [
        f"{mean_percent(f'{profile}/recognise.json', kind):.1f}"
        for profile in ("photos", "photos_cemiface")
        for kind in ("synthetic", "real")
    ]
    assert re.findall(r"(\d+\.\d) %", section.replace("\n", " ")) == measured


def test_minutes_of_the_demo_are_those_of_its_record():
    runs = [json.loads(p.read_text())["seconds"] for p in (ROOT / "data/records/demo").glob("*.json")]
    assert f"after about {sum(runs) / 60:.0f} minutes" in README
