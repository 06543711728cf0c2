"""What the page on formats promises of each reader: the library itself where it is one of our own packages, else its
rules (readers.py)."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import datasets
import lmdb  # noqa: F401
import numpy as np
import pytest
import torch
import webdataset
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from readers import LMDB, ImageFolder, MXReader, adaface_dataset, arcface_config, arcface_dataset, dali, load_bin, rgb  # noqa: E402

from facesyn.core.checks import refused  # noqa: E402
from facesyn.core.images import encode_image  # noqa: E402
from facesyn.data.cards import RENDERED, inherited  # noqa: E402
from facesyn.data.conversion import convert  # noqa: E402
from facesyn.data.dataset import rank_within, write_folder  # noqa: E402
from facesyn.data.faces import Faces, parametric_faces, read_manifest  # noqa: E402
from facesyn.data.image_sets import Encoded  # noqa: E402
from facesyn.data.opening import open_encoded  # noqa: E402
from facesyn.data.pairs import Pairs, write_bin  # noqa: E402

ROOT = Path(__file__).parents[2]
CARD = dict(name="noise", source="noise", method="noise", licence="CC0-1.0", limits="noise")
PEOPLE, PICTURES = 12, 3  # twelve, so that 10 comes before 2 without zeros


def picture(k, size=112, suffix=".jpg"):
    return encode_image(np.random.default_rng(k).integers(0, 256, (size, size, 3), np.uint8), suffix)


def noise(size=112, known=True):
    "36 noise pictures of twelve people, in no order; of some a prompt is known"
    labels = np.random.default_rng(0).permutation(np.arange(PEOPLE * PICTURES) % PEOPLE)

    def about(k):
        said = dict(prompt=f"“{k}”\n") if k > 20 and k % 2 else {}
        return dict(seed=int(k), attributes=[0.5 * k, None, 3.0, 40.0], embedding=int(k)) | said

    names = [f"{i:06d}" for i in range(PEOPLE)]
    return Encoded(labels, names, lambda k: picture(k, size), about=about if known else None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    "A set with a manifest and embeddings, in a folder whose name no module can have, in every format"
    root = tmp_path_factory.mktemp("clients")
    convert(noise(), root / "source", "folder", card=CARD)
    np.save(root / "source/embeddings.npy", np.random.default_rng(1).normal(size=(PEOPLE * PICTURES, 8)))
    for format in ("rec", "flat", "folder", "webdataset", "lmdb", "parquet", "vec2face"):
        convert(root / "source", root / f"my set v1.2, {format}", format, shard=20)
    return root


def at(written, format):
    return written / f"my set v1.2, {format}"


def pixels(label, number):
    "Picture `number` of a person"
    (k,) = [k for k, j in enumerate(rank_within(noise().labels)) if (noise().labels[k], j) == (label, number)]
    return rgb(noise().read(k))


def holds_all(found):
    "Are pairs of (pixels, label) all those of the noise, each once?"
    wanted = sorted((int(i), rgb(noise().read(k)).tobytes()) for k, i in enumerate(noise().labels))
    return sorted((int(label), np.asarray(image).tobytes()) for image, label in found) == wanted


def everything(reader):
    return [reader[k] for k in range(len(reader))]


# Trainers


@pytest.mark.parametrize("format", ["rec", "flat", "folder"])
@pytest.mark.parametrize("moved", [False, True])
def test_arcface_torch_by_its_rules(written, format, moved, tmp_path):
    "The configuration is linked into configs/, as it says itself; the set lies elsewhere than it was written"
    place = at(written, format)
    if moved:
        place = Path(shutil.copytree(place, tmp_path / "else where" / "x.y"))
    configs = tmp_path / "arcface_torch" / "configs"
    configs.mkdir(parents=True)
    (configs / "__init__.py").touch()
    (configs / "base.py").write_text("config = dict(output='work_dirs', batch_size=1)\n")
    (name,) = re.findall(r"train_v2.py (configs/\S+)\n", (place / "arcface_torch.py").read_text())
    os.symlink(place / "arcface_torch.py", f"{configs.parent / name}.py")
    config = arcface_config(configs.parent, name)
    assert (config.num_image, config.num_classes) == (PEOPLE * PICTURES, PEOPLE)
    assert config.num_image // config.batch_size >= 1  # the steps of an epoch
    assert Path(config.rec).samefile(place / "imgs" if format == "folder" else place)
    assert holds_all(everything(arcface_dataset(config.rec)))


def test_a_copied_configuration_says_what_to_do(written, tmp_path):
    shutil.copytree(at(written, "rec"), tmp_path / "set")
    configs = tmp_path / "configs"
    configs.mkdir()
    for name in ("__init__", "base"):
        (configs / f"{name}.py").write_text("config = {}\n")
    shutil.copy(tmp_path / "set/arcface_torch.py", configs / "mine.py")
    with pytest.raises(FileNotFoundError, match="no train.rec in .*configs.*link"):
        arcface_config(tmp_path, "configs/mine")


@pytest.mark.parametrize("name", ["base", "ms1mv3_r50", "2024", "a-b", "mine.v2", "my set", "Gesichter für ñ", "…"])
def test_every_name_of_a_set_gives_a_module(name, tmp_path):
    convert(noise(), tmp_path / name, "rec", card=CARD)
    (module,) = re.findall(r"train_v2.py configs/(\S+)\n", (tmp_path / name / "arcface_torch.py").read_text())
    assert re.fullmatch(r"facesyn_\w+", module, re.A)


def words_of(script, folder):
    "What a shell script gives to python, started in another folder"
    (folder / "python").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    (folder / "python").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    out = subprocess.run(["sh", script], cwd=folder, env=dict(os.environ, PATH=path), capture_output=True, check=True)
    return out.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("format", ["rec", "flat", "folder"])
def test_adaface_by_its_rules(written, format, tmp_path):
    place = shutil.copytree(at(written, format), tmp_path / "else where" / "x.y")
    words = words_of(place / "adaface.sh", tmp_path)
    assert words[0] == "main.py" and dict(zip(words, words[1:]))["--custom_num_class"] == str(PEOPLE)
    assert holds_all(everything(adaface_dataset(words)))


def test_cvlface_by_its_rules(written):
    "The same reader as arcface_torch's; a train.tsv that is absent is made from all records"
    reader = MXReader(at(written, "flat"))
    assert sorted(reader.imgidx) == list(range(PEOPLE * PICTURES)) and holds_all(everything(reader))


def test_dali_by_its_rules(written, tmp_path):
    assert holds_all((image, label) for label, image in dali(at(written, "flat")))
    with pytest.raises(Exception, match="cannot identify|image"):
        dali(at(written, "rec"))  # its header is no picture: the page says flat
    convert(at(written, "rec"), tmp_path / "shuffled", "flat", shuffle=1)
    labels = [label for label, _ in dali(tmp_path / "shuffled")]
    assert labels != sorted(labels) and holds_all((image, label) for label, image in dali(tmp_path / "shuffled"))


def test_torchvision_by_its_rules(written, tmp_path):
    "An exported folder is given with imgs/; a dataset as it was generated is given as it is"
    found = ImageFolder(at(written, "folder") / "imgs")
    assert [int(name) for name in found.classes] == list(range(PEOPLE)) and holds_all(everything(found))
    assert ImageFolder(at(written, "folder")).classes == ["imgs"]  # what the page warns of
    write_folder(parametric_faces(12, 2, 16), tmp_path / "made", CARD)
    assert [int(name) for name in ImageFolder(tmp_path / "made").classes] == list(range(12))


def test_sota_fr_and_vec2face_by_their_rules(written):
    found = LMDB(at(written, "lmdb") / "train.lmdb")
    assert (len(found), found.classnum) == (PEOPLE * PICTURES, PEOPLE) and holds_all(everything(found))
    found.close()


def test_vec2faces_own_training_by_its_rules(written):
    found = LMDB(at(written, "vec2face") / "train.lmdb", feature=True)
    rows = everything(found)
    found.close()  # LMDB must not be open twice in a process
    asked = np.load(at(written, "vec2face") / "embeddings.npy").astype(np.float32)
    assert holds_all((image, label) for image, _, label in rows)
    by_pixels = {rgb(noise().read(k)).tobytes(): k for k in range(PEOPLE * PICTURES)}
    for image, feature, _ in rows:
        assert np.array_equal(feature.numpy(), asked[by_pixels[image.tobytes()]])
    assert holds_all(open_as_pixels(at(written, "vec2face")))  # and ours reads it


def open_as_pixels(path):
    encoded = open_encoded(path)
    return [(rgb(encoded.read(k)), encoded.labels[k]) for k in range(len(encoded))]


def test_vec2face_needs_embeddings(written, tmp_path):
    shutil.copytree(written / "source", tmp_path / "bare")
    (tmp_path / "bare/embeddings.npy").unlink()
    refused(lambda: convert(tmp_path / "bare", tmp_path / "out", "vec2face"), "no embedding", "embeddings.npy")
    refused(lambda: convert(noise(known=False), tmp_path / "out2", "vec2face", card=CARD), "image 0", "no embedding")


def test_insightface_reads_the_pairs(tmp_path):
    images = np.stack([rgb(picture(k, suffix=".png")) for k in range(40)])
    write_bin(Pairs("pairs", images, np.arange(20) % 2 == 0), tmp_path / "pairs.bin")
    found, issame = load_bin(tmp_path / "pairs.bin")
    assert np.array_equal(found, images) and list(issame) == [k % 2 == 0 for k in range(20)]


# Libraries


def test_webdataset_reads_the_shards(written):
    tars = sorted(map(str, at(written, "webdataset").glob("*.tar")))
    pairs = [*webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").to_tuple("jpg", "cls")]
    assert len(tars) == 2 and holds_all(pairs)
    known = [json.loads(sample["json"]) for sample in webdataset.WebDataset(tars, shardshuffle=False)]
    assert [row["seed"] for row in known] == [open_encoded(written / "source").about(k)["seed"] for k in range(36)]


def loaded(path, tmp_path, **kw):
    "A folder by `load_dataset`, as one that was put on the Hub"
    return datasets.load_dataset(str(path), split="train", cache_dir=str(tmp_path / "cache"), **kw)


@pytest.mark.parametrize("format, label", [("folder", "label"), ("parquet", "label"), ("webdataset", "cls")])
def test_datasets_reads_the_folder(written, format, label, tmp_path):
    read = loaded(at(written, format), tmp_path)
    image = "jpg" if format == "webdataset" else "image"
    assert isinstance(read.features[image], datasets.Image) and len(read) == PEOPLE * PICTURES
    assert holds_all((np.asarray(row[image].convert("RGB")), row[label]) for row in read)
    rows = [row["json"] for row in read] if format == "webdataset" else read
    for row in rows:
        number = row["image" if format == "webdataset" else "image_number"]
        assert number == rank_within(noise().labels)[row["seed"]]
        if format != "webdataset":
            assert (row["pitch"], row["yaw"], row["age"]) == (0.5 * row["seed"], None, 40.0)
            assert row["prompt"] == noise().about(row["seed"]).get("prompt")


def test_datasets_reads_a_generated_set(tmp_path):
    write_folder(parametric_faces(3, 2, 16), tmp_path / "made", CARD)
    read = loaded(tmp_path / "made", tmp_path)
    assert sorted(read["label"]) == [0, 0, 1, 1, 2, 2] and read[0]["image"].size == (16, 16)
    assert {"pitch", "yaw", "roll", "age", "image_number"} <= set(read.features)


def test_people_called_train_and_test_are_no_splits(tmp_path):
    from facesyn.methods.people import write_people

    faces = parametric_faces(3, 2, 16)
    write_people(Faces(faces.labels, ["test", "train", "ünal"], faces.attributes, 16, faces.read), tmp_path / "p", CARD)
    assert len(loaded(tmp_path / "p", tmp_path)) == 6


@pytest.mark.parametrize("first", [".jpg", ".png"])
def test_datasets_reads_tars_of_a_mixed_set(first, tmp_path):
    "It drops what the first few samples do not have, so there is one kind of picture in all tars"
    second = dict([(".jpg", ".png"), (".png", ".jpg")])[first]
    mixed = Encoded(
        np.repeat([0, 1], 8), ["ann", "bob"], lambda k: picture(k, 32, first if k < 12 else second), about=None
    )
    with pytest.warns(UserWarning, match="image 12 .*PNG"):
        convert(mixed, tmp_path / "set", "webdataset", card=CARD, shard=4)
    read = loaded(tmp_path / "set", tmp_path)
    assert [np.array_equal(np.asarray(row["png"]), rgb(mixed.read(k))) for k, row in enumerate(read)] == [True] * 16


@pytest.mark.parametrize("format", ["rec", "flat", "folder", "webdataset", "lmdb", "parquet", "vec2face"])
def test_cards_are_what_the_hub_asks_for(written, format):
    _, front, text = (at(written, format) / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["license"] == "cc0-1.0" and about["pretty_name"] == "noise" and about["size_categories"] == ["n<1K"]
    assert "# noise" in text and "**limits**: noise" in text
    assert ("configs" in about) == (format in ("folder", "webdataset", "parquet"))


# What is warned of, and what stays


@pytest.mark.parametrize("format", ["rec", "flat", "folder"])
def test_small_pictures_are_warned_of_where_trainers_settings_are_written(format, tmp_path):
    with pytest.warns(UserWarning, match=r"32 x 32.*112 x 112 only.*size=112 \(--size 112\)"):
        convert(noise(32), tmp_path / "small", format, card=CARD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(noise(32), tmp_path / "large", format, size=112, card=CARD)
        convert(noise(32), tmp_path / "others", "parquet", card=CARD)


@pytest.mark.parametrize("format", ["flat", "webdataset", "parquet"])
def test_a_shuffled_set_keeps_the_sources_numbers(written, format, tmp_path):
    "And so does what is made of it: picture 3 of a person is picture 3 everywhere"
    convert(written / "source", tmp_path / "shuffled", format, shuffle=5)
    encoded = open_encoded(tmp_path / "shuffled")
    assert [encoded.about(k)["seed"] for k in range(36)] != list(range(36))
    for k in range(36):
        assert np.array_equal(rgb(encoded.read(k)), pixels(encoded.labels[k], encoded.about(k)["image"]))
    convert(tmp_path / "shuffled", tmp_path / "again", "rec")
    convert(tmp_path / "again", tmp_path / "back", "folder")
    for row in read_manifest(tmp_path / "back"):
        assert row["file"] == f"imgs/{row['identity']:06d}/{row['image']:04d}.jpg"
        assert np.array_equal(
            rgb((tmp_path / "back" / row["file"]).read_bytes()), pixels(row["identity"], row["image"])
        )


def test_numbers_of_a_list_are_the_sources_without_a_manifest(tmp_path):
    convert(noise(known=False), tmp_path / "flat", "flat", card=CARD, shuffle=5)
    reader = MXReader(tmp_path / "flat")
    for line in (tmp_path / "flat/train.lst").read_text().splitlines():
        key, label, path = line.split("\t")
        assert np.array_equal(rgb(reader.unpacked(int(key))[2]), pixels(int(float(label)), int(Path(path).stem)))


def test_a_readme_of_the_users_own_stays(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/README.md").write_text("mine")
    with pytest.warns(UserWarning, match="README.md is somebody else's"):
        convert(noise(), tmp_path / "set", "folder", card=CARD)
    assert (tmp_path / "set/README.md").read_text() == "mine" and (tmp_path / "set/card.json").exists()


# Networks


def test_plain_diffusers_opens_what_ships():
    from diffusers import StableDiffusionPipeline

    from facesyn import shipped

    pipe = StableDiffusionPipeline.from_pretrained(shipped("idbooth"), safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("portrait photo of person", num_inference_steps=1).images[0].size == (32, 32)


def in_a_process(code, folder):
    "What Python says to `code` in a folder that is not the repository, without having imported anything"
    said = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)
    return said.stdout + said.stderr


@pytest.mark.parametrize("name, cls", [("id3", "ID3Pipeline"), ("cemiface", "CemiFacePipeline")])
def test_plain_diffusers_finds_our_generators(name, cls, tmp_path):
    "If it is told to trust the few lines in the folder; otherwise it says so, and without facesyn they do"
    shutil.copytree(ROOT / "data/models" / name, tmp_path / "generator")
    load = "from diffusers import DiffusionPipeline as D; p = D.from_pretrained('generator'{}); print(type(p).__name__)"
    assert cls in in_a_process(load.format(", trust_remote_code=True"), tmp_path).splitlines()
    assert "trust_remote_code=True" in in_a_process(load.format(""), tmp_path).splitlines()[-1]
    alone = "import sys; sys.modules['facesyn'] = None; " + load.format(", trust_remote_code=True")
    assert "clone its repository" in in_a_process(alone, tmp_path)


def test_our_pipelines_run_no_code_of_a_folder(tmp_path):
    from facesyn.methods.id3_sampling import ID3Pipeline

    shutil.copytree(ROOT / "data/models/id3", tmp_path / "generator")
    (tmp_path / "generator/pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    pipe = ID3Pipeline.from_pretrained(tmp_path / "generator")
    assert type(pipe) is ID3Pipeline and not (tmp_path / "ran").exists()
    pipe.save_pretrained(tmp_path / "again")
    assert "facesyn.methods.id3_sampling" in (tmp_path / "again/pipeline.py").read_text()
    assert type(ID3Pipeline.from_pretrained(tmp_path / "again")) is ID3Pipeline


@pytest.mark.parametrize("name", ["identity", "judge", "attributes", "id3", "cemiface", "idbooth"])
def test_shipped_networks_have_cards(name):
    "Short and true: licence, and rendered faces as the data of the record"
    folder = ROOT / "data/models" / name
    about = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert about["license"] == "apache-2.0" and 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert inherited(folder) == RENDERED
    card = json.loads((folder / "card.json").read_text())
    records = {"id3": "id3/id3_train.json", "cemiface": "cemiface/cemiface_train.json", "idbooth": "idbooth/base.json"}
    p = json.loads((ROOT / "data/models" / records.get(name, "encoders.json")).read_text())["parameters"]
    numbers = [p["steps"], p["batch"]] if name in records else [p["people"], p["images"]]
    assert all(re.search(rf"\b{n}\b", card["method"]) for n in numbers)


def test_every_folder_of_a_network_that_runs_write_gets_a_card():
    runs = [*(ROOT / "nbs/runs").glob("*.ipynb")]
    saved = {p.stem for p in runs if re.search(r"save_(pretrained|base)\(|train_person\(", p.read_text())}
    carded = {p.stem for p in runs if "write_model_card(" in p.read_text()}
    assert saved == carded == {"encoders", "base", "id3_train", "cemiface_train", "idbooth_train"}


def test_a_built_wheel_leaves_nothing_to_commit():
    said = subprocess.run(["git", "check-ignore", "build/", "dist/"], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.split() == ["build/", "dist/"]
