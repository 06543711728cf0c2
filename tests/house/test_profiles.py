"""Profiles fit their run notebooks, join into chains, and write no path that follows from their name."""

import json
import re
from pathlib import Path

import pytest

from facesyn.core.doctor import NAMED, READ, TEXT, below, idle, makes, missing_paths, problems, reads, strings, writes
from facesyn.core.profiles import profile_names, read_profile, run_defaults, run_names

ROOT = Path(__file__).parents[2]
PROFILES = profile_names(ROOT)
SHIPPED = re.compile(r"data/models/(identity|judge|attributes|id3|cemiface|idbooth)$")


def test_there_are_profiles():
    assert {"demo", "train", "cemiface", "idbooth", "photos"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_parameters_are_known_and_of_the_right_type(name):
    "Nothing is missing but files that a user brings, or that another profile makes"
    wrong = [p for p in problems(read_profile(name, ROOT), ROOT) if not p.startswith("no data/")]
    assert not [p for p in wrong if "needs the package" not in p], wrong


@pytest.mark.parametrize("name", PROFILES)
def test_chains_of_profiles_join(name):
    "What lies below data/runs is written by an earlier run, or by a profile whose name stands in the line `Needs:`"
    profile, made = read_profile(name, ROOT), []
    for run in profile.runs:
        for parameter, path in reads(run):
            if path.startswith("data/runs/") and not below(path, made):
                maker = path.split("/")[2]
                assert maker in PROFILES and maker != name, f"{run.name}.{parameter}: nobody writes {path}"
                assert makes(maker, path, ROOT), f"{run.name}.{parameter}: {maker} does not write {path}"
                assert re.search(rf"facesyn run {maker}\b", profile.needs), f"{name} needs {maker}, but does not say so"
            elif path.startswith("data/models/") and not below(path, made):
                assert SHIPPED.match(path), f"{run.name}.{parameter}: {path} does not ship"
        made += writes(run)


@pytest.mark.parametrize("name", PROFILES)
def test_what_a_profile_says_it_needs_it_reads(name):
    profile = read_profile(name, ROOT)
    for other in re.findall(r"facesyn run (\w+)", profile.needs):
        used = [path for run in profile.runs for _, path in reads(run)]
        assert any(path.startswith(f"data/runs/{other}/") for path in used), f"{name} reads nothing of {other}"


RECORDS = sorted((ROOT / "data/records").glob("*/*.json"))
OTHERWISE = {  # records that were made with other parameters than the profile's, which its comments say
    "cemiface_table2/cemiface_experiment.json": {"seeds"},
    "cemiface_table3/cemiface_experiment.json": {"seeds"},
    "cemiface_table4/cemiface_experiment.json": {"seeds"},
    "cemiface_table8/cemiface_experiment.json": {"seeds"},
    "cemiface_table14/cemiface_experiment.json": {"seeds"},
    "idbooth/idbooth_train_0.json": {"shard"},  # two processes
    "idbooth/idbooth_train_1.json": {"shard"},
    "photos/encode.json": {"source", "having"},
    "photos/recognise.json": {"real", "having", "benchmarks", "prefix"},
    "photos_cemiface/cemiface_train.json": {"layers"},  # 1, today [1]
    "plain/id3_train_reference.json": {"id_weight"},  # the generator of `train`
}


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_record_is_made_by_the_profile_of_its_name(path):
    "Its parameters are the profile's, but for paths below data/runs and texts for cards"
    name, record = f"{path.parent.name}/{path.name}", json.loads(path.read_text())
    runs = [run for run in read_profile(path.parent.name, ROOT).runs if run.notebook == record["run"]]
    assert runs

    def differ(run):
        said = {k: v for k, v in record["parameters"].items() if k not in idle(run) | {"made_from", "licence"}}
        return {k for k, v in said.items() if anywhere(v) != anywhere(run.parameters.get(k))}

    assert min((differ(run) for run in runs), key=len) == OTHERWISE.get(name, set())


def anywhere(value) -> str:
    "The value, whatever the folders below data/runs are called"
    return re.sub(r"data/runs/[\w/.-]+", "data/runs", json.dumps(value, sort_keys=True))


@pytest.mark.parametrize("name", run_names(ROOT))
def test_every_path_of_a_run_is_looked_at(name):
    "A default that is a path belongs to a parameter that the doctor knows"
    for key, path in [s for k, v in run_defaults(ROOT / f"nbs/runs/{name}.ipynb").items() for s in strings(v, k)]:
        if path.startswith("data/"):
            assert key in READ | NAMED | {"out", "work"} and (name, key) not in TEXT, f"{name}.{key}: add it to READ"


def test_wrong_profiles_are_found(tmp_path):
    folder = tmp_path / "nbs/runs/params"
    folder.mkdir(parents=True)
    for run in ("encode", "id3_generate"):
        (tmp_path / f"nbs/runs/{run}.ipynb").write_text((ROOT / f"nbs/runs/{run}.ipynb").read_text())
    head = "# One.\n# Needs: two.\n# Takes: three.\n"

    def problem(text):
        (folder / "x.yaml").write_text(text)
        try:
            return " ".join(problems(read_profile("x", tmp_path), tmp_path))
        except ValueError as e:
            return str(e)

    for text, words in (
        ("encode: {}\n", "line 1 '# '"),
        ("# One.\n# Takes: three.\nencode: {}", "line 2 'Needs"),
        (head + "encode: [people]", "mapping"),
        (head + "encode: {people: 3", "not YAML"),
        (head + "encode: {}\nencode: {people: 3}", "twice encode-2"),
        (head + "encod: {}", "no run 'encod' there are encode, id3_generate"),
        (head + "encode: {peopel: 3}", "unknown parameter 'peopel'"),
        (head + "encode: {people: 2.5}", "people int 2.5"),
        (head + "encode: {preprocessing: {mean: 1e-4}}", "1e-4 1.0e-4"),
        (head + "all: {colour: red}\nencode: {}", "all: 'colour'"),
        (head + "id3_generate: {encoded: ./encoded}\nencode: {}", "no data/runs/x/encoded put that run first"),
    ):
        found = problem(text)
        assert all(word.strip("'") in found for word in words.split()), f"{text}: {found}"


def test_what_follows_is_not_missing():
    demo = read_profile("demo", ROOT)
    assert not missing_paths(demo, ROOT)
    alone = [run for run in demo.runs if run.name == "id3_report"]
    lost = missing_paths(type(demo)("demo", "", "", "", {}, alone), Path("/nowhere"))
    assert {"data/runs/demo/dataset", "data/runs/demo/recognise/recognise.json"} <= lost.keys()


def test_a_copy_is_a_profile_of_its_own(tmp_path):
    "A user's profile is a copied file with two changed lines: all that it writes lies below its own name"
    (tmp_path / "nbs/runs").mkdir(parents=True)
    for run in run_names(ROOT):
        (tmp_path / f"nbs/runs/{run}.ipynb").symlink_to(ROOT / f"nbs/runs/{run}.ipynb")
    (tmp_path / "nbs/runs/params").mkdir()
    text = (ROOT / "nbs/runs/params/photos.yaml").read_text()
    mine = text.replace("photos: data/photos\n", "photos: data/me\n").replace("steps: 2500", "steps: 60")
    (tmp_path / "nbs/runs/params/mine.yaml").write_text(mine)
    profile = read_profile("mine", tmp_path)
    assert all(folder.startswith("data/runs/mine/") for run in profile.runs for folder in writes(run))
    assert not [path for run in profile.runs for _, path in reads(run) if path.startswith("data/runs/photos")]
    assert profile.runs[2].parameters["steps"] == 60


def test_packages_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("facesyn.core.doctor.find_spec", lambda name: None)
    assert [p for p in problems(read_profile("photos", ROOT), ROOT) if "facesyn[photos]" in p and "prepare" in p]
    assert [p for p in problems(read_profile("photos64", ROOT), ROOT) if "facesyn[onnxruntime]" in p]
    assert problems(read_profile("demo", ROOT), ROOT) == []
