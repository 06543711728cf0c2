"""Bad input to the floor `data`: a row is a call and the words that its error must have."""

import lzma
import pickle
import struct
import tarfile
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from facesyn.core.checks import refused
from facesyn.core.images import encode_image
from facesyn.data.array_files import array_faces
from facesyn.data.bins import decode_faces, list_to_bin, read_bin, save_bin
from facesyn.data.cards import provenance
from facesyn.data.containers import open_folder, open_tars, write_images
from facesyn.data.conversion import convert, prepared
from facesyn.data.dataset import begin_dataset, read_encoded, write_encoded, write_folder
from facesyn.data.faces import Faces, at_least, first_images, folder_faces, join, parametric_faces, select
from facesyn.data.image_sets import Encoded, decoded, encoded_faces, known_about, numbered, write_about, write_names
from facesyn.data.inspection import inspect_dataset
from facesyn.data.lmdb_sets import open_lmdb
from facesyn.data.opening import kind_of, open_encoded, open_faces, open_sources
from facesyn.data.pairs import Pairs, array_pairs, open_pairs, plan_pairs
from facesyn.data.parquet_sets import open_parquet
from facesyn.data.pickles import opcodes, unpickle
from facesyn.data.rec_sets import EXACT, joined, open_rec, plan_records, write_rec
from facesyn.data.recordio import LONGEST, MAGIC, frame, pack, read_idx, read_record, unpack, walk, write_records

DRAWN = parametric_faces(3, 4, size=32, first=10)
FILES = encoded_faces(DRAWN, ".jpg")
JPEGS = [encode_image(image, ".jpg") for image, _, _ in DRAWN]
TINY = pickle.dumps(([b"\xff\xd8", b"\xff\xd9"], [True]), protocol=4)
CARD = dict(name="three", source="rendered", method="head", licence="CC0-1.0", limits="twelve images")
SHORT = select(DRAWN, [0, 1, 4])  # the second person has one picture
MIXED = replace(FILES, read=lambda k: JPEGS[k] if k < 5 else encode_image(DRAWN[k][0][:20], ".png"))
TEXT = replace(FILES, read=lambda k: b"text")

CALLS = [
    (lambda: Faces([0], ["ann"], np.zeros((1, 3)), 8, None), "attributes must be (1, 4)"),
    (lambda: Faces([0, 2], ["ann", "bob"], np.zeros((2, 4)), 8, None), "every number from 0 to 1"),
    (lambda: at_least(DRAWN, 5), "none of the 3 identities has 5 images"),
    (lambda: first_images(SHORT, 2), "000011", "fewer than 2"),
    (lambda: join(DRAWN, parametric_faces(1, 1, 16)), "[16, 32] pixels"),
    (lambda: parametric_faces(0, 3), "0 x 3"),
    (lambda: encode_image(DRAWN[0][0], ".gif"), ".gif"),
    (lambda: list(opcodes(TINY[:-1])), "truncated"),
    (lambda: list(opcodes(TINY[:20])), "truncated"),
    (lambda: list(opcodes(TINY.replace(b"C\x02", b"C\xfa"))), "250 bytes announced", "truncated or damaged"),
    (lambda: list(opcodes(TINY.replace(b"]", b"}", 1))), "does not belong in a pair file"),
    (lambda: unpickle(b"aa."), "byte 0", "does not fit"),
    (lambda: unpickle(b"1."), "byte 0", "does not fit"),
    (lambda: unpickle(b"h\x05."), "byte 0", "does not fit"),
    (lambda: unpickle(b"K\x01)R."), "byte 3", "does not fit"),
    (lambda: Pairs("odd", np.zeros((3, 8, 8, 3), np.uint8), np.array([True, False])), "3", "2"),
    (lambda: plan_pairs("lfw"), "lfw"),
    (lambda: plan_pairs("p_lfw", n=30), "30"),
    (lambda: plan_pairs("p_lfw", n=20, pool=1), "1"),
    (lambda: numbered([0, -1]), "1", "-1"),
    (lambda: numbered([0, 0.5]), "1", "0.5"),
    (lambda: numbered([0, np.nan]), "1", "nan"),
    (lambda: numbered([0, np.inf]), "1", "inf"),
    (lambda: numbered([2], called=["ann", "bob"]), "label 2", "2 names"),
    (lambda: decoded(Encoded([0], ["ann"], lambda k: b"no image"), 8)[0], "image 0"),
    (lambda: unpack(b"short"), "24"),
    (lambda: unpack(pack(b"", [1] * 9)[:40]), "9 labels"),
    (lambda: plan_records([0, 2]), "0 to 2", "1 is missing"),
    (lambda: plan_records([]), "no images"),
    (lambda: plan_records([0, 1], "rows"), "no layout 'rows'", "identity, flat"),
    (lambda: plan_records([0, 1], shuffle=0), "grouped by person"),
    (lambda: plan_records(np.zeros(EXACT, int)), str(EXACT + 2), "flat"),
    (lambda: joined([]), "nothing to join"),
    (lambda: prepared(MIXED).read(5), "image 5", "32 x 20"),
    (lambda: prepared(TEXT), "image 0"),
    (lambda: kind_of(pytest.__file__), "__init__.py", ".rec"),
    (lambda: open_sources([dict(having={})], 16), "no source"),
    (lambda: provenance("elsewhere", "photographs"), "elsewhere", "give licence"),
]


@pytest.mark.parametrize("row", CALLS, ids=lambda row: ", ".join(row[1:]))
def test_refused(row):
    refused(*row)


def test_missing_files():
    for call in (
        open_rec,
        kind_of,
        open_lmdb,
        read_bin,
        read_idx,
        lambda p: open_faces(p, 32),
        lambda p: array_faces(p, 8),
    ):
        refused(lambda: call("no/such/set.rec"), "no/such/set.rec", kind=FileNotFoundError)
    for call in (folder_faces, open_faces, array_faces):
        refused(lambda: call("no/people", 8), "no/people", kind=FileNotFoundError)


def test_folders(tmp_path):
    root = tmp_path / "people"
    (root / "ann").mkdir(parents=True)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / "ann" / "1.png")
    (root / "ann" / "notes.txt").write_text("hello")
    refused(lambda: folder_faces(root, 8), "notes.txt")
    (root / "ann" / "notes.txt").rename(root / "ann" / "2.jpg")
    refused(lambda: folder_faces(root, 8)[1], "2.jpg")
    refused(lambda: folder_faces(root, 8, check=True), "2.jpg")
    (root / "bob").mkdir()
    refused(lambda: folder_faces(root, 8), "bob", "empty")


OFFSETS = np.cumsum([0, *map(len, JPEGS[:4])])
ARRAYS = dict(jpeg=np.frombuffer(b"".join(JPEGS[:4]), np.uint8), offsets=OFFSETS)


@pytest.mark.parametrize(
    "arrays, having, words",
    [
        (ARRAYS | dict(age=[30]), None, "faces.npz: age has shape (1,)"),
        (ARRAYS | dict(age=[30.0, 1.0, 1.0, 200.0]), None, "the age of image 3 is 200"),
        (ARRAYS | dict(offsets=[0]), None, "offsets must rise"),
        (dict(jpeg=ARRAYS["jpeg"]), None, "has no ['offsets']"),
        (ARRAYS | dict(ids=[0, 0, 1, 1]), None, "has no label, but ids"),
        (ARRAYS | dict(label=[0, 0, 1, 2], person=["ann"]), None, "labels 0..2 but 1 people"),
        (ARRAYS | dict(view=[0, 1, 0, 1]), dict(view=(2, 3)), "view from 2 to 3"),
        (ARRAYS | dict(label=[0, 0, 1, 1], short=[1]), dict(short=(1, 1)), "short has 1"),
        (ARRAYS, dict(colour=(0, 1)), "has no ['colour']"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_array_files(arrays, having, words, tmp_path):
    np.savez(tmp_path / "faces.npz", **arrays)
    refused(lambda: array_faces(tmp_path / "faces.npz", 32, having), "faces.npz", words)


def test_a_damaged_image_of_an_array_file(tmp_path):
    broken = [*JPEGS[:2], bytes(len(JPEGS[2])), JPEGS[3]]
    np.savez(tmp_path / "faces.npz", **ARRAYS | dict(jpeg=np.frombuffer(b"".join(broken), np.uint8)))
    refused(lambda: array_faces(tmp_path / "faces.npz", 32)[2], "image 2", "faces.npz")


def test_datasets(tmp_path):
    begin_dataset(tmp_path, dict(size=32, suffix=".png"))
    refused(lambda: begin_dataset(tmp_path, dict(size=64, suffix=".png")), "size", "32", "64")
    refused(lambda: write_folder(DRAWN, tmp_path / "a", dict(CARD, licence="")), "licence")
    y = np.ones((12, 8), np.float32) / 8**0.5
    y[5, 2] = np.nan
    refused(lambda: write_encoded(tmp_path / "e", DRAWN, y, DRAWN.attributes), "y of image 5")


def test_what_lies_beside_a_set(tmp_path):
    refused(lambda: write_names(tmp_path, ["ann", "b\nob"]), "b\\nob")
    write_about(tmp_path, Encoded([1, 0, 1], ["ann", "bob"], None, about=lambda k: dict(seed=k)), [1, 2, 0])
    for labels in ([0, 1], [1, 0, 1]):
        refused(lambda: known_about(tmp_path, labels), "manifest.jsonl", "other images")


HUGE = encode_image(np.zeros((8, 8, 3), np.uint8), ".jpg").replace(b"\0\x08\0\x08\x03", b"\x13\x88\x13\x88\x03")
TRUTH = [True, False, True]


@pytest.mark.parametrize(
    "value, words",
    [
        ((JPEGS[:5], TRUTH), ("5 pictures for 3 pairs",)),
        ((JPEGS[:6], [True, False, 2]), ("pair 2",)),
        ((JPEGS[:4] + [b"GIF89a", JPEGS[5]], TRUTH), ("picture 4", "JPEG")),
        ((JPEGS[:3] + [JPEGS[3][:90]] + JPEGS[4:6], TRUTH), ("picture 3",)),
        ((JPEGS[:5] + [HUGE], TRUTH), ("5000 x 5000",)),  # a JPEG that says so
        (JPEGS[:6], ("expected (pictures, issame)",)),
        (pickle.dumps((JPEGS[:6], TRUTH))[:3000], ("truncated",)),
        (lzma.compress(pickle.dumps((JPEGS[:6], TRUTH)))[:500], ("truncated",)),
    ],
    ids=lambda v: ", ".join(v) if isinstance(v, tuple) and isinstance(v[0], str) else "",
)
def test_bins(value, words, tmp_path):
    path = tmp_path / "bad.bin"
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))
    refused(lambda: decode_faces(read_bin(path)[0], 48, f"{path}: picture"), "bad.bin", *words)


def plain_pictures(n):
    "2n small pictures that all differ, and the answers of n pairs, genuine ones first"
    rng = np.random.default_rng(0)
    pixels = [np.full((16, 16, 3), rng.integers(256, size=3), np.uint8) for _ in range(2 * n)]
    return [encode_image(p, ".png") for p in pixels], np.arange(n) < n // 2


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda p, t: (p, t[:-1]), "86 pictures for 42"),
        (lambda p, t: (p[:20], t[:10]), "10"),
        (lambda p, t: (p[:4] + p[2:4] + p[6:], t), "pair 2 repeats pair 1"),
        (lambda p, t: (p[:5] + [b"GIF"] + p[6:], t), "5"),
    ],
)
def test_bins_that_are_not_written(change, words, tmp_path):
    refused(lambda: save_bin(*change(*plain_pictures(43)), tmp_path / "wrong.bin"), words)
    assert not [*tmp_path.iterdir()]


LISTS = [
    ("10\t2\n" + "ann\t1\t2\n" * 10, "10 pairs", ValueError),
    ("1\nann\t1\t2\nann\t1\t3", "line 3", ValueError),
    ("ten", "line 1", ValueError),
    ("1\nann\t1\t2\nann\t1\tzoe\t3", "zoe_0003.jpg", FileNotFoundError),
]


@pytest.mark.parametrize("text, words, kind", LISTS, ids=[row[1] for row in LISTS])
def test_lists_of_pairs(text, words, kind, tmp_path):
    (tmp_path / "ann").mkdir()
    for k in range(4):
        (tmp_path / "ann" / f"ann_{k + 1:04d}.jpg").write_bytes(JPEGS[k])
    (tmp_path / "wrong.txt").write_text(text)
    refused(lambda: list_to_bin(tmp_path / "wrong.txt", tmp_path, tmp_path / "c.bin", size=32), words, kind=kind)
    assert not (tmp_path / "c.bin").exists()


def test_tables_of_pairs(tmp_path):
    pictures, truth = plain_pictures(20)
    for k, p in enumerate(pictures):
        (tmp_path / f"{k}.png").write_bytes(p)
    rows = [f"{2 * k}.png,{2 * k + 1}.png,{int(t)}" for k, t in enumerate(truth)]
    for size, lines, words in (
        (112, ["first,second,issame", *rows], "16 x 16"),
        (16, ["first,second,issame", *rows, rows[3]], "pair 20 repeats pair 3"),
        (16, ["first,second,issame", "0.png,1.png,maybe"], "line 2"),
        (16, ["a,b", "1,2"], "first"),
    ):
        (tmp_path / "wrong.csv").write_text("\n".join(lines))
        refused(lambda: list_to_bin(tmp_path / "wrong.csv", tmp_path, tmp_path / "c.bin", size), words)
    assert not (tmp_path / "c.bin").exists()


def test_arrays_of_pairs(tmp_path):
    good = ARRAYS | dict(pairs=[[0, 1], [1, 2]], issame=[True, False], fold=[1, 0])
    for wrong in (
        good | dict(pairs=[[0, 1], [1, 4]]),
        good | dict(issame=[True]),
        {k: v for k, v in good.items() if k != "offsets"},
    ):
        np.savez(tmp_path / "wrong.npz", **wrong)
        refused(lambda: array_pairs(tmp_path / "wrong.npz", 32), "wrong.npz")


def test_several_sources_of_pairs(tmp_path):
    for sources, words in (
        ([], "[]: expected pair sets"),
        (["parametric", "parametric"], "expected pair sets of different names"),
    ):
        refused(lambda s=sources: open_pairs(s, 16, 20, 10), words)
    refused(lambda: open_pairs(["lfw.bin"], 16, root=tmp_path), str(tmp_path / "lfw.bin"), kind=FileNotFoundError)


GOOD = frame(b"abcd" + MAGIC + b"e")


@pytest.mark.parametrize(
    "data, start, words",
    [
        (GOOD[:-1], 0, ("ends at byte 23", "byte 0")),
        (GOOD, 4, ("no record at byte 4",)),
        (GOOD, 12, ("flag 3",)),
        (frame(b"a")[:4] + b"\xff\xff\xff\x1f", 0, (f"claims {LONGEST}",)),
    ],
)
def test_records(data, start, words, tmp_path):
    (tmp_path / "x.rec").write_bytes(data)
    with open(tmp_path / "x.rec", "rb", buffering=0) as f:
        refused(lambda: read_record(f, start), *words)


def test_torn_records(tmp_path):
    (tmp_path / "x.rec").write_bytes((frame(b"aaa") + GOOD)[:-5])
    refused(lambda: walk(tmp_path / "x.rec"), "x.rec")


INDEXES = [
    (b"0\t0\n1\t12\n0\t30", "key 0"),
    (b"0\t0\n1 12\n", "not an index"),
    (b"0\n0\t1\t2\n", "not an index"),
    (b"0\t-8\n", "not an index"),
    (b"PNG", "not an index"),
    (b"0\t99999999999999999999\n", "not an index"),
]


@pytest.mark.parametrize("text, words", INDEXES)
def test_indexes(text, words, tmp_path):
    (tmp_path / "x.idx").write_bytes(text)
    refused(lambda: read_idx(tmp_path / "x.idx"), "x.idx", words)


RECORDS = [
    ([pack(b"x", 0), pack(b"x", np.nan)], ("key 1", "nan")),
    ([pack(b"", [9, 9]), pack(b"x", 0), pack(b"x", 0)], ("1 to 8", "3 is missing")),
    ([pack(b"", [2.5, 9]), pack(b"x", 0)], ("header", "2.5")),
    ([pack(b"", [3e38, 3e38]), pack(b"x", 0)], ("header", "2 is missing")),
    ([struct.pack("<IfQQ", 9, 0, 0, 0)], ("key 0", "9 labels")),
]


@pytest.mark.parametrize("records, words", RECORDS, ids=lambda v: ", ".join(v) if isinstance(v, tuple) else "")
def test_sets_of_records(records, words, tmp_path):
    write_records(tmp_path / "x.rec", records.__getitem__, len(records))
    refused(lambda: open_rec(tmp_path / "x.rec"), "x.rec", *words)


def test_another_set_was_begun(tmp_path):
    write_rec(FILES, tmp_path / "rec")
    refused(lambda: write_rec(FILES, tmp_path / "rec", layout="flat"), "layout")
    write_images(FILES, tmp_path / "images", np.arange(12))
    refused(lambda: open_folder(tmp_path / "images"), "half-written")


def tar(path, **parts):
    with tarfile.open(path, "w") as file:
        for ending, content in parts.items():
            member = tarfile.TarInfo(f"a/7.{ending}")
            member.size = len(content)
            file.addfile(member, BytesIO(content))
    return [path]


def test_tars(tmp_path):
    path = tmp_path / "x.tar"
    refused(lambda: open_tars(tar(path, jpg=b"x")), "sample a/7", "label")
    refused(lambda: open_tars(tar(path, cls=b"0")), "sample a/7", "no image")
    refused(lambda: open_tars(tar(path)), "no samples")
    refused(lambda: open_tars(tar(path, jpg=b"x", cls=b"0", json=b"[1]")).about(0), "sample a/7", "object")
    path.write_bytes(tar(path, jpg=bytes(9999), cls=b"0")[0].read_bytes()[:5000])
    refused(lambda: open_tars([path]), "x.tar")


def test_parquet(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and no more")
    refused(lambda: open_parquet([path]), "x.parquet is not a parquet file")
    for columns, words in (
        (dict(image=[b"x"]), "no column label"),
        (dict(image=[b"x"], label=["ann"]), "expected whole numbers"),
        (dict(image=pa.array([], pa.binary()), label=pa.array([], pa.int64())), "no rows"),
    ):
        pq.write_table(pa.table(columns), path)
        refused(lambda: open_parquet([path]), "x.parquet", words)
    pq.write_table(pa.table(dict(image=[1], label=[0])), path)
    refused(lambda: open_parquet([path]).read(0), "(row 0) has no image bytes")


def test_convert(tmp_path):
    write_rec(FILES, tmp_path / "rec")
    rec = tmp_path / "rec"
    refused(lambda: convert(rec, rec, "rec"), "over itself")
    refused(lambda: convert(rec, tmp_path / "x", "zip"), "zip", "webdataset")
    refused(lambda: convert(rec, tmp_path / "x", "rec", shuffle=0), "shuffle")
    refused(lambda: convert(rec, tmp_path / "x", "rec", size=0), "size 0")
    refused(lambda: convert(rec, tmp_path / "x", "rec", size=-3), "size -3")
    for name in ("x.rec", "x.tar", "x.lmdb", "x.parquet", "x.npz", "x.BIN"):
        refused(lambda: convert(rec, tmp_path / "y" / name, "folder"), name, "the name of a file")  # noqa: B023
    assert not (tmp_path / "y").exists()
    (tmp_path / "x.rec").mkdir()
    assert convert(rec, tmp_path / "x.rec", "rec")["name"] == "rec", "the name of the source"
    np.savez(tmp_path / "a.npz", **ARRAYS)
    (tmp_path / "a.bin").touch()
    refused(lambda: open_encoded(tmp_path / "a.bin"), "a.bin holds pairs", ".npz")
    (tmp_path / "twin").mkdir()
    np.savez(tmp_path / "twin" / "a.npz", **ARRAYS)
    both = [dict(source=str(tmp_path / "a.npz")), dict(source=str(tmp_path / "twin" / "a.npz"))]
    refused(lambda: open_sources(both, 16), "same name", "twin")


def cut(path, part=0.6):
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


CUT = [  # format, which file of the set, words of the error
    ("rec", "train.rec", "train.rec ends at byte", "the records are truncated"),
    ("flat", "train.idx", "train.idx is truncated", "train.rec has records"),
    ("webdataset", "train-000000.tar", "train-000000.tar is not a whole tar"),
    ("parquet", "train-00000-of-00001.parquet", "train-00000-of-00001.parquet is not a parquet file"),
    ("lmdb", "train.lmdb", "train.lmdb: the file is truncated"),
]


@pytest.mark.parametrize("row", CUT, ids=lambda row: row[1])
def test_truncated_sets(row, tmp_path):
    format, name, *words = row
    pytest.importorskip(dict(parquet="pyarrow").get(format, "lmdb"))
    convert(FILES, tmp_path, format)
    if format == "flat":  # the index, at the end of a line
        (tmp_path / name).write_text("".join((tmp_path / name).read_text().splitlines(True)[:9]))
    else:
        cut(tmp_path / name)
    refused(lambda: open_encoded(tmp_path), *words)
    problems = inspect_dataset(tmp_path)["problems"]
    assert all(w in problems[0] for w in words) and not any("grouped" in p or "manifest" in p for p in problems)


def test_a_missing_shard_and_a_short_list(tmp_path):
    convert(FILES, tmp_path / "tars", "webdataset", shard=4)
    (tmp_path / "tars/train-000000.tar").unlink()
    assert "card.json says 12 images, there are 8" in inspect_dataset(tmp_path / "tars")["problems"]
    convert(FILES, tmp_path / "rec", "rec")
    cut(tmp_path / "rec/train.lst")
    assert "train.lst says 7 images, there are 12" in inspect_dataset(tmp_path / "rec")["problems"]


def test_array_files_of_no_arrays(tmp_path):
    path = tmp_path / "faces.npz"
    for value, words in (
        (dict(jpeg=np.array([{}], dtype=object), offsets=[0, 1]), "Python objects"),
        (dict(jpeg=np.zeros(100, np.uint8), offsets=[0, 100]), "cut off or damaged"),
    ):
        np.savez(path, **value)
        if words == "cut off or damaged":
            cut(path)
        for call in (lambda: array_faces(path, 8), lambda: array_pairs(path, 8)):
            with pytest.raises(ValueError, match=f"cannot read .*faces.npz: .*{words}") as e:
                call()
            assert "pickle" not in str(e.value) and "unsafe" not in str(e.value)
    path.write_text("hello")
    refused(lambda: array_faces(path, 8), "faces.npz", "not a file of NumPy arrays")
    np.savez(path, **ARRAYS)
    refused(lambda: array_faces(path, 8, having=dict(jpeg=3)), "having jpeg", "lowest and the highest")
    write_encoded(tmp_path, DRAWN, np.eye(12, 8), DRAWN.attributes)
    cut(tmp_path / "y.npy")
    refused(lambda: read_encoded(tmp_path), "y.npy", "cut off or damaged")
