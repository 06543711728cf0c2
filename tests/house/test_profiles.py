"""Profiles fit their run notebooks, join into chains, and write no path that follows from their name."""

import ast
import builtins
import json
import re
from pathlib import Path

import pytest

from facesyn.core.chains import unfit
from facesyn.core.doctor import (
    READ,
    TEXT,
    below,
    half_written,
    idle,
    makes,
    missing_paths,
    problems,
    reads,
    strings,
    writes,
)
from facesyn.core.profiles import looked_at, profile_names, read_profile, run_conditions, run_defaults, run_names, unmet
from facesyn.core.records import flat, is_group
from facesyn.report.disclosure import contents

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
    assert not unfit(read_profile(name, ROOT), ROOT)


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


RECORDS = sorted(p for p in (ROOT / "data/records").glob("*/*.json") if p.parent.name != "bench")  # no runs
OTHERWISE = {  # records that were made with other parameters than the profile's, which its comments say
    "cemiface_table2/cemiface_experiment.json": {"seeds"},
    "cemiface_table3/cemiface_experiment.json": {"seeds"},
    "cemiface_table4/cemiface_experiment.json": {"seeds"},
    "cemiface_table8/cemiface_experiment.json": {"seeds"},
    "cemiface_table14/cemiface_experiment.json": {"seeds"},
    "idbooth/idbooth_train_0.json": {"shard"},  # two processes
    "idbooth/idbooth_train_1.json": {"shard"},
    **{f"idbooth_augment/idbooth_train_seed{k}.json": {"shard"} for k in (1, 2)},  # which was [0, 1]: one process
    "photos/encode.json": {"source", "having"},
    "photos/recognise.json": {"real", "having", "benchmarks", "prefix"},
    "photos_cemiface/cemiface_train.json": {"layers"},  # 1, today [1]
    "plain/id3_compare.json": {"preprocessing"},  # by the judge's name, today an entry of `judges`
    "plain/id3_train_reference.json": {"id_weight"},  # the generator of `train`
}


RENAMED = {  # parameters of records, which had no groups, whose last part is another today, or not the only one
    **{k: f"{k}.path" for k in ("encoder", "judge")},
    **dict(preprocessing="encoder.preprocessing", judge_preprocessing="judge.preprocessing"),
    **dict(benchmarks="benchmarks.source", pool_first="benchmarks.first", real="real.source"),
    **{f"{run}.first": "real.first" for run in ("recognise", "ranked_groups", "cemiface_experiment")},
    **{f"{run}.batch": "recogniser.batch" for run in ("recognise", "ranked_groups", "idbooth_augment")},
    **dict(scale="recogniser.s", margin="recogniser.m", recipe="recogniser.more"),
    **{"idbooth_augment.checks": "recogniser.epochs", "cemiface_experiment.recogniser_batch": "recogniser.batch"},
    **{"cemiface_experiment.lr": "recogniser.lr", "encoders.identity_net": "recogniser.net"},
    **{f"cemiface_experiment.{k}": f"datasets.{k}" for k in ("steps", "batch")},
    **{"id3_experiment.recipe": "recogniser", "ranked_groups.source": "real.source"},
    **{f"id3_experiment.{k}": f"plan.{k}" for k in ("steps", "batch")},
    **{"id3_train.id_weight": "weights.identity", "id3_train.rec_weight": "weights.reconstruct"},
    **{"cemiface_train.denoise": "simmat.weighting", "cemiface_train.layers": "unet.layers_per_block"},
    **{"id3_generate.anchors": "anchors.kind", "inquiries.preprocessing": "judge.preprocessing"},
    **{"inquiries.candidates": "candidates.number"},
    **{"idbooth_train.images": "subjects.images", "idbooth_train.priors": "priors.images"},
    **{"idbooth_train.prior_steps": "priors.steps", "idbooth_train.steps": "lora.steps"},
    **{"idbooth_train.margin": "loss.margin", "idbooth_train.align": "align.how"},
    **{"idbooth_report.preprocessing": "judge.preprocessing", "idbooth_report.align": "align.how"},
    **{"idbooth_report.real": "real"},
}


def entries(values, defaults, within=""):
    "Dotted name -> (value, default) of parameters, groups, and entries of groups"
    found = {}
    for k, v in values.items():
        found[f"{within}{k}"] = v, defaults[k]
        found |= entries(v, defaults[k], f"{within}{k}.") if is_group(defaults[k]) else {}
    return found


def like(value, now, default):
    "What is there now, of a group only the entries that the value has"
    if not (is_group(default) and isinstance(value, dict)):
        return now
    return {k: like(v, now[k], default[k]) for k, v in value.items() if k in now}


def today(run, name, value):
    "What a parameter of a record of the run is in its profile today; of a group only the entries that the record has"
    now = entries(run.parameters, run.defaults)
    place = RENAMED.get(f"{run.notebook}.{name}", RENAMED.get(name, name))
    place = name if isinstance(value, dict) and name in now else place  # a group, as today
    found = [place] if place in now else [k for k in now if k.endswith(f".{name}")]
    if len(found) != 1:
        return None if not found else f"one of {found}"
    return like(value, *now[found[0]])


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_record_is_made_by_the_profile_of_its_name(path):
    "Its parameters are the profile's, but for paths below data/runs and texts for cards"
    name, record = f"{path.parent.name}/{path.name}", json.loads(path.read_text())
    runs = [run for run in read_profile(path.parent.name, ROOT).runs if run.notebook == record["run"]]
    assert runs

    def differ(run):
        said = {k: v for k, v in record["parameters"].items() if k not in idle(run) | {"made_from", "licence"}}
        return {k for k, v in said.items() if anywhere(v) != anywhere(today(run, k, v))}

    assert min((differ(run) for run in runs), key=len) == OTHERWISE.get(name, set())


def anywhere(value) -> str:
    "The value, whatever the folders below data/runs are called; the path of a mapping that holds nothing else"
    said = re.sub(r'\{"path": ("[^"]*")\}', r"\1", json.dumps(value, sort_keys=True))
    return re.sub(r"data/runs/[\w/.-]+", "data/runs", said)


@pytest.mark.parametrize("name", run_names(ROOT))
def test_every_path_of_a_run_is_looked_at(name):
    "A default that is a path belongs to a parameter that the doctor knows"
    for key, path in [s for k, v in run_defaults(ROOT / f"nbs/runs/{name}.ipynb").items() for s in strings(v, k)]:
        if path.startswith("data/"):
            assert key in READ | {"out", "work"} and (name, key) not in TEXT, f"{name}.{key}: add it to READ"


NUMBERS_FREE = {"first", "real.first", "benchmarks.first", "candidates.first"}  # the number of a person may be anything
FREE_GROUPS = {"paper", "training"}  # the paper's numbers; a recipe is made of the other one


def test_a_group_has_the_same_entries_in_every_run():
    "So that what is said of it for all runs, or copied from one to another, fits"
    found = {}
    for name in run_names(ROOT):
        for k, v in run_defaults(ROOT / f"nbs/runs/{name}.ipynb").items():
            if is_group(v) and k != "training":  # a recipe of the method that the run is about
                assert set(v) == found.setdefault(k, set(v)), f"{name}: {k}"
    assert len(found) > 10


def test_what_is_given_of_a_group_leaves_the_rest():
    "By `all`, the file, the command line: each over the one before, entry by entry; user's own names as they are given"
    asked = {
        "all": {"encoder": {"preprocessing": {"size": 112}}},
        "id3_train": {"optim.steps": 5, "patches": {"patch": 4}, "encoder.preprocessing.mean": 0.0},
        "recognise": {"recogniser.more": {"warmup": 0.5}, "recogniser.more.momentum": 0.8},
    }
    train = read_profile("train", ROOT, asked)
    p = {run.notebook: run.parameters for run in train.runs}
    assert p["id3_train"]["optim"] == dict(steps=5, batch=32, lr=1e-3, warmup=200, ema=0.999, precision="no")
    assert p["id3_train"]["patches"] == dict(patch=4, power=0.0, scaling=2.0)
    encoder = dict(path="data/runs/train/models/identity", preprocessing=dict(size=112))
    assert p["encode"]["encoder"] == encoder
    assert p["id3_train"]["encoder"] == encoder | dict(preprocessing=dict(size=112, mean=0.0))
    assert p["recognise"]["recogniser"]["more"] == dict(warmup=0.5, momentum=0.8)
    assert p["recognise"]["recogniser"]["batch"] == 64 and not problems(train, ROOT)


@pytest.mark.parametrize("name", run_names(ROOT))
def test_a_run_says_what_its_parameters_may_be(name):
    "Every number, list of seeds and word with a few values is named in a condition, and the defaults meet them all"
    notebook = ROOT / f"nbs/runs/{name}.ipynb"
    defaults, conditions = run_defaults(notebook), run_conditions(notebook)
    assert not [wrong for wrong in (unmet(condition, defaults) for condition in conditions) if wrong]
    trees = [ast.parse(c) for c in conditions]
    nodes, now = [n for tree in trees for n in ast.walk(tree)], flat(defaults, defaults)
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    said = {place for tree in trees for place, _ in looked_at(tree, defaults)}
    unsaid = [k for k in now if not any(f"{k}.".startswith(f"{place}.") for place in said | FREE_GROUPS)]
    free = {k for k in unsaid if isinstance(now[k], (int, float)) and not isinstance(now[k], bool)} - NUMBERS_FREE
    assert not free, f"{name}: say in `require` what {sorted(free)} may be"
    words = {"seeds", "prediction", "precision", "net", "head", "denoise", "weighting"}
    assert not [k for k in unsaid if k.rpartition(".")[2] in words]
    bound = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert names <= defaults.keys() | bound | {"known"} | set(dir(builtins)), "a condition speaks of no parameter"


@pytest.mark.parametrize(
    "profile, run, asked, words",
    [
        ("demo", "encode", dict(people=-1), "encode people=-1 people >= 1"),
        ("demo", "encode", dict(peple=3), "'peple': do you mean people"),
        ("demo", "id3_generate", dict(people=20), "'people', which is one of encode: do you mean identities?"),
        ("demo", "id3_generate", {"sampler.batch": 0}, "id3_generate: sampler.batch=0: expected sampler.batch >= 1"),
        ("demo", "encode", dict(images=0), "encode images=0"),
        ("demo", "encode", dict(networks=[dict(path="x.onnx")]), "one of attributes and networks"),
        ("demo", "id3_generate", dict(anchors=dict(lb=0.9, ub=0.7)), "id3_generate anchors.lb=0.9, anchors.ub=0.7"),
        ("demo", "id3_generate", {"sampler.steps": 0}, "sampler.steps=0"),
        ("demo", "id3_generate", {"anchors.rule": "cosin"}, "anchors.rule='cosin' one of additive, cosine"),
        ("demo", "id3_generate", {"sampler.steps": 1001}, "sampler.steps=1001: expected 1 <= sampler.steps <= 1000"),
        ("demo", "id3_report", {"sampler.steps": 1001}, "sampler.steps=1001: expected 1 <= sampler.steps <= 1000"),
        ("cemiface", "inquiries", {"sampler.steps": 1001}, "sampler.steps=1001"),
        ("cemiface", "cemiface_generate", {"sampler.steps": 1001}, "sampler.steps=1001"),
        ("cemiface_m", "cemiface_experiment", {"datasets.steps": 1001}, "datasets.steps=1001"),
        ("id3_sampling", "id3_experiment", {"rows": dict(a=dict(steps=1001))}, "steps of rows from 1 to 1000"),
        ("idbooth", "idbooth_generate", dict(steps=1001), "steps=1001"),
        ("idbooth", "idbooth_train", {"priors.steps": 1001}, "idbooth_train: priors.steps=1001: expected"),
        ("demo", "id3_generate", dict(device="gpu"), "device='gpu': no device auto, cpu, cuda"),
        ("train", "id3_train", dict(device="cuda:x"), "device='cuda:x': no device"),
        ("idbooth", "all", dict(device="CPU"), "idbooth_train: device='CPU' idbooth_generate: device='CPU'"),
        ("demo", "recognise", dict(seeds=[]), "seeds=[] at least one seed"),
        ("demo", "recognise", {"recogniser.net": "tiny33"}, "recogniser.net='tiny33' tiny32 small32"),
        ("demo", "recognise", {"recogniser.head": "arc"}, "recogniser.head='arc' arcface cosface"),
        ("full", "recognise", {"benchmarks.source": []}, "benchmarks.source: str []"),
        ("full", "recognise", {"benchmarks.source": ["a.bin", 3]}, "benchmarks.source: str ['a.bin', 3]"),
        ("full", "recognise", {"real.source": ["a", "b"]}, "real.source: str ['a', 'b']"),
        ("demo", "recognise", {"recogniser.more": dict(sample=0.0)}, "recogniser= sample=0.0 share"),
        ("demo", "recognise", {"recogniser.more": dict(warmpu=1.0)}, "more.warmpu do you mean warmup?"),
        ("demo", "recognise", {"recogniser.more": dict(shedule="step")}, "recogniser= shedule schedule"),
        ("demo", "recognise", {"recogniser.more.schedule": "stairs"}, "recogniser= schedule='stairs' cosine"),
        ("demo", "recognise", {"recogniser.more.lr": 0.1}, "recogniser= lr"),
        ("demo", "id3_report", {"probes.bounds": [[0.9, 0.5]]}, "probes.bounds=[[0.9, 0.5]] [lb, ub]"),
        ("train", "id3_train", {"id3.prediction": "x0"}, "id3.prediction='x0' epsilon, v_prediction"),
        ("train", "id3_train", {"optim.precision": "fp8"}, "optim.precision='fp8' no, bf16"),
        ("train", "id3_train", {"weights.denoise": "w"}, "weights= denoise='w' eps"),
        ("train", "id3_train", {"id3.drop": [0.1, 1.1]}, "id3.drop=[0.1, 1.1] two probabilities"),
        ("train", "id3_train", {"keep.watch": -1}, "keep.watch=-1"),
        ("train", "id3_train", {"keep.log_with": "board"}, "keep.log_with= log_with='board': installed tensorboard"),
        ("train", "id3_train", {"workers": 4}, "'workers', which is one of recognise or keep.workers"),
        ("demo", "recognise", {"log_with": "board"}, "recognise: log_with= log_with='board': installed"),
        ("idbooth", "idbooth_train", {"log_with": "board"}, "idbooth_train: log_with= installed"),
        ("train", "id3_train", {"patches.patch": 0}, "id3_train: patches.patch=0: expected patches.patch >= 1"),
        ("train", "id3_train", {"patch": 4}, "'patch': do you mean patches.patch"),
        (
            "train",
            "id3_train",
            {"patches.pach": 4},
            "'patches.pach': do you mean patches.patch? there are patches.patch, patches.power",
        ),
        ("train", "id3_train", {"optim.lr": "1e-4"}, "optim.lr float '1e-4'"),
        ("train", "id3_train", {"optim.lr": float("nan")}, "optim.lr: nan finite"),
        ("train", "id3_train", {"optim": 0.1}, "optim: mapping steps, batch, lr"),
        ("train", "id3_train", {"optim.lr.x": 0.1}, "optim.lr: float"),
        ("train", "all", {"encoder.pth": "x"}, "all: 'encoder.pth' encoder.path"),
        ("train", "all", {"encoder": "x"}, "all: encoder: mapping path, preprocessing 'x'"),
        ("train", "all", {"jugde": "x"}, "all: 'jugde' do you mean judge"),
        ("train", "all", {"encoder.path": 3}, "all: encoder.path: str"),
        ("idbooth", "idbooth_train", dict(methods=["lora"]), "'lora' dreambooth"),
        ("idbooth", "idbooth_generate", dict(scheduler="DPM"), "scheduler='DPM' a scheduler of diffusers"),
        ("cemiface", "cemiface_generate", dict(m=[1.5]), "m=[1.5] similarities in [-1, 1]"),
        (
            "cemiface",
            "cemiface_generate",
            {"calibration.similarity": 0.5, "interval": [0.0, 0.1]},
            "calibration.similarity",
        ),
        ("id3_sampling", "id3_experiment", dict(rows={"a": {"gama": 1.0}}), "rows= gamma"),
    ],
)
def test_wrong_values_are_found(profile, run, asked, words):
    found = " ".join(problems(read_profile(profile, ROOT, {run: asked}), ROOT))
    assert all(word in found for word in words.split()), found


@pytest.mark.parametrize(
    "profile, asked, words",
    [
        ("demo_small", {"all": dict(size=64)}, "id3_generate: data/models/id3 makes 32 px, encoded have 64"),
        ("demo_small", {"recognise": dict(size=64)}, "recognise: size=64 dataset has 32 px"),
        ("demo_small", {"encode": dict(size=16)}, "of 32 px encoded have 16"),
        ("cemiface", {"all": dict(size=64)}, "inquiries: data/models/id3 makes cemiface_report: data/models/cemiface"),
        ("cemiface", {"inquiries": {"size": 64, "candidates.source": "parametric"}}, "cemiface_generate: inquiries"),
        ("train", {"id3_train": dict(begin="data/models/id3"), "encode": dict(size=64)}, "id3_train: data/models/id3"),
        ("idbooth_augment", {"idbooth_augment": dict(size=64)}, "idbooth_augment: size=64 faces-1 has 32 px"),
        ("idbooth", {"idbooth_train": dict(methods=["triplet"])}, "idbooth_generate: add dreambooth to idbooth_train"),
        ("idbooth", {"idbooth_generate": dict(methods=["base"])}, "idbooth_report: add to idbooth_generate.methods"),
        ("cemiface", {"cemiface_generate": dict(people=251)}, "cemiface_generate: people=251 there are 250"),
        ("demo", {"recognise": {"recogniser.batch": 4001}}, "recognise: recogniser.batch=4001 on 4000 pictures"),
        ("train", {"encoders": {"recogniser.batch": 9601}}, "encoders: recogniser.batch=9601 on 9600 pictures"),
        ("id3_sampling", {"id3_experiment": {"recogniser.batch": 9999}}, "id3_experiment: recogniser.batch=9999"),
        ("demo", {"encode": dict(people=1, images=11)}, "anchors.subspace: 12 dimensions, of only 11 faces"),
    ],
)
def test_runs_that_do_not_fit_each_other_are_found(profile, asked, words):
    chosen = read_profile(profile, ROOT, asked)
    found = " ".join(unfit(chosen, ROOT))
    wrong = [p for p in problems(chosen, ROOT) if "facesyn run" not in p]
    assert not wrong and all(word in found for word in words.split()), found


PEOPLE = "idbooth_train: {subjects: {source: data/people, people: 0, images: 0}, pipeline: data/models/idbooth}\n"
PEOPLE += "idbooth_generate: "


@pytest.mark.parametrize(
    "consent, generate, words",
    [
        (None, "{licence: agreed}", "consent.json: photographs need the consent"),
        ("{", "{licence: agreed}", "consent.json is not JSON"),
        ("{}", "{licence: agreed}", "no consent of ada 2 of 2"),
        ('{"ada": {"agreed": true, "terms": "t"}}', "{licence: agreed}", "no consent of ben is not in it"),
        (
            '{"ada": true, "ben": "yes"}',
            "{licence: agreed}",
            'ada stands there as true {"agreed": true, "terms": as "yes"',
        ),
        ('{"ada": {"agreed": true, "terms": "t"}, "ben": {"agreed": false, "terms": "t"}}', "{}", "of ben licence"),
        ('{"ada": {"agreed": true, "terms": "t"}, "ben": {"agreed": true, "terms": "t"}}', "{licence: agreed}", ""),
    ],
    ids=["none", "broken", "empty", "absent", "another form", "withdrawn", "agreed"],
)
def test_consent_is_read(tmp_path, consent, generate, words):
    profile = written(tmp_path, PEOPLE + generate)
    for name in ("ada", "ben"):
        (tmp_path / "data/people" / name).mkdir(parents=True)
        (tmp_path / "data/people" / name / "0.png").touch()
    if consent is not None:
        (tmp_path / "data/people/consent.json").write_text(consent)
    found = " ".join(contents(profile, tmp_path))
    assert bool(found) == bool(words) and all(word in found for word in words.split()), found


def written(root, text):
    "A profile of the text, in a repository that has the runs of this one"
    (root / "nbs/runs/params").mkdir(parents=True)
    for run in run_names(ROOT):
        (root / f"nbs/runs/{run}.ipynb").symlink_to(ROOT / f"nbs/runs/{run}.ipynb")
    (root / "nbs/runs/params/x.yaml").write_text(f"# One.\n# Needs: two.\n# Takes: three.\n{text}\n")
    return read_profile("x", root)


FOUND = "encode: {source: data/faces, attributes: ''}\nid3_generate: "


@pytest.mark.parametrize(
    "card, generate, words",
    [
        (None, "{}", "encoded card.made_from card.licence"),
        (None, "{card: {made_from: my faces, licence: mine}}", ""),
        (dict(source="my faces"), "{}", "give card.licence"),
        (dict(source="my faces", licence="mine"), "{}", ""),
    ],
)
def test_source_and_licence_are_read(tmp_path, card, generate, words):
    profile = written(tmp_path, FOUND + generate)
    (tmp_path / "data/faces/ada").mkdir(parents=True)
    (tmp_path / "data/faces/ada/0.png").touch()
    if card:
        (tmp_path / "data/faces/card.json").write_text(json.dumps(card))
    found = " ".join(contents(profile, tmp_path))
    assert bool(found) == bool(words) and all(word in found for word in words.split()), found


@pytest.mark.parametrize(
    "text, folder",
    [
        ("encode: {source: data/faces, attributes: ''}", "ada"),
        ("encode: {source: data/faces, attributes: ''}", "imgs/ada"),
        ("recognise: {real: {source: data/faces}}", "ada"),
        ("idbooth_train: {subjects: {source: data/faces}}", "ada"),
        ("encode: {more: [{source: data/faces}]}", "ada"),
    ],
)
def test_stray_files_among_pictures_are_named(tmp_path, text, folder):
    "Before hours of other runs; hidden files are none"
    profile, people = written(tmp_path, text), tmp_path / "data/faces" / folder
    people.mkdir(parents=True)
    for name in ("0.png", ".DS_Store"):
        (people / name).touch()
    assert not [wrong for wrong in contents(profile, tmp_path) if "image" in wrong]
    (people / "notes.txt").touch()
    assert [wrong for wrong in contents(profile, tmp_path) if f"{folder}/notes.txt is not an image" in wrong]
    (people / "notes.txt").unlink()
    (tmp_path / "data/faces" / folder / "deeper").mkdir()
    assert [wrong for wrong in contents(profile, tmp_path) if "deeper is a folder" in wrong]


def test_photographs_that_mix_forms_are_named(tmp_path):
    profile = written(tmp_path, "prepare: {photos: data/photos}")
    (tmp_path / "data/photos/ada").mkdir(parents=True)
    (tmp_path / "data/photos/0.jpg").touch()
    assert "mixes photos" in contents(profile, tmp_path)[0]


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_state_source_and_licence(name):
    "What other profiles make is not there, and states nothing: those say it themselves"
    lacks = [lack for lack in contents(read_profile(name, ROOT), ROOT) if "made_from" in lack or "licence" in lack]
    made = [other for other in re.findall(r"facesyn run (\w+)", read_profile(name, ROOT).needs)]
    assert made or not lacks, lacks


def test_half_written_folders_are_found(tmp_path):
    profile = written(tmp_path, "id3_generate: {encoded: data/other/encoded, pipeline: data/other/id3}")
    for name in ("encoded", "id3"):
        (tmp_path / "data/other" / name).mkdir(parents=True)
    found = half_written(profile, tmp_path)
    assert len(found) == 2 and "model_index.json" in found[0] and "index.json" in found[1]
    (tmp_path / "data/other/encoded/index.json").touch()
    assert len(half_written(profile, tmp_path)) == 1


def test_half_written_folders_are_found_in_groups(tmp_path):
    profile = written(tmp_path, "cemiface_experiment: {datasets: {inquiries: data/other/inquiries}}")
    (tmp_path / "data/other/inquiries").mkdir(parents=True)
    assert half_written(profile, tmp_path) == [
        "cemiface_experiment: data/other/inquiries holds no card.json: no run wrote it, or it did not end"
    ]


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
        (head + "encode: {encoder: {pth: x}}", "unknown parameter 'encoder.pth' encoder.path"),
        (head + "all: {colour: red}\nencode: {}", "all: 'colour' attributes"),
        (head + "all: {preprocesing: {}}\nencode: {}", "all: 'preprocesing' mean encoder.preprocessing?"),
        (head + "all: {size: big}\nencode: {}", "all: size int 32 'big'"),
        (head + "id3_generate: {yaw_mix: 5e-1, seed: 1e2}", "seed int 100.0"),
        (head + "encode: {}\nid3_generate: {}\nencode: {}", "line 6: encode twice encode-2"),
        (head + "encode:\n  people: 3\n  people: 4", "x.yaml, line 6: people twice"),
        (head + "encode: {apart: {source: a, cosine: 0.1, source: b}}", "line 4: source twice"),
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
    assert profile.runs[2].parameters["optim"]["steps"] == 60


def test_packages_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("facesyn.core.doctor.find_spec", lambda name: None)
    assert [p for p in problems(read_profile("photos", ROOT), ROOT) if "facesyn[photos]" in p and "prepare" in p]
    assert [p for p in problems(read_profile("photos64", ROOT), ROOT) if "facesyn[onnxruntime]" in p]
    assert problems(read_profile("demo", ROOT), ROOT) == []
