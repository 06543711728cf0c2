"""What mxnet's own writer makes of fuzzed payloads and of two small datasets, as sha256; needs mxnet 1.9.1 (numpy <
1.24) and nothing of facesyn.

python tests/data/recordio_by_mxnet.py > tests/data/recordio_mxnet.json
"""

import hashlib
import json
import os
import random
import struct
import tempfile

MAGIC = struct.pack("<I", 0xCED7230A)


def fuzzed(seed):
    "Bytes of some length with magic words at any place, aligned or not, at the ends, doubled, or none at all"
    rng = random.Random(seed)
    data = bytearray(rng.randbytes(rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 24, 25, 64, 1000, 4099])))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
        at = rng.choice([0, len(data), rng.randrange(len(data) + 1), rng.randrange(len(data) + 1) // 4 * 4])
        data[at : at + rng.choice([0, 4])] = MAGIC * rng.choice([1, 1, 2, 3])
    return bytes(data)


def dataset(images=60, people=7):
    "Images as bytes and their labels, grouped by person"
    labels = sorted([*range(people), *(random.Random(1).randrange(people) for _ in range(images - people))])
    return [fuzzed(1000 + k) for k in range(images)], labels


def written(write):
    "sha256 of the .rec and the .idx that `write(recorder)` makes"
    import mxnet as mx

    with tempfile.TemporaryDirectory() as d:
        files = [os.path.join(d, name) for name in ("x.rec", "x.idx")]
        recorder = mx.recordio.MXIndexedRecordIO(files[1], files[0], "w")
        write(recorder, mx.recordio)
        recorder.close()
        return [hashlib.sha256(open(f, "rb").read()).hexdigest() for f in files]


def payloads(recorder, recordio):
    for seed in range(310):
        recorder.write_idx(seed, fuzzed(seed))


def identity(recorder, recordio):
    "A header, the images, and for each person an empty record with the range of the keys"

    def put(key, label, image=b""):
        recorder.write_idx(key, recordio.pack(recordio.IRHeader(0, label, key, 0), image))

    images, labels = dataset()
    n, people = len(images), len(set(labels))
    put(0, [n + 1, n + 1 + people])
    for k in range(n):
        put(k + 1, float(labels[k]), images[k])
    for i in range(people):
        put(n + 1 + i, [labels.index(i) + 1, labels.index(i) + 1 + labels.count(i)])


def flat(recorder, recordio):
    for k, (image, label) in enumerate(zip(*dataset())):
        recorder.write_idx(k, recordio.pack(recordio.IRHeader(0, float(label), k, 0), image))


if __name__ == "__main__":
    import mxnet

    print(
        json.dumps(
            dict(
                writer=f"mxnet {mxnet.__version__}",
                **{case.__name__: written(case) for case in (payloads, identity, flat)},
            ),
            indent=1,
        )
    )
