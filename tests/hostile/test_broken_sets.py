"""Sets of which a part cannot be read: refused with a count, and nothing is left behind; or, if that is asked for, the
rest is written, and what was left out is listed."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facesyn.cli import app
from facesyn.core.checks import refused
from facesyn.core.images import encode_image
from facesyn.data.conversion import FORMATS, convert
from facesyn.data.faces import parametric_faces
from facesyn.data.image_sets import Encoded, encoded_faces, in_ranges
from facesyn.data.inspection import inspect_dataset
from facesyn.data.opening import open_encoded
from facesyn.data.recordio import read_idx

FACES = parametric_faces(3, 4, size=32)
WHOLE = encoded_faces(FACES)
HALF = WHOLE.read(5)[:-200]  # of such a file the beginning is read, and copied, without complaint


def picture_that_is_none(folder, format):
    "Image 5, of the second person, is cut off in the middle, though its file is whole"
    cut = Encoded(WHOLE.labels, WHOLE.names, lambda k: HALF if k == 5 else WHOLE.read(k), about=WHOLE.about)
    convert(cut, folder, format)


def record_without_a_beginning(folder, format):
    "The bytes that begin a record are gone; its neighbours are whole"
    convert(WHOLE, folder, format)
    keys, offsets = read_idx(folder / "train.idx")
    data = bytearray((folder / "train.rec").read_bytes())
    start = offsets[keys == 5 + (format == "rec")][0]
    data[start : start + 8] = bytes(8)
    (folder / "train.rec").write_bytes(data)


def record_in_capital_letters(folder, format):
    "As before, in files whose names end in capital letters"
    record_without_a_beginning(folder, format)
    for ending in (".rec", ".idx"):
        (folder / f"train{ending}").rename(folder / f"train{ending.upper()}")


def file_that_ends_early(folder, format):
    convert(WHOLE, folder, format)
    (file,) = [p for p in folder.iterdir() if p.suffix in (".rec", ".tar")]
    data = file.read_bytes()
    file.write_bytes(data[: 2 * len(data) // 3])


def sample_without_a_picture(folder, format):
    convert(WHOLE, folder, format)
    (file,) = folder.glob("*.tar")
    with tarfile.open(file) as old:
        members = [(m.name, old.extractfile(m).read()) for m in old if m.name != "000000005.png"]
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def row_that_is_none(folder, format):
    lmdb, msgpack = pytest.importorskip("lmdb"), pytest.importorskip("msgpack")
    convert(WHOLE, folder, format)
    (file,) = folder.glob("*.lmdb")
    with lmdb.open(str(file), subdir=file.is_dir()) as base, base.begin(write=True) as txn:
        key = msgpack.unpackb(txn.get(b"__keys__"), raw=True)[5]
        txn.put(key, msgpack.packb("nothing"))


CASES = [
    *((picture_that_is_none, format, 1) for format in FORMATS),
    (record_without_a_beginning, "rec", 1),
    (record_without_a_beginning, "flat", 1),
    (record_in_capital_letters, "rec", 1),
    (file_that_ends_early, "rec", None),
    (file_that_ends_early, "flat", None),
    (file_that_ends_early, "webdataset", None),
    (sample_without_a_picture, "webdataset", 1),
    (row_that_is_none, "lmdb", 1),
]


@pytest.mark.parametrize("damage, format, lost", CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_the_rest_of_a_set(damage, format, lost, tmp_path):
    damage(tmp_path / "set", format)
    out = tmp_path / "out"
    target = "folder" if format != "folder" else "rec"
    refused(lambda: convert(tmp_path / "set", out, target, 16), "cannot be read", "--skip-broken", str(lost or ""))
    assert not out.exists() or not any(out.iterdir()), "half a set was left behind"
    skipped = []
    card = convert(open_encoded(tmp_path / "set", skipped), out, target, 16)
    assert len(skipped) == lost if lost else skipped
    again = open_encoded(out)
    assert len(again) == card["images"] == 12 - len(skipped) if lost else 0 < len(again) < 12
    seen = {again.about(k)["attributes"][3] for k in range(len(again))}
    assert seen == {WHOLE.about(k)["attributes"][3] for k in range(12) if not (lost and k == 5)} or not lost


@pytest.mark.parametrize("index", [True, False], ids=["with an index", "without"])
@pytest.mark.parametrize("format", ["rec", "flat"])
def test_missing_pictures_are_counted_alike(format, index, tmp_path):
    "In the report, in what stops a conversion and in what one leaves out; records of people are no pictures"
    convert(WHOLE, tmp_path / "set", format)
    keys, offsets = read_idx(tmp_path / "set/train.idx")
    first = format == "rec"
    cut = offsets[keys == 7 + first][0] + 10  # in the eighth picture
    data = (tmp_path / "set/train.rec").read_bytes()
    (tmp_path / "set/train.rec").write_bytes(data[:cut])
    if not index:
        (tmp_path / "set/train.idx").unlink()
    report = inspect_dataset(tmp_path / "set")
    assert report["images"] == 7
    if index or format == "rec":
        refused(lambda: convert(tmp_path / "set", tmp_path / "out", "folder"), "5 of 12 pictures")
        said = "5 of them are missing" if format == "rec" else "(keys 7 to 11): missing"
        assert any(said in p for p in report["problems"]), report["problems"]
    assert len(open_encoded(tmp_path / "set", skipped := [])) == 7
    assert in_ranges(skipped) == [skipped[0].replace(f"key {7 + first}", f"keys {7 + first} to {11 + first}")]
    assert len(skipped) == 5 if index or format == "rec" else "no .idx" in skipped[0]


def test_less_than_half_a_set_is_refused(tmp_path):
    convert(WHOLE, tmp_path / "rec", "rec")
    data = (tmp_path / "rec/train.rec").read_bytes()
    (tmp_path / "rec/train.rec").write_bytes(data[: len(data) // 3])
    refused(lambda: convert(tmp_path / "rec", tmp_path / "out"), "of 12 pictures of", "more than half")
    refused(lambda: open_encoded(tmp_path / "rec", []), "of 12 pictures of", "more than half")
    (tmp_path / "rec/train.idx").unlink()
    refused(lambda: open_encoded(tmp_path / "rec", []), "of 12 pictures of", "more than half")
    cut = Encoded(WHOLE.labels, WHOLE.names, lambda k: HALF if k > 4 else WHOLE.read(k))
    convert(cut, tmp_path / "folder", "folder")
    refused(lambda: open_encoded(tmp_path / "folder", []), "7 of 12 pictures", "folder", "more than half")


@pytest.mark.parametrize("format", ["rec", "flat"])
def test_an_index_of_another_file(format, tmp_path):
    "All pictures are there: it says what to do, whether the broken ones are to be left out or not"
    other = encoded_faces(parametric_faces(3, 4, size=32, first=50))
    convert(WHOLE, tmp_path / "set", format)
    convert(other, tmp_path / "other", format)
    (tmp_path / "other/train.idx").rename(tmp_path / "set/train.idx")
    for skipped in (None, []):
        refused(lambda: open_encoded(tmp_path / "set", skipped), "train.idx belongs to another file", "Delete it")  # noqa: B023
    report = inspect_dataset(tmp_path / "set")
    assert report["images"] == 12 and "belongs to another file" in report["problems"][0]
    (tmp_path / "set/train.idx").unlink()
    assert len(open_encoded(tmp_path / "set")) == 12


def test_another_set_in_a_used_folder(tmp_path):
    for format in FORMATS:
        convert(WHOLE, tmp_path / format, format)
        other = encoded_faces(parametric_faces(3, 4, size=32, first=50))
        refused(lambda: convert(other, tmp_path / format, format), "holds another set", "(other pictures)")  # noqa: B023
        refused(lambda: convert(WHOLE, tmp_path / format, format, 16), "width: 32 -> 16")  # noqa: B023


def test_a_person_without_pictures_is_left_out(tmp_path):
    for k in range(3):
        (tmp_path / f"set/{k}").mkdir(parents=True)
        (tmp_path / f"set/{k}/0.png").write_bytes(WHOLE.read(4 * k) if k != 1 else b"no picture")
    skipped = []
    rest = open_encoded(tmp_path / "set", skipped)
    assert rest.names == ["0", "2"] and rest.labels.tolist() == [0, 1] and "1/0.png" in skipped[0]


def test_what_was_there_before_stays(tmp_path):
    picture_that_is_none(tmp_path / "set", "folder")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    refused(lambda: convert(tmp_path / "set", tmp_path / "out", "rec", 16), "1 of 12 pictures", "out is not finished")
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_other_errors_are_not_counted(tmp_path):
    "Whole pictures of two sizes: the error is theirs"
    odd = Encoded([0, 0], ["a"], lambda k: encode_image(np.zeros((8 + k, 8, 3), np.uint8), ".png"))
    with pytest.raises(ValueError, match="ask for one size"):
        convert(odd, tmp_path / "out", "folder")


def test_on_the_command_line(tmp_path):
    def facesyn(*words):
        return CliRunner().invoke(app, [str(w) for w in words])

    picture_that_is_none(tmp_path / "set", "rec")
    stopped = facesyn("convert", tmp_path / "set", tmp_path / "out", "--size", 112)
    assert stopped.exit_code == 1 and "1 of 12 pictures" in stopped.output and "--skip-broken" in stopped.output
    ended = facesyn("convert", tmp_path / "set", tmp_path / "out", "--size", 112, "--skip-broken")
    assert ended.exit_code == 0 and "11 pictures of 3 people" in ended.output, ended.output
    assert "skipped: cannot read" in ended.output and "key 6" in ended.output and "1 in all" in ended.output
    assert Path(tmp_path / "out/train.rec").is_file()
