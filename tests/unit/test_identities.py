"""Sets without identities, or whose identities stand in a table: FFHQ as it comes, tars and tables without labels."""

import io
import json
import tarfile

import numpy as np
import pytest

from facesyn.core.checks import refused
from facesyn.core.images import encode_image, write_image
from facesyn.data.opening import open_encoded, open_faces

GREY = [np.full((16, 16, 3), 10 * k, np.uint8) for k in range(6)]


def written(root, files):
    for picture, file in zip(GREY, files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        write_image(picture, root / file)
    return root


@pytest.mark.parametrize(
    "files",
    [
        [f"{k:05d}.png" for k in range(6)],
        ["00000/00000.png", "00000/00999.png", "01000/01000.png", "01000/01999.png", "02000/02000.png"],
        [f"thumbnails128x128/0{k}000/0{k}000.png" for k in range(5)],
        ["part/a.png", "part/deeper/still/b.jpg", "c.png"],
    ],
    ids=["flat", "numbered", "nested", "mixed"],
)
def test_pictures_of_nobody(files, tmp_path):
    root = written(tmp_path / "ffhq", files)
    (root / "LICENSE.txt").write_text("CC BY-NC-SA")
    with pytest.warns(UserWarning, match="1 files are no pictures .*LICENSE.txt"):
        faces = open_faces(root, 8, identities="none")
    assert len(faces) == len(faces.names) == len(files) and faces.names == sorted(files)
    order = np.argsort(files)
    assert np.array_equal(faces.read(np.arange(len(files)))[:, 0, 0, 0] // 5 * 5, 10 * order)
    with pytest.raises(ValueError):
        open_faces(root, 8)


def test_folders_of_thousands_are_no_people(tmp_path):
    root = written(tmp_path, ["00000/00000.png", "00000/00999.png", "01000/01000.png", "01000/01999.png"])
    for opened in (open_encoded, lambda path: open_faces(path, 8)):
        refused(lambda: opened(root), "00000, 01000", "identities='none'")  # noqa: B023


@pytest.mark.parametrize("table", ["manifest.jsonl", "metadata.jsonl", "metadata.csv"])
def test_a_column_names_people(table, tmp_path):
    root, files, who = (
        written(tmp_path, [f"{k}.png" for k in range(4)]),
        [f"{k}.png" for k in range(4)],
        "Bo Al Bo Cy".split(),
    )
    key = "file" if table == "manifest.jsonl" else "file_name"
    rows = [{key: file, "person": person} for file, person in zip(files, who)]
    lines = (
        [f"{key},person", *(f"{r[key]},{r['person']}" for r in rows)]
        if table.endswith("csv")
        else map(json.dumps, rows)
    )
    (root / table).write_text("\n".join(lines))
    faces = open_faces(root, 8, identities="person")
    assert faces.names == ["Al", "Bo", "Cy"] and faces.labels.tolist() == [1, 0, 1, 2]
    assert open_faces(root, 8, 2, identities="person").names == ["Bo"]
    refused(lambda: open_faces(root, 8, identities="persn"), "do you mean person")
    (root / table).write_text(
        "\n".join(lines if isinstance(lines, list) else map(json.dumps, rows[:3])).replace("Cy", "")
    )
    refused(lambda: open_faces(root, 8, identities="person"), "3.png names nobody")


def tar_of(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_tars_without_labels(tmp_path):
    samples = []
    for k, picture in enumerate(GREY):
        samples += [
            (f"{k}.png", encode_image(picture, ".png")),
            (f"{k}.json", json.dumps(dict(who="ab"[k % 2])).encode()),
        ]
    tar_of(tmp_path / "ffhq.tar", samples)
    refused(lambda: open_encoded(tmp_path / "ffhq.tar"), "no label")
    assert len(open_faces(tmp_path / "ffhq.tar", 8, identities="none").names) == 6
    assert open_faces(tmp_path / "ffhq.tar", 8, identities="who").labels.tolist() == [0, 1] * 3


def test_a_table_without_labels(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [dict(bytes=encode_image(picture, ".png"), path=None) for picture in GREY]
    pq.write_table(pa.table(dict(image=images, celebrity=[7, 7, 9, 9, 7, 9])), tmp_path / "x.parquet")
    refused(lambda: open_encoded(tmp_path), "no column label")
    assert len(open_faces(tmp_path, 8, identities="none").names) == 6
    assert open_faces(tmp_path, 8, identities="celebrity").names == ["7", "9"]


def test_an_array_file_of_nobody(tmp_path):
    jpegs = [np.frombuffer(encode_image(picture, ".jpg"), np.uint8) for picture in GREY]
    offsets = np.cumsum([0, *map(len, jpegs)])
    np.savez(tmp_path / "x.npz", jpeg=np.concatenate(jpegs), offsets=offsets, label=[0, 0, 1, 1, 2, 2])
    assert len(open_faces(tmp_path / "x.npz", 8).names) == 3
    assert len(open_faces(tmp_path / "x.npz", 8, identities="none").names) == 6
    refused(lambda: open_faces(tmp_path / "x.npz", 8, identities="who"), "identities='who'", "x.npz")


def test_nothing_to_open(tmp_path):
    refused(lambda: open_faces(tmp_path, 8, identities="none"), "no pictures", str(tmp_path))
    refused(lambda: open_faces(tmp_path / "no", 8, identities="none"), "no", kind=FileNotFoundError)
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    refused(lambda: open_faces(tmp_path, 8, identities="none"), "gone.png, which does not exist")
