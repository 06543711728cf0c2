"""A .bin is read whatever wrote it, and nothing in it is run, whatever is in it."""

import io
import lzma
import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facesyn.data.bins import bin_to_npz, read_bin, save_bin
from facesyn.data.inspection import inspect_dataset
from facesyn.data.pairs import Pairs, array_pairs, load_bin, open_pairs, write_bin
from facesyn.measure.verification import verify
from facesyn.nets.encoders import embed, load_encoder
from facesyn.rendered.faces import render_faces

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRUTH = [True, False, True, False]


def jpeg(face):
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def jpegs():
    return [jpeg(face) for face in render_faces([0, 0, 1, 2, 3, 3, 4, 5], [0, 1, 0, 0, 0, 1, 0, 0], 32)[0].numpy()]


def python2(x, protocol, memo=None):
    """The opcodes that Python 2's pickle module writes for x, without the memo (which is optional but for arrays'
    types, kept here to be read back)"""
    if memo is None:
        memo = {}
        return (b"\x80\x02" if protocol == 2 else b"") + python2(x, protocol, memo) + b"."

    def sub(y):
        return python2(y, protocol, memo)

    if x is None:
        return b"N"
    if isinstance(x, bool):
        return (b"\x88" if x else b"\x89") if protocol == 2 else b"I%02d\n" % x
    if isinstance(x, int):
        return (
            b"I%d\n" % x
            if protocol == 0
            else (
                b"K" + bytes([x])
                if 0 <= x < 256
                else b"M" + x.to_bytes(2, "little")
                if 0 <= x < 65536
                else b"J" + x.to_bytes(4, "little", signed=True)
            )
        )
    if isinstance(x, bytes):
        if protocol == 0:
            return (
                b"S'"
                + b"".join(bytes([c]) if 32 <= c < 127 and c not in b"\\'" else b"\\x%02x" % c for c in x)
                + b"'\n"
            )
        return b"U" + bytes([len(x)]) + x if len(x) < 256 else b"T" + len(x).to_bytes(4, "little") + x
    if isinstance(x, list):
        return (b"(l" if protocol == 0 else b"]") + (
            b"".join(sub(y) + b"a" for y in x) if protocol == 0 else b"(" + b"".join(map(sub, x)) + b"e"
        )
    if isinstance(x, tuple):
        return (
            b"".join(map(sub, x)) + bytes([0x84 + len(x)])
            if protocol == 2 and 0 < len(x) < 4
            else b"(" + b"".join(map(sub, x)) + b"t"
        )
    if isinstance(x, np.dtype):
        if x.str in memo:
            return b"g%d\n" % memo[x.str] if protocol == 0 else b"h" + bytes([memo[x.str]])
        memo[x.str] = len(memo)
        made = (
            b"cnumpy\ndtype\n"
            + sub((x.str[1:].encode(), 0, 1))
            + b"R"
            + (b"p%d\n" % memo[x.str] if protocol == 0 else b"q" + bytes([memo[x.str]]))
        )
        return made + sub((3, x.str[:1].encode(), None, None, None, -1, -1, 0)) + b"b"
    if isinstance(x, np.generic):
        return b"cnumpy.core.multiarray\nscalar\n" + sub((x.dtype, x.tobytes())) + b"R"
    assert isinstance(x, np.ndarray)
    promise = b"cnumpy.core.multiarray\n_reconstruct\n" + b"(" + b"cnumpy\nndarray\n" + sub((0,)) + sub(b"b") + b"tR"
    return promise + sub((1, x.shape, x.dtype, False, x.tobytes())) + b"b"


def variants(jpegs):
    encoded, pixels = [np.frombuffer(j, np.uint8) for j in jpegs], [np.array(Image.open(io.BytesIO(j))) for j in jpegs]
    return dict(
        bytes=(jpegs, TRUTH),
        arrays=(encoded, TRUTH),
        copies=([e.copy() for e in encoded], TRUTH),
        column=([e[:, None] for e in encoded], TRUTH),
        decoded=(pixels, TRUTH),
        fortran=([np.asfortranarray(p) for p in pixels], TRUTH),
        strided=([np.repeat(p, 2, 1)[:, ::2] for p in pixels], TRUTH),
        turned=([np.ascontiguousarray(p.transpose(2, 0, 1)).transpose(1, 2, 0) for p in pixels], TRUTH),
        bools=(jpegs, [np.bool_(t) for t in TRUTH]),
        row=(encoded, np.array(TRUTH)),
        ints=(jpegs, [int(t) for t in TRUTH]),
        numbers=(jpegs, np.array(TRUTH, np.int64)),
        tuples=(tuple(jpegs), tuple(TRUTH)),
    )


@pytest.mark.parametrize("pack", [bytes, lzma.compress], ids=["plain", "xz"])
def test_every_variant_reads_equal(tmp_path, jpegs, pack):
    expected = np.stack([np.array(Image.open(io.BytesIO(j))) for j in jpegs])
    files = {
        f"py3_{name}_{protocol}": pickle.dumps(value, protocol)
        for name, value in variants(jpegs).items()
        for protocol in range(6)
    }
    files |= {
        f"py3_numpy1_{name}_{protocol}": numpy1(value, protocol)
        for name, value in variants(jpegs).items()
        for protocol in range(6)
    }
    files |= {
        f"py2_{name}_{protocol}": python2(value, protocol)
        for name, value in variants(jpegs).items()
        for protocol in range(3)
    }
    assert any(b"numpy.core" in f for f in files.values()) and any(b"numpy._core" in f for f in files.values())
    for name, content in files.items():
        path = tmp_path / f"{name}.bin"
        path.write_bytes(pack(content))
        pairs = load_bin(path, 32)
        assert (
            (pairs.images == expected).all()
            and pairs.issame.tolist() == TRUTH
            and pairs.issame.dtype == bool
            and pairs.name == name
        ), name


class NumPy1(pickle._Pickler):
    "Python's own pickler, but NumPy's names are those of version 1"

    def save_global(self, obj, name=None):
        module = pickle.whichmodule(obj, name or obj.__name__).replace("numpy._core", "numpy.core")
        name = name or obj.__name__
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{'__builtin__' if module == 'builtins' else module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | {type(len): save_global, type(jpeg): save_global, type: save_global}


def numpy1(value, protocol):
    buffer = io.BytesIO()
    NumPy1(buffer, protocol).dump(value)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", range(6))
def test_payload_is_refused_and_not_run(tmp_path, jpegs, protocol):
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    class Evaluated:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w')",)

    for k, bad in enumerate((Payload(), Evaluated())):
        for j, value in enumerate(
            (
                bad,
                (bad, TRUTH),
                (jpegs, bad),
                ([bad, *jpegs[1:]], TRUTH),
                (jpegs[:-1] + [bad], TRUTH),
                (jpegs, TRUTH[:-1] + [bad]),
                ((jpegs, [[[bad]]]), TRUTH),
                (jpegs, TRUTH, bad),
            )
        ):
            path = tmp_path / f"{k}_{j}.bin"
            path.write_bytes(pickle.dumps(value, protocol))
            with pytest.raises(ValueError, match="asks for (posix|nt|builtins|__builtin__)[.](system|eval)") as error:
                load_bin(path, 32)
            assert path.name in str(error.value)
            with pytest.raises(ValueError):
                open_pairs(path, 32)
            with pytest.raises(ValueError):
                bin_to_npz(path, tmp_path / "x.npz")
            assert "not data, and nothing of it was run" in inspect_dataset(path)["problems"][0]
            assert not marker.exists() and not (tmp_path / "x.npz").exists()
    pickle.loads(pickle.dumps(Payload(), protocol))
    assert marker.exists(), "the payload would not have worked"


@pytest.mark.parametrize(
    "content",
    [
        b"(S'touch x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch x'\no.",
        b"cos\nsystem\n(S'touch x'\ntR.",
        b"Pid\n.",
        b"U\x01xQ.",
        b"\x82\x01.",
        b"c__builtin__\nobject\n)\x81.",
        b"}.",
        b"\x8f.",
        b"(d.",
        b"\x97.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI00\n(lp1\ntb.",
    ],
)
def test_opcodes_that_could_run_something_are_refused(tmp_path, content):
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(ValueError, match="x.bin: byte"):
        read_bin(tmp_path / "x.bin")


MUTATIONS = '''
import io, lzma, os, pickle, resource, sys, time
import numpy as np
from facesyn.data.pairs import load_bin
seed_files, folder = sys.argv[1:-1], sys.argv[-1]
rng = np.random.default_rng(0)
seeds = [open(f, "rb").read() for f in seed_files]
def mutant(k):
    data = bytearray(seeds[k%len(seeds)]); kind = k//len(seeds)%6
    at = int(rng.integers(len(data)))
    if kind == 0: return bytes(data[:at])                                                        # truncated
    if kind == 1:
        for at in rng.integers(len(data), size=int(rng.integers(1, 20))): data[at] ^= 1 << int(rng.integers(8))
        return bytes(data)                                                                       # bits flipped
    if kind == 2:                                                                    # absurd lengths near the head
        data[at%200:at%200+8] = bytes([0xff]*int(rng.integers(1, 9)))
        return bytes(data)
    if kind == 3:
        other = int(rng.integers(len(data))); return bytes(data[:at]+data[other:])               # cut and joined
    if kind == 4:
        data[at:at] = rng.integers(256, size=int(rng.integers(1, 50)), dtype=np.uint8).tobytes()
        return bytes(data)
    if k%2:
        return lzma.compress(bytes(data[:at]))[:int(rng.integers(20, 400))]
    return lzma.compress(bytes(data))[:-int(rng.integers(1, 60))]
def compressed(byte, megabytes):
    xz = lzma.LZMACompressor(preset=0)
    return b"".join([xz.compress(byte*2**20) for _ in range(megabytes)]+[xz.flush()])
picture = pickle.loads(seeds[0])[0][0]
B = lambda b: b"B"+len(b).to_bytes(4, "little")+b
text = b"X"+(200_000).to_bytes(4, "little")+b"a"*200_000
bombs = [b"]"*3_000_000+b".", b"("*200_000+b".", b"(l"*100_000+b"0.", b"]"+b"]a"*100_000+b".",
         b"]"*100_000+b"a"*99_999+b".", b")"+b"\\x85"*200_000+b".", b"]q\\x00"+b"(h\\x00h\\x00lq\\x00"*20_000+b".",
         b"K\\x01"+b"2"*200_000+b"\\x86.", b"]r\\xff\\xff\\xff\\xff.", b"]r\\xff\\xff\\xff\\x7f.",
         b"\\x80\\x04\\x95"+b"\\xff"*8+b"]." , b"\\x80\\x04\\x8e"+b"\\xff"*7+b"\\x7f.", b"\\x8b\\xff\\xff\\xff\\x7f1.",
         b"B\\xff\\xff\\xff\\x7f.", b"T\\xff\\xff\\xff\\xff.",
         b"I"+b"9"*5_000_000+b"\\n.", b"L"+b"9"*5_000_000+b"L\\n.", b"\\x8a\\xff"+b"\\x7f"*255+b".",
         b"c_codecs\\nencode\\nq\\x00"+text+b"q\\x01X\\x06\\x00\\x00\\x00latin1q\\x02"+b"h\\x00h\\x01h\\x02\\x86R"*100_000+b".",
         b"]("+B(picture)+b"q\\x00"+b"h\\x00"*199_999+b"e]("+b"\\x88"*100_000+b"e\\x86.",  # one, 200,000 times: 6 GB
         b"cnumpy.core.numeric\\n_frombuffer\\n"+B(b"x"*9)+b"cnumpy\\ndtype\\nX\\x02\\x00\\x00\\x00u1\\x89\\x88\\x87R(J\\xff\\xff\\xff\\x7fJ\\xff\\xff\\xff\\x7fK\\x03tX\\x01\\x00\\x00\\x00CtR.",
         compressed(b"\\0", 520), compressed(b"]", 40)]
for at in range(3): bombs.append(lzma.compress(bytes(10**6))[:-at-1])
cases = bombs+[mutant(k) for k in range(200-len(bombs)+6)]
megabytes = lambda field: int(next(l for l in open("/proc/self/status") if l.startswith(field)).split()[1])/1024
size = megabytes("VmSize:")
resource.setrlimit(resource.RLIMIT_AS, (int((size+1024)*2**20),)*2)
read = refused = 0; slowest = 0
for k, content in enumerate(cases):
    path = os.path.join(folder, "mutant.bin")
    with open(path, "wb") as f: f.write(content)
    start = time.process_time()
    try:
        pairs = load_bin(path, 112 if k < len(bombs) else 32)
        assert pairs.images.shape == (2*len(pairs), *pairs.images.shape[1:3], 3)
        assert pairs.images.dtype == np.uint8 and len(pairs)
        read += 1
    except ValueError as e: assert "mutant.bin" in str(e) and len(str(e)) < 500, str(e)[:600]; refused += 1
    slowest = max(slowest, time.process_time()-start)
print(len(cases), read, refused, round(slowest, 2), round(megabytes("VmHWM:")))
'''


def test_200_mutated_files_are_refused_or_read(tmp_path, jpegs):
    """In a process that may take 1 GiB more than it has after the imports: no crash, no hang, no memory error, only
    ValueError or a complete set"""
    files = []
    for k, content in enumerate(
        (
            pickle.dumps((jpegs, TRUTH), 4),
            pickle.dumps((variants(jpegs)["arrays"]), 5),
            pickle.dumps(variants(jpegs)["bools"], 0),
            python2(variants(jpegs)["arrays"], 2),
            python2((jpegs, TRUTH), 0),
            numpy1(variants(jpegs)["decoded"], 3),
        )
    ):
        files.append(tmp_path / f"seed{k}.bin")
        files[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", MUTATIONS, *map(str, files), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | dict(PYTHONPATH=str(Path(__file__).parents[2]), OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    cases, read, refused, slowest, peak = map(float, done.stdout.split()[-5:])
    print(done.stdout.splitlines()[-1])
    assert cases >= 200 and read + refused == cases and refused > 100 and read > 5 and slowest < 20 and peak < 1024


def test_written_file_has_no_global(tmp_path, jpegs):
    faces = render_faces(np.arange(44), np.zeros(44, int), 32)[0].numpy()
    pairs = Pairs("set", faces, np.arange(22) % 2 == 0)
    write_bin(pairs, tmp_path / "set.bin")
    content = (tmp_path / "set.bin").read_bytes()
    names = {op.name for op, _, _ in pickletools.genops(content)}
    assert content[:2] == b"\x80\x04" and not names & {
        "GLOBAL",
        "STACK_GLOBAL",
        "INST",
        "OBJ",
        "REDUCE",
        "BUILD",
        "NEWOBJ",
        "NEWOBJ_EX",
        "PERSID",
        "BINPERSID",
        "EXT1",
    }
    images, issame = pickle.loads(content)  # ours, so it may be loaded as evaluators do
    assert (
        type(images) is list
        and {type(x) for x in images} == {bytes}
        and {type(x) for x in issame} == {bool}
        and len(images) == 2 * len(issame)
    )
    read = load_bin(tmp_path / "set.bin", 32)
    bin_to_npz(tmp_path / "set.bin", tmp_path / "set.npz")
    array = array_pairs(tmp_path / "set.npz", 32)
    assert (read.images == faces).all() and (array.images == read.images).all() and (array.issame == read.issame).all()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_unbalanced_or_repeated_pairs_are_not_written(tmp_path, jpegs):
    faces = render_faces(np.arange(40), np.zeros(40, int), 16)[0].numpy()
    for issame, words in ((np.ones(20, bool), "0 impostor"), (np.arange(20) < 15, "5 impostor")):
        with pytest.raises(ValueError, match=words):
            write_bin(Pairs("x", faces, issame), tmp_path / "x.bin")
    twice = faces.copy()
    twice[34:36] = twice[7:5:-1]
    with pytest.raises(ValueError, match="pair 17 repeats pair 3"):
        write_bin(Pairs("x", twice, np.arange(20) % 2 == 0), tmp_path / "x.bin")
    assert not list(tmp_path.iterdir())
    write_bin(Pairs("x", twice, np.arange(20) % 2 == 0), tmp_path / "x.bin", repeats=True)
    assert len(load_bin(tmp_path / "x.bin", 16)) == 20
    with pytest.raises(FileNotFoundError, match="nothing.bin"):
        load_bin(tmp_path / "nothing.bin")


@pytest.fixture(scope="module")
def lfw():
    if not (DATA / "lfw_aligned112.npz").is_file():
        pytest.skip(f"no real faces: {DATA}/lfw_aligned112.npz is absent")
    with np.load(DATA / "lfw_aligned112.npz", allow_pickle=False) as d:
        return d["jpeg"], d["offsets"], d["pairs"], d["issame"].astype(bool)


def test_lfw_as_a_bin_keeps_pixels_and_order(tmp_path, lfw):
    "The 6,000 pairs of View 2: the file's own JPEGs in a .bin"
    jpeg, offsets, pairs, issame = lfw
    save_bin([jpeg[offsets[k] : offsets[k + 1]].tobytes() for k in pairs.ravel()], issame, tmp_path / "lfw.bin")
    read, array = load_bin(tmp_path / "lfw.bin"), array_pairs(DATA / "lfw_aligned112.npz")
    assert (
        len(read) == 6000
        and (read.issame == array.issame).all()
        and (read.issame == issame).all()
        and np.array_equal(read.images, array.images)
    )


@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason=f"no real networks: {DATA}/weights is absent")
def test_accuracy_is_the_same_through_a_bin(tmp_path, lfw):
    "300 pairs, 30 of each fold, by a real network: from the arrays and from a .bin written from pixels"
    jpeg, offsets, pairs, issame = lfw
    chosen = np.concatenate(
        [
            600 * fold + np.flatnonzero(issame[600 * fold : 600 * (fold + 1)] == same)[:15]
            for fold in range(10)
            for same in (True, False)
        ]
    )
    images = np.stack(
        [
            np.array(Image.open(io.BytesIO(jpeg[offsets[k] : offsets[k + 1]].tobytes())).convert("RGB"))
            for k in pairs[chosen].ravel()
        ]
    )
    write_bin(Pairs("lfw", images, issame[chosen]), tmp_path / "lfw.bin")
    read = load_bin(tmp_path / "lfw.bin")
    assert np.array_equal(read.images, images) and (read.issame == issame[chosen]).all()
    encoder = load_encoder(DATA / "weights" / "edgeface_xxs_q_dequant.onnx", size=112)
    one, two = (embed(encoder, x, batch=50) for x in (images, read.images))
    first, second = (verify(e[::2], e[1::2], issame[chosen]) for e in (one, two))
    assert first == second and first["accuracy"] > 0.98
