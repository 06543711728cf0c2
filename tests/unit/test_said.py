"""What cards, records and reports say is true: where faces come from, how long something took, on whom it was verified,
and when a number means little."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import pipeline
from torch import nn

from facesyn.core.checks import refused
from facesyn.core.profiles import Profile, Run, run_conditions, run_defaults, unmet
from facesyn.core.records import note_work, work_done
from facesyn.core.training import Keep, train_loop
from facesyn.data.cards import RENDERED, inherited, provenance, together, write_card, write_model_card
from facesyn.data.conversion import convert
from facesyn.data.dataset import write_encoded
from facesyn.data.faces import parametric_faces
from facesyn.measure.probes import check_judge
from facesyn.measure.verification import share_recovered, unseen
from facesyn.methods.generation import generate
from facesyn.methods.plans import plan
from facesyn.nets.backbones import recogniser
from facesyn.nets.encoders import Encoder
from facesyn.report.accuracies import verification_table
from facesyn.report.answers import methods_answer, verified_on, worth_warnings
from facesyn.report.disclosure import contents
from facesyn.sphere.anchors import tammes_anchors
from facesyn.sphere.geometry import levenshtein_bound, max_cosine, random_max_cosine

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "nbs/runs").glob("*.ipynb"))
PHOTOS = dict(source="my photographs", licence="private")
CARD = dict(name="x", method="a test", limits="none", **RENDERED)


def code(notebook):
    "The code of a run notebook"
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


# Where faces come from


def test_a_generator_of_photographs_does_not_draw_rendered_faces(tmp_path):
    "Attributes and anchors of rendered faces, a network trained on photographs: the card names the photographs"
    write_model_card(tmp_path / "network", "ID³", "ID³", "32 px", PHOTOS, licence="mine to give")
    said = provenance([tmp_path / "network", "parametric"])
    assert "my photographs" in said["source"] and "private" in said["licence"] and said["licence"] != "CC0-1.0"


def test_who_states_nothing_is_asked(tmp_path):
    faces = parametric_faces(2, 2, 16)
    y, s = np.ones((4, 3), np.float32), faces.attributes
    write_encoded(tmp_path / "encoded", faces, y, s, together([tmp_path / "photos", "parametric"]))
    write_model_card(tmp_path / "network", "ID³", "ID³", "16 px", together([tmp_path / "encoded"]))
    assert inherited(tmp_path / "encoded") == inherited(tmp_path / "network") == {}
    for source in (tmp_path / "encoded", tmp_path / "network"):
        refused(lambda source=source: provenance(["parametric", source]), str(source), "made_from", "licence")
    convert(faces, tmp_path / "set", "folder")  # its card says that nothing is known
    refused(lambda: provenance(tmp_path / "set"), str(tmp_path / "set"), "made_from", "licence")


def test_half_a_statement_is_half_a_statement(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps(dict(source="my photographs")))
    assert together([tmp_path, "parametric"]) == dict(source=f"my photographs; {RENDERED['source']}")
    refused(lambda: provenance([tmp_path]), "give licence")


def profile_of(*runs):
    return Profile("mine", "", "", "", {}, [Run(name, name, parameters, {}) for name, parameters in runs])


def test_the_doctor_asks_before_anything_runs(tmp_path):
    "A network of photographs without a card, inquiries drawn by it, a foreign base model under rendered people"
    (tmp_path / "network").mkdir()
    write_card(tmp_path / "faces", CARD)
    nothing, everything = dict(made_from="", licence=""), dict(made_from="x", licence="y")
    stated = dict(encoded="faces", inquiries="faces", pipeline="network", out="out", candidates=dict(source="id3"))
    for run in ("id3_generate", "cemiface_generate", "inquiries"):
        found = contents(profile_of((run, dict(stated, card=nothing))), tmp_path)
        lacks = "give card.made_from and card.licence"
        assert found == [f"{run}: network does not state where its faces come from: {lacks}"]
        assert contents(profile_of((run, dict(stated, card=everything))), tmp_path) == []
    subjects = dict(source="parametric", people=0)
    booth = ("idbooth_train", dict(subjects=subjects, pipeline="someone/model", out="booth"))
    drawn = dict(booth="booth", licence="", out="drawn")
    (found,) = contents(profile_of(booth, ("idbooth_generate", drawn)), tmp_path)
    assert "someone/model" in found and "licence" in found
    assert not contents(profile_of(booth, ("idbooth_generate", drawn | dict(licence="x"))), tmp_path)


def test_trained_networks_state_what_their_faces_state(tmp_path):
    train = ("id3_train", dict(encoded="encoded", begin="", vae="", out="network"))
    draw = ("id3_generate", dict(encoded="faces", pipeline="network", card=dict(made_from="", licence=""), out="out"))
    write_card(tmp_path / "faces", CARD)
    (tmp_path / "encoded").mkdir()
    assert "network does not state" in contents(profile_of(train, draw), tmp_path)[0]
    write_card(tmp_path / "encoded", CARD)
    assert contents(profile_of(train, draw), tmp_path) == []


def test_no_run_says_rendered_of_what_it_did_not_render():
    "RENDERED and CC0-1.0 stand only where the pictures were drawn a line before"
    drawn = {"encoders", "base", "prepare", "idbooth_train"}  # the last two: for `parametric` only
    said = {p.stem for p in RUNS if re.search(r"RENDERED|CC0|drawn faces, nobody", code(p))}
    assert said <= drawn, said - drawn
    for name in ("prepare", "idbooth_train"):
        text = code(ROOT / f"nbs/runs/{name}.ipynb")
        lines = [
            line for line in text.splitlines() if re.search(r"[^ ].*(RENDERED|CC0)", line) and "import" not in line
        ]
        assert all("if drawn" in line or "if photos ==" in text.split(line)[0][-60:] for line in lines), lines


# How long, and how much


def test_a_finished_set_run_again_keeps_its_speed(tmp_path):
    y = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    rows, log, pipe = plan(y / np.linalg.norm(y, axis=2, keepdims=True)), tmp_path / "work.jsonl", pipeline()
    generate(pipe, rows, tmp_path / "set", CARD, batch=4, steps=2, unit=8, log=log)
    first = work_done(log)
    assert first["done"] == 12 and first["per_second"] > 0
    generate(pipe, rows, tmp_path / "set", CARD, batch=4, steps=2, log=log)
    assert work_done(log) == first
    sorted((tmp_path / "set").rglob("*.png"))[5].unlink()
    generate(pipe, rows, tmp_path / "set", CARD, batch=4, steps=2, log=log)
    assert work_done(log)["done"] == 16  # a batch was drawn again, and its time counts too


def test_seconds_of_a_training_add_up(tmp_path):
    def train(until):
        net = nn.Linear(2, 1)
        optimiser = torch.optim.SGD(net.parameters(), 0.1)

        def update(step):
            if step == until:
                raise KeyboardInterrupt
            return dict(loss=0.0)

        try:
            train_loop(update, 6, optimiser, dict(net=net), {}, Keep(tmp_path, seconds=0.0))
        except KeyboardInterrupt:
            pass

    train(4)
    assert work_done(tmp_path / "work.jsonl")["done"] == 4
    train(None)
    assert work_done(tmp_path / "work.jsonl")["done"] == 6
    train(None)
    assert work_done(tmp_path / "work.jsonl")["done"] == 6


def test_torn_lines_of_work_count_nothing(tmp_path):
    note_work(tmp_path / "w", 3, 1.5)
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes() + b'{"done": 9\xff\0\n[1]\n')
    assert work_done(tmp_path / "w") == dict(done=3, seconds=1.5, per_second=2.0)


# What a share recovered means


@pytest.mark.parametrize(
    "notebook", [p for p in RUNS if re.search(r"\bworth\(|verify_pairs\(", code(p))], ids=lambda p: p.stem
)
def test_every_worth_stands_beside_an_untrained_network(notebook):
    text = code(notebook)
    if notebook.stem == "encoders" or not re.search(r"\bworth\(|verify_pairs\(", text):
        return  # `encoders` makes measuring devices, and says nothing of a dataset
    assert re.search(r"\buntrained\(", text) and "worth_warnings(" in text and "warnings=" in text


def test_words_of_warning():
    assert worth_warnings([80.0], [65.0]) == []
    (said,) = worth_warnings([66.0, 66.2], [64.6, 64.7])
    assert "66.1 %" in said and "64.7 %" in said and "not clearly above" in said
    (said,) = worth_warnings([80.0], [65.0], dict(one=0.39, two=0.41))
    assert "41.0 % (two)" in said and "one" not in re.sub(r"someone|hardly", "", said)
    assert "45.0 % (a)" in methods_answer(dict(a=0.45, b=0.2), {})  # though b is below


def test_a_table_says_when_recovered_means_little():
    rows = [dict(name=n, images=9, p_lfw=v) for n, v in (("synthetic", 0.66), ("real", 0.67), ("untrained", 0.65))]
    assert "real is not clearly above untrained" in verification_table(rows, reference="real")
    rows[1]["p_lfw"] = 0.9
    assert "not clearly" not in verification_table(rows, reference="real")


def test_nothing_to_recover_ends_no_experiment():
    low, high = dict(a=0.6), dict(a=0.8)
    assert share_recovered(low, low, high) is None and share_recovered(dict(a=0.7), high, low) == pytest.approx(0.5)


def test_on_whom():
    assert unseen(range(10, 20), range(10)) and unseen(range(10, 20), range(15, 16)) is False
    assert unseen(range(10, 20), None) is None
    assert "none of whom" in verified_on(True, "rendered") and "some of whom" in verified_on(False, "rendered")
    assert "not checked" in verified_on(None, "real")


@pytest.mark.parametrize("notebook", RUNS, ids=lambda p: p.stem)
def test_no_claim_is_printed_without_its_check(notebook):
    text = code(notebook)
    assert not re.search(r"neither[\s\"f]+training set holds|nobody has seen|unseen people\"", text)
    if re.search("^judge = ", text, re.M) and re.search("^encoder = ", text, re.M):
        assert "check_judge(" in text, "a judge must not be the encoder of the loss"


def test_a_judge_is_another_network():
    torch.manual_seed(0)
    one, other = (Encoder(recogniser("tiny32").eval(), 32) for _ in range(2))
    check_judge(one, other)
    refused(lambda: check_judge(one, other, one), "the judge is the encoder of the loss")


def test_anchors_of_the_demos_record_are_those_of_this_code():
    "Records are made by the committed code: its anchors are cheap to make again, and are the same to the last digit"
    record = json.loads((ROOT / "data/records/demo/id3_generate.json").read_text())
    p, said = record["parameters"], record["results"]["separation"]
    dim = p["anchors"]["subspace"]
    low = tammes_anchors(p["identities"], dim, p["seed"])
    assert said == dict(
        dimensions=dim,
        max_cosine=pytest.approx(max_cosine(low), abs=1e-7),
        random=pytest.approx(float(random_max_cosine(p["identities"], dim)), abs=1e-7),
        limit=pytest.approx(float(levenshtein_bound(p["identities"], dim)), abs=1e-9),
    )


@pytest.mark.parametrize("profile", ["demo", "cemiface"])
def test_the_people_of_the_readmes_table_are_unseen(profile):
    "By number: neither the real pictures nor the faces behind the shipped networks are of people who are verified"
    p = json.loads((ROOT / f"data/records/{profile}/recognise.json").read_text())["parameters"]
    if isinstance(p["real"], str):  # records before options were grouped, and had a parameter for the first of the pool
        p = dict(real=dict(source=p["real"], first=p["first"]), benchmarks=dict(source=p["benchmarks"], pool=p["pool"]))
    real, pairs = p["real"], dict(first=1_000_000) | p["benchmarks"]
    assert real["source"] == pairs["source"] == "parametric"
    networks = json.loads((ROOT / "data/models/encoders.json").read_text())["parameters"]["people"]
    trained = [range(real["first"], real["first"] + 250), *(range(k, k + networks) for k in (10_000, 20_000))]
    assert unseen(range(pairs["first"], pairs["first"] + pairs["pool"]), *trained)


def test_photographs_are_asked_for_their_card_before_anything_runs():
    "`prepare` without name, source, licence or limits: refused by the condition that the doctor reads too"
    notebook = ROOT / "nbs/runs/prepare.ipynb"
    given = run_defaults(notebook) | dict(photos="data/photos", weights=["detector.onnx"])
    told = dict(name="mine", source="my photographs", licence="private", limits="few")
    for lacking in (*told, None):
        p = given | {k: v for k, v in told.items() if k != lacking}
        wrong = [w for w in (unmet(c, p) for c in run_conditions(notebook)) if w]
        assert len(wrong) == (lacking is not None), (lacking, wrong)
