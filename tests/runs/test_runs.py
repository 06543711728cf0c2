"""Every run notebook runs to its end with its default, smoke-sized parameters, in a folder of its own; what it reads is
made first, by the runs of the profile `smoke` that write it."""

import json
import shutil
from pathlib import Path

import numpy as np
import papermill
import pytest

from facesyn.core.doctor import below, reads, writes
from facesyn.core.files import read_json
from facesyn.core.images import read_image
from facesyn.core.profiles import read_profile
from facesyn.data.cards import RENDERED
from facesyn.data.dataset import write_encoded, write_folder
from facesyn.data.faces import parametric_faces
from facesyn.data.pairs import BUILTIN, builtin_pairs, write_bin

ROOT = Path(__file__).parents[2]
RUNS = {run.name: run for run in read_profile("smoke", ROOT).runs}
EXISTING = {p.stem for p in (ROOT / "nbs/runs").glob("*.ipynb")}


def needed(name):
    "The runs that write what a run reads"
    paths = [path for _, path in reads(RUNS[name])]
    return [other for other, run in RUNS.items() if other != name and any(below(p, writes(run)) for p in paths)]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    "A root of its own (`repo_root` finds settings.ini), so that smoke runs leave no trace in data/"
    root = tmp_path_factory.mktemp("runs")
    shutil.copy(ROOT / "settings.ini", root)
    (root / "data").mkdir()
    (root / "data/models").symlink_to(ROOT / "data/models")
    return root


@pytest.fixture(scope="session")
def ran(root):
    "Executes a run once in a session, and before it what it needs"
    done = set()

    def run(name):
        if name not in done:
            for other in needed(name):
                run(other)
            execute(name, root)
            done.add(name)

    return run


def execute(name, root, asked=None):
    papermill.execute_notebook(
        str(ROOT / "nbs/runs" / f"{name}.ipynb"),
        str(root / f"{name}{'_wrong' if asked else ''}.ipynb"),
        asked,
        cwd=str(root),
        kernel_name="python3",
        progress_bar=False,
        log_output=True,
    )


def test_order_names_every_run():
    assert EXISTING == set(RUNS), "run notebooks missing from nbs/runs/params/smoke.yaml"


@pytest.mark.parametrize("run", RUNS)
def test_smoke(run, ran):
    ran(run)


@pytest.mark.parametrize(
    "run, asked, word",
    [
        ("encode", dict(sauce="x"), "sauce"),
        ("encode", dict(people=-1), "people=-1"),
        ("encode", dict(source="data/nowhere"), "nowhere"),
        ("id3_train", dict(optim=dict(lr="1e-4")), "optim.lr"),
        ("cemiface_generate", dict(calibration=dict(similarity=1.0, probes=8)), "out of reach"),
    ],
)
def test_wrong_parameters_are_named(run, asked, word, root, ran):
    for other in needed(run) if "calibration" in asked else ():  # the others are refused before they read anything
        ran(other)
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match=word):
        execute(run, root, asked)


@pytest.mark.parametrize("name", ["id3", "cemiface"])
def test_a_watched_training_shows_one_strip(name, root, ran, capfd):
    "The display is renewed: the notebook holds its last state, once, and the terminal nothing of it"
    for other in needed(f"{name}_train"):
        ran(other)
    keep = dict(watch=2, log_with="tensorboard")
    execute(f"{name}_train", root, dict(keep=keep, work=f"data/watched/{name}", out=f"data/watched/{name}_model"))
    cells = read_json(root / f"{name}_train_wrong.ipynb", dict)["cells"]
    (training,) = [c for c in cells if f"pipe = train_{name}(" in "".join(c["source"])]
    shown = [o["data"] for o in training["outputs"] if o["output_type"] == "display_data"]
    assert sum("image/png" in data for data in shown) == 1 and not [o for o in training["outputs"] if "text" in o]
    curves = [data["application/vnd.plotly.v1+json"] for data in shown if "image/png" not in data]
    assert len(curves) == 2 and any("after 4 updates" in json.dumps(figure["layout"]) for figure in curves)
    folder = root / "data/watched" / name
    assert [json.loads(line)["step"] for line in (folder / "looks/log.jsonl").read_text().splitlines()] == [0, 2, 4]
    assert [*(folder / "facesyn").glob("events*")] and "Figure(" not in "".join(capfd.readouterr())


def test_a_text_to_image_base_is_watched_at_prompts(root, ran):
    for other in needed("base"):
        ran(other)
    execute("base", root, dict(measured=dict(watch=2), work="data/watched/base", out="data/watched/base_model"))
    rows = [read_image(root / f"data/watched/base/unet/looks/{step:07}.png") for step in (0, 2, 4)]
    assert all(row.shape == (32, 5 * 32, 3) for row in rows) and (rows[0] != rows[2]).any()


def test_five_benchmarks_in_one_run(root):
    "One table of five .bin files and their mean, and curves of them during training"
    names, faces = "lfw cfp_fp agedb_30 calfw cplfw".split(), parametric_faces(10, 4, 32, 0)
    write_folder(faces, root / "data/ten", dict(name="x", method="none", limits="tests", **RENDERED))
    for name, built in zip(names, BUILTIN, strict=True):
        write_bin(builtin_pairs(built, 32, 20, 10), root / f"data/pairs/{name}.bin")
    benchmarks = dict(source=[f"data/pairs/{name}.bin" for name in names])
    execute("recognise", root, dict(dataset="data/ten", out="data/five", benchmarks=benchmarks, check=1))
    results = read_json(root / "data/five/recognise.json", dict)["results"]
    assert results["pairs"] == dict.fromkeys(names, 20) and len(results["rows"]) == 3
    for row in results["rows"]:
        mean = 100 * np.mean([row[name] for name in names])
        assert np.isclose(results["mean_percent"][row["name"]][0], mean)
    curves = [json.loads(line) for line in (root / "data/five/real_40_seed0/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curves] == [1, 2] and all(set(names) <= set(row) for row in curves)
    assert {k: curves[-1][k] for k in names} == {k: results["rows"][1][k] for k in names}


def test_rejected_photographs_are_grouped_by_reason(root, ran):
    ran("prepare")
    for k in range(5):
        (root / "data/runs/smoke/photos/p0" / f"{k + 2}.png").write_bytes(b"broken")
    told = dict.fromkeys(("name", "source", "licence", "limits"), "x") | dict(out="data/again", usable=0.9)
    asked = told | dict(photos="data/runs/smoke/photos", landmarks="data/runs/smoke/landmarks.jsonl")
    words = r"8 of 13 .*\n5: .*p0/2.png, p0/3.png, p0/4.png, \.\.\.\)\n.*prepare.usable=0.*your_faces"
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match=words):
        execute("prepare", root, asked)


def test_a_report_says_that_pose_and_age_are_unknown(root, ran):
    ran("id3_report")
    execute("id3_generate", root, dict(attributes=False, out="data/unknown/dataset"))
    execute("id3_report", root, dict(dataset="data/unknown/dataset", out="data/unknown/report"))
    for folder, unknown in (("data/unknown/report", True), ("data/runs/smoke/report", False)):
        page = (root / folder / "report.html").read_text()
        assert ("left to the noise" in page) == unknown and ("age obey" in page) != unknown


@pytest.mark.parametrize("method, given", [("id3", "encoded"), ("cemiface", "inquiries")])
def test_a_generator_of_another_size(method, given, root):
    faces, card = parametric_faces(3, 1, size=64), dict(name="x", method="none", limits="tests", **RENDERED)
    if method == "id3":
        write_encoded(root / "data/larger/id3", faces, np.eye(3, 64), faces.attributes)
    else:
        write_folder(faces, root / "data/larger/cemiface", card)
    asked = dict(pipeline=f"data/models/{method}") | {given: f"data/larger/{method}"}
    with pytest.raises(
        papermill.exceptions.PapermillExecutionError, match=f"makes pictures of 32 px, .*{method} have 64"
    ):
        execute(f"{method}_generate", root, asked)


@pytest.mark.parametrize(
    "asked", [dict(drawn=dict(first=20000)), dict(encoder=dict(path="data/runs/smoke/models/judge"))]
)
def test_a_base_of_other_faces_or_another_encoder(asked, root, ran):
    ran("base")
    asked |= dict(judge=dict(path="data/runs/smoke/models/identity"))
    with pytest.raises(papermill.exceptions.PapermillExecutionError, match="other settings"):
        execute("base", root, asked)
