"""Sets as others leave them: shared names, lists beside records, short indices, capitals, Unicode, stray files."""

import io
import json
import pickle
import shutil
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from facesyn.core.checks import refused
from facesyn.core.images import encode_image
from facesyn.data.bins import csv_list, lfw_list, list_to_bin, read_bin, save_bin
from facesyn.data.colour import red_and_blue, swapped_channels
from facesyn.data.containers import open_tars
from facesyn.data.conversion import convert
from facesyn.data.dataset import write_folder
from facesyn.data.faces import Faces, folder_faces, parametric_faces
from facesyn.data.image_sets import Encoded, encoded_faces
from facesyn.data.inspection import inspect_dataset
from facesyn.data.opening import kind_of, open_encoded, open_faces
from facesyn.data.pairs import open_pairs
from facesyn.data.rec_sets import write_rec
from facesyn.data.recordio import frame, pack
from facesyn.data.trainers import RecDataset
from facesyn.methods.people import check_consent, square_photos, write_people
from facesyn.nets.encoders import load_encoder
from facesyn.nets.photographs import known_landmarks, load_models, photo_files

DRAWN = parametric_faces(3, 4, size=32, first=10)
FILES = encoded_faces(DRAWN, ".jpg")
JPEGS = [FILES.read(k) for k in range(12)]
CARD = dict(name="three", source="rendered", method="head", licence="CC0-1.0", limits="twelve images")
JOSE, DECOMPOSED = "José", unicodedata.normalize("NFD", "José")


# --- tars ---


def tar(path, *names):
    with tarfile.open(path, "w") as file:
        for name in names:
            content = b"0" if name.endswith("cls") else JPEGS[0]
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path.read_bytes()


SAMPLES = [
    (("7.jpg", "7.cls", "7.jpg", "7.cls"), "several samples are called 7"),
    (("7.jpg", "7.cls", "8.jpg", "8.cls", "7.jpg", "7.cls"), "several samples are called 7"),
    (("a/7.JPG", "a/7.jpg", "a/7.cls"), "several samples are called a/7"),
    (("7.jpg", "7.png", "7.cls"), "sample 7 has several images (cls, jpg, png)"),
    (("7.seg.jpg", "7.cls"), "sample 7 has no image (cls, seg.jpg)"),
]


@pytest.mark.parametrize("names, words", SAMPLES, ids=lambda v: v if isinstance(v, str) else "")
def test_samples_of_one_name(names, words, tmp_path):
    tar(tmp_path / "x.tar", *names)
    refused(lambda: open_encoded(tmp_path / "x.tar"), "x.tar", words)
    assert words in inspect_dataset(tmp_path / "x.tar")["problems"][0]


def test_tars_of_which_a_part_would_be_lost(tmp_path):
    "Python's tarfile stops without a word at a damaged header, and at the end of the first of two joined files"
    path = tmp_path / "x.tar"
    whole = tar(path, "0.jpg", "0.cls", "1.jpg", "1.cls")
    assert len(open_tars([path])) == 2
    second = whole.index(b"1.jpg")
    for data in (whole + tar(path, "2.jpg", "2.cls"), whole[:second] + b"9" + whole[second + 1 :], whole[:second]):
        path.write_bytes(data)
        refused(lambda: open_tars([path]), "x.tar")


# --- records ---


def records(folder, name, payloads, keys=()):
    "A .rec, and the index that names the records `keys`"
    folder.mkdir(exist_ok=True)
    starts = np.cumsum([0, *(len(frame(p)) for p in payloads)])
    (folder / f"{name}.rec").write_bytes(b"".join(map(frame, payloads)))
    (folder / f"{name}.idx").write_text("".join(f"{k}\t{starts[k]}\n" for k in keys))
    return folder / f"{name}.rec"


FLAT = [pack(JPEGS[k], k // 4, k) for k in range(12)]
INDEXED = [  # the keys of the index, and words of the error
    ((), "names no record", "leaves out"),
    (range(3), "truncated"),
    ((*range(4), *range(8, 12)), "leaves out records"),
    (range(1, 12), "leaves out records"),
]


@pytest.mark.parametrize("keys", [row[0] for row in INDEXED], ids=str)
def test_an_index_that_leaves_records_out(keys, tmp_path):
    path = records(tmp_path, "train", FLAT, keys)
    for call in (open_encoded, RecDataset):
        refused(lambda: call(path), "train.idx", "train.rec")  # noqa: B023
    report = inspect_dataset(path)
    assert report["images"] == 12 and "train.idx" in report["problems"][0]


def test_an_index_of_other_records(tmp_path):
    path = records(tmp_path, "train", FLAT, range(12))
    assert len(open_encoded(path)) == 12
    idx = path.with_suffix(".idx")
    good = idx.read_text().splitlines()
    for lines, words in (
        ([*good[:3], "3\t13", *good[4:]], "13"),
        ([*good, "12\t" + good[3].split("\t")[1]], "two keys"),
        ([*good, "12\t999999"], "999999"),
    ):
        idx.write_text("\n".join(lines))
        refused(lambda: open_encoded(path), "train", words)


def test_two_files_in_one(tmp_path):
    write_rec(FILES, tmp_path / "a")
    path = tmp_path / "a" / "train.rec"
    path.write_bytes(2 * path.read_bytes())
    refused(lambda: open_encoded(path), "train.idx")
    (tmp_path / "a" / "train.idx").unlink()
    refused(lambda: open_encoded(path), "train.rec has 32 records", "counts 16")


def test_people_that_only_a_list_tells_apart(tmp_path):
    "DCFace: label 0 everywhere"
    zero = [pack(jpeg, 0.0, k) for k, jpeg in enumerate(JPEGS)]
    path = records(tmp_path / "dcface", "file", zero, range(12))
    alone = inspect_dataset(path)["problems"]
    assert any("all 12 images are of one person" in p for p in alone)
    lines = [f"{k}\t{10 - k // 4}/{k}.jpg" for k in range(12)]
    (tmp_path / "dcface" / "list.txt").write_text("\n".join(lines))
    there = open_encoded(path)
    assert there.names == ["8", "9", "10"] and there.labels.tolist() == [2] * 4 + [1] * 4 + [0] * 4
    assert RecDataset(path)[0][1] == 2
    report = inspect_dataset(path)
    assert report["identities"] == 3 and any("the list beside it" in p and "label 0" in p for p in report["problems"])
    convert(path, tmp_path / "out", "rec")
    assert open_encoded(tmp_path / "out").names == there.names
    for wrong, words in ((lines[:-2], "key 10"), (["0 a/0.jpg"], "line 1")):
        (tmp_path / "dcface" / "list.txt").write_text("\n".join(wrong))
        refused(lambda: open_encoded(path), "list.txt", words)
        assert any("list.txt" in p for p in inspect_dataset(path)["problems"])


def test_names_of_im2rec(tmp_path):
    path = records(tmp_path, "train", FLAT, range(12))
    listed, people = tmp_path / "train.lst", ("ann", DECOMPOSED, "eve")
    listed.write_text("".join(f"{k}\t{k // 4:.6f}\t{people[k // 4]}/{k}.jpg\n" for k in range(12)))
    assert open_encoded(path).names == ["ann", JOSE, "eve"]
    listed.write_text("".join(f"{k}\tall/{people[k // 4]}/{k}.jpg\t{k // 4}\n" for k in range(12)))  # CVLface's order
    assert open_encoded(path).names == ["ann", JOSE, "eve"]
    listed.write_text("".join(f"{k}\t{k // 4}\tall/{k}.jpg\n" for k in range(12)))  # no folders
    assert open_encoded(path).names == ["000000", "000001", "000002"]


def test_a_set_of_one_person(tmp_path):
    write_folder(parametric_faces(1, 3, 112), tmp_path / "one", CARD)
    assert any("one person" in p for p in inspect_dataset(tmp_path / "one")["problems"])


# --- endings in capitals ---


def test_capitals(tmp_path, monkeypatch):
    for format, names in dict(
        rec=("train.rec", "train.idx", "train.lst"),
        webdataset=("train-000000.tar",),
        folder=(),
        parquet=("",),
        lmdb=("",),
    ).items():
        if format in ("parquet", "lmdb"):
            pytest.importorskip(dict(parquet="pyarrow").get(format, "lmdb"))
        convert(FILES, tmp_path / format, format)
        for path in [
            p for p in (tmp_path / format).rglob("*") if p.is_file() and p.suffix not in (".json", ".jsonl", ".md")
        ]:
            if not names or path.name in names or "train" in path.name or path.suffix == ".jpg":
                path.rename(path.with_name(path.stem + path.suffix.upper()))
        kind = kind_of(tmp_path / format)
        assert kind == format and len(open_encoded(tmp_path / format)) == 12
        assert inspect_dataset(tmp_path / format)["images"] == 12
        for path in (tmp_path / format).glob("[Tt]rain*.[RTPL][AEM]*"):
            assert len(open_faces(path, 32)) == 12
    np.savez(
        tmp_path / "x.npz", jpeg=np.frombuffer(b"".join(JPEGS), np.uint8), offsets=np.cumsum([0, *map(len, JPEGS)])
    )
    (tmp_path / "x.npz").rename(tmp_path / "X.NPZ")
    assert len(open_faces(tmp_path / "X.NPZ", 32)) == 12 and kind_of(tmp_path / "X.NPZ") == "npz"
    save_bin(
        JPEGS[:10] + JPEGS[2:12] + JPEGS[1:11] + JPEGS[:5] + JPEGS[7:], [True, False] * 10, tmp_path / "LFW.BIN", True
    )
    assert len(open_pairs(tmp_path / "LFW.BIN", 32)[0]) == 20 and kind_of(tmp_path / "LFW.BIN") == "bin"
    for name in ("NET.ONNX", "DET.ONNX"):
        (tmp_path / name).write_bytes(b"")
    refused(lambda: load_encoder(tmp_path / "NET.ONNX"), "NET.ONNX: give the size")
    refused(lambda: load_encoder(tmp_path / "NET.ONNX", size=112), "NET.ONNX")
    refused(lambda: load_models(tmp_path / "DET.ONNX"), "insightface cannot use", "DET.ONNX")
    for name in ("BACKBONE.PTH", "b.pth.tar", "B.CKPT"):
        (tmp_path / name).write_bytes(b"")
        refused(lambda: load_encoder(tmp_path / name), "cannot read", name)  # noqa: B023
    assert encode_image(np.zeros((8, 8, 3), np.uint8), ".PNG")[:4] == b"\x89PNG"


def test_lists_of_pictures_with_any_ending(tmp_path):
    for name, suffix in (("ann", ".JPG"), (DECOMPOSED, ".Png"), ("eve", ".jpeg")):
        (tmp_path / name).mkdir()
        for k in (1, 2):
            (tmp_path / name / f"{name}_{k:04d}{suffix}").write_bytes(JPEGS[k])
    (tmp_path / "p.txt").write_text(f"1\t2\nann\t1\t2\n{JOSE}\t1\t2\nann\t1\teve\t2\n{JOSE}\t1\tann\t2\n")
    files, _ = lfw_list(tmp_path / "p.txt", tmp_path)
    assert len(files) == 8 and all(f.is_file() for f in files)
    (tmp_path / "P.CSV").write_text(f"first, second, issame\n{JOSE}/{JOSE}_0001.Png, ann/ann_0001.JPG, 0\n")
    assert all(f.is_file() for f in csv_list(tmp_path / "P.CSV", tmp_path)[0])
    refused(lambda: list_to_bin(tmp_path / "P.CSV", tmp_path, tmp_path / "x.bin", 32), "x.bin", "0 genuine")
    (tmp_path / "p.txt").write_text("1\t1\n../ann\t1\t2\nann\t1\teve\t1\n")
    refused(lambda: lfw_list(tmp_path / "p.txt", tmp_path), "p.txt line 2", "'../ann'")
    (tmp_path / "p.txt").write_text(f"1\t1\nann\t{'9' * 5000}\t2\nann\t1\teve\t1\n")
    refused(lambda: lfw_list(tmp_path / "p.txt", tmp_path), "p.txt line 2")
    (tmp_path / "P.CSV").write_text('first,second,issame\n"' + "a" * 200_000 + '",b,1\n')
    refused(lambda: csv_list(tmp_path / "P.CSV", tmp_path), "P.CSV line")


ANSWERS = [np.array([1, 0], kind) for kind in ("i1", "u1", "i2", "i4", "u4", "i8", "f4", "f8", "?")]
ANSWERS += [[np.int32(1), np.int32(0)], [np.True_, np.False_], (True, False), np.array([True, False], object)]


@pytest.mark.parametrize("answers", ANSWERS, ids=lambda v: str(getattr(v, "dtype", type(v[0]).__name__)))
def test_answers_of_any_kind(answers, tmp_path):
    for pictures in (JPEGS[:4], np.array(JPEGS[:4], object), [np.frombuffer(p, np.uint8) for p in JPEGS[:4]]):
        for protocol in (2, 4):
            (tmp_path / "x.bin").write_bytes(pickle.dumps((pictures, answers), protocol=protocol))
            there, issame = read_bin(tmp_path / "x.bin")
            assert [bytes(p) for p in there] == JPEGS[:4] and issame.tolist() == [True, False]


@pytest.mark.parametrize(
    "answers", [np.array([2, 0]), np.array([0.5, 0]), np.array([np.nan, 1]), [None, True], [[1], [0]]]
)
def test_answers_that_are_none(answers, tmp_path):
    (tmp_path / "x.bin").write_bytes(pickle.dumps((JPEGS[:4], answers)))
    refused(lambda: read_bin(tmp_path / "x.bin"), "x.bin", "pair 0")


# --- names ---


def test_one_name_in_two_forms(tmp_path):
    for k, name in enumerate((JOSE, DECOMPOSED)):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / f"{k}.jpg").write_bytes(JPEGS[k])
    assert folder_faces(tmp_path / "set", 32).names == open_encoded(tmp_path / "set").names == [JOSE]
    assert [row[0] for row in photo_files(tmp_path / "set")] == [0, 0]
    assert square_photos(tmp_path / "set", 32).names == [JOSE]
    agreed = {JOSE: dict(agreed=True, terms="a test")}
    for key, name in ((JOSE, DECOMPOSED), (DECOMPOSED, JOSE)):
        (tmp_path / "consent.json").write_text(json.dumps({key: agreed[JOSE]}))  # escaped, as json.dump does
        check_consent(tmp_path, [name])
        (tmp_path / "consent.json").write_text(json.dumps({key: agreed[JOSE]}, ensure_ascii=False))
        check_consent(tmp_path, [name])
        (tmp_path / "l.jsonl").write_text(json.dumps(dict(file=f"{key}/0.jpg", landmarks=[[1, 2]] * 5)))
        assert known_landmarks(tmp_path / "l.jsonl")(f"{name}/0.jpg", None)
    assert Faces([0], [DECOMPOSED], np.zeros((1, 4)), 8, None).names == Encoded([0], [DECOMPOSED], None).names == [JOSE]
    refused(lambda: Faces([0, 1], [JOSE, DECOMPOSED], np.zeros((2, 4)), 8, None), "one name", JOSE)


def test_attributes_of_a_manifest_with_decomposed_names(tmp_path):
    write_folder(DRAWN, tmp_path, CARD)
    (tmp_path / "000001").rename(tmp_path / DECOMPOSED)
    for form in (JOSE, DECOMPOSED):
        rows = (tmp_path / "manifest.jsonl").read_text()
        (tmp_path / "manifest.jsonl").write_text(rows.replace("000001/", json.dumps(form)[1:-1] + "/"))
        assert not np.isnan(folder_faces(tmp_path, 32).attributes).any()
        assert open_encoded(tmp_path).about(11)["attributes"]
        (tmp_path / "manifest.jsonl").write_text(rows)


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/evil", "a/b", "a\\b", "..", ".", ".hidden", "", " ", "a\0b", "é" * 150]
)
def test_names_are_no_paths(name, tmp_path):
    faces = Faces([0, 1], ["ann", name], np.full((2, 4), np.nan), 32, lambda k: DRAWN.read(k))
    refused(lambda: write_people(faces, tmp_path / "a" / "b" / "out", CARD), "out", "no name of a person")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


def test_the_same_picture_twice_in_a_file_of_landmarks(tmp_path):
    row = json.dumps(dict(file="a/0.jpg", landmarks=[[1, 2]] * 5)) + "\n"
    (tmp_path / "l.jsonl").write_text(row + row.replace("a/0", "./a/0"))
    refused(lambda: known_landmarks(tmp_path / "l.jsonl"), "l.jsonl row 2", "a/0.jpg")


# --- folders ---


def people(root):
    for name in ("ann", "bob"):
        (root / name).mkdir(parents=True)
        (root / name / "0.jpg").write_bytes(JPEGS[0])
    return root


STRAY = [
    (lambda root: (root / "__MACOSX" / "ann").mkdir(parents=True), "__MACOSX", "macOS", "delete it"),
    (lambda root: (root / "ann" / "more").mkdir(), "more is a folder where a picture was expected"),
    (lambda root: (root / "ann" / "1.jpg").symlink_to("nowhere.jpg"), "1.jpg is a link to nowhere.jpg"),
    (lambda root: (root / "eve").symlink_to("../eve"), "eve is a link to ../eve"),
]


@pytest.mark.parametrize("row", STRAY, ids=lambda row: row[1])
def test_what_does_not_belong_into_a_folder(row, tmp_path):
    change, *words = row
    change(people(tmp_path / "set"))
    for call in (lambda p: folder_faces(p, 8), open_encoded, photo_files):
        refused(lambda: call(tmp_path / "set"), *words)  # noqa: B023
    assert all(w in inspect_dataset(tmp_path / "set")["problems"][0] for w in words)


INNER = [
    ("a/train.rec", "b/property"),
    ("a/0.tar", "b/0.TAR"),
    ("a/data.mdb", "b/x.lmdb"),
    ("a/0.parquet", "b/1.parquet"),
]
INNER = [*INNER, ("a.bin", "b.bin.xz"), ("a.npz", "b.npz")]


@pytest.mark.parametrize("names", INNER, ids=lambda names: names[0])
def test_a_folder_of_sets_names_them(names, tmp_path):
    root = tmp_path / "sets"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"0")
    words = "sets is no set itself", names[0].removesuffix("/train.rec").split("/")[0], "give one of them"
    for call in (open_encoded, lambda p: open_faces(p, 8), inspect_dataset, lambda p: convert(p, tmp_path / "out")):
        refused(lambda: call(root), *words)  # noqa: B023


def test_networks_and_pairs_beside_people_are_no_sets(tmp_path):
    root = people(tmp_path / "set")
    (root / "lfw.bin").write_bytes(b"0")
    assert kind_of(root) == "folder" and len(open_faces(root, 8)) == 2


def test_hidden_files_are_left_alone(tmp_path):
    root = people(tmp_path / "set")
    mine = [".DS_Store", "ann/Thumbs.db", "ann/desktop.ini", "ann/._0.jpg", "ann/.notes.2026.txt", ".git/config"]
    for name in mine:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("mine")
    shutil.copytree(root, tmp_path / "out")
    assert len(folder_faces(root, 8)) == len(open_encoded(root)) == len(photo_files(root)) == 2
    convert(root, tmp_path / "out", "folder")
    assert all((tmp_path / "out" / name).read_text() == "mine" for name in mine)


# --- colours ---


def lit(gain, noise=0.0):
    "`red_and_blue` of forty faces whose blue spreads more than their red, as in photographs, in a light"
    rng, out = np.random.default_rng(0), []
    for x in parametric_faces(20, 2, 32, first=70).read(np.arange(40)).astype(float):
        x[..., 2] = 90 * (x[..., 2] / 90 + 1e-3) ** 1.5  # what melanin does
        out.append(red_and_blue((x * gain + noise * rng.normal(size=x.shape)).clip(0, 255).astype(np.uint8)))
    return out


def test_cool_light_is_not_swapped():
    for gain in ([1, 1, 1], [0.75, 1, 1.35], [0.6, 0.9, 1.5]):
        assert swapped_channels(lit(np.array(gain))) is None, gain
    turned = [(-difference, -spread) for difference, spread in lit(np.ones(3))]
    assert "red and blue are likely swapped" in swapped_channels(turned)


def test_grey_sets_are_not_swapped(tmp_path):
    rng = np.random.default_rng(0)
    for mode in ("L", "RGB"):
        for who in ("ann", "bob"):
            (tmp_path / mode / who).mkdir(parents=True)
            for k in range(6):
                x = DRAWN.read([k])[0].mean(-1, keepdims=True) + rng.normal(size=(32, 32, 3)) * [0, 0, 1] - [0, 0, -1]
                image = Image.fromarray(x.clip(0, 255).astype(np.uint8)).convert(mode)
                image.save(tmp_path / mode / who / f"{k}.jpg")
        assert not any("swapped" in p for p in inspect_dataset(tmp_path / mode)["problems"])


# --- what lies beside pictures ---


ROWS = [
    ("manifest.jsonl", lambda row: row | dict(file=["x"]), "row 1 names no file"),
    ("manifest.jsonl", lambda row: row | dict(attributes=["a", 1, 2, 3]), "attributes must be"),
    ("card.json", lambda card: card | dict(note=float("inf")), "no number"),
    ("card.json", lambda card: card | dict(note="\ud800"), "no text"),
    ("card.json", lambda card: [card], "expected an object"),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])
def test_what_is_said_of_pictures(row, tmp_path):
    name, change, words = row
    write_folder(DRAWN, tmp_path / "set", CARD)
    file = tmp_path / "set" / name
    rows = file.read_text().splitlines() if name.endswith("l") else [file.read_text()]
    file.write_text("\n".join([json.dumps(change(json.loads(rows[0]))), *rows[1:]]))
    call = convert if name == "card.json" else lambda p, _: folder_faces(p, 32)
    refused(lambda: call(tmp_path / "set", tmp_path / "out"), name, words)


def test_a_file_without_images(tmp_path):
    path = records(tmp_path, "train", [])
    refused(lambda: open_encoded(path), "train.rec has no images")
    assert "train.rec has no images" in inspect_dataset(path)["problems"]
