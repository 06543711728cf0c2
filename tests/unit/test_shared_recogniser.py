"""A recogniser whose updates are shared by processes and micro-batches, and whose classes are sampled."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from facesyn.core.batches import first_row, shuffled_rows
from facesyn.core.images import generator, to_float
from facesyn.core.processes import joined
from facesyn.core.training import Keep
from facesyn.data.faces import Faces
from facesyn.nets.augmentation import augment
from facesyn.nets.backbones import recogniser
from facesyn.nets.margins import MarginHead, sampled_classes
from facesyn.nets.recogniser import Recipe, _keep_scale, _load_scale, sgd_step, train_recogniser

NET = dict(size=16, layers=(1, 1), widths=(16, 16), dim=16, dropout=0.2)
RECIPE = Recipe(5, 24, 0.005, s=16.0, shift=1, erase=0.2, jitter=0.1)  # 4 updates an epoch
RECIPES = dict(
    arcface=RECIPE,
    adaface=replace(RECIPE, head="adaface"),
    ghost=replace(RECIPE, normalise=6, head="adaface"),
    sampled=replace(RECIPE, sample=0.3, batch=8, epochs=2),
)


def patterns(people=24, each=4, size=16):
    "A coarse colour pattern a person, seen through noise"
    g, labels = generator(0), torch.arange(people).repeat_interleave(each)
    pixels = torch.rand(people, 4, 4, 3, generator=g).repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    noise = torch.randn(len(labels), size, size, 3, generator=g)
    images = ((pixels[labels] + 0.15 * noise).clamp(0, 1) * 255).byte()
    unknown = np.full((len(labels), 4), np.nan)
    return Faces(labels, [f"p{k}" for k in range(people)], unknown, size, lambda k: images[k].numpy())


def trained(kind, out=None, accumulate=1, evaluate=None, every=0, **changes):
    recipe = replace(RECIPES[kind], accumulate=accumulate, **changes)
    return train_recogniser(
        patterns(), NET, recipe, Keep(out, seconds=0.0, workers=1), "cpu", evaluate=evaluate, every=every
    )


def launched(processes, *told):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", __file__]
    ended = subprocess.run([*command, *map(str, told)], capture_output=True, text=True, timeout=300)
    assert not ended.returncode, ended.stderr[-9000:]


def weights(out):
    return {k: v for k, v in load_file(Path(out) / "checkpoint.safetensors").items() if k.startswith(("net.", "head."))}


def apart(a, b):
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def test_alone_it_is_a_plain_loop():
    "Bit for bit, in float32 and bf16: one process with one micro-batch and all classes"
    faces, images = patterns(), torch.as_tensor(patterns().read(np.arange(96)))
    for precision in ("no", "bf16"):
        recipe = replace(RECIPE, epochs=1, precision=precision, normalise=24)
        net, _ = train_recogniser(faces, NET, recipe, device="cpu")
        torch.manual_seed(0)
        plain, head = recogniser(NET), MarginHead(16, 24, s=16.0)
        plain = plain.to(memory_format=torch.channels_last).train()
        sgd = torch.optim.SGD(
            [p for p in (*plain.parameters(), *head.parameters()) if p.requires_grad], 1, 0.9, weight_decay=5e-4
        )
        for step in range(4):
            index, g = shuffled_rows(96, first_row(step, 96, 24), 24, 0, 1), generator(0, 2, step)
            x = to_float(augment(images[index], g, shift=1, erase=0.2, jitter=0.1))
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator(0, 3, step))))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                features = plain(x.contiguous(memory_format=torch.channels_last))
            labels = torch.as_tensor(faces.labels)[index].long()
            loss = F.cross_entropy(head(features, labels), labels)
            sgd.zero_grad(), loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 5.0)
            sgd.param_groups[0]["lr"] = recipe.rate(step, 4)
            sgd.step()
        assert all(v.equal(net.state_dict()[k]) for k, v in plain.state_dict().items())
        assert not any("forward" in vars(layer) for layer in net.modules())


@pytest.mark.parametrize("kind", RECIPES)
def test_micro_batches_end_in_the_weights_of_the_batch(kind, tmp_path):
    torch.set_num_threads(1)
    group = RECIPES[kind].normalise or RECIPES[kind].batch // 2
    trained(kind, tmp_path / "one", normalise=group)
    trained(kind, tmp_path / "parts", accumulate=2, normalise=group)
    one = weights(tmp_path / "one")
    assert apart(one, weights(tmp_path / "parts")) < 1e-4
    fresh = recogniser(NET).state_dict()["conv1.weight"].std()
    assert (one["net.conv1.weight"].std() / fresh - 1).abs() > 1e-3


@pytest.mark.distributed
@pytest.mark.parametrize("kind", RECIPES)
def test_two_processes_end_in_the_weights_of_one(kind, tmp_path):
    torch.set_num_threads(1)
    trained(kind, tmp_path / "one")
    launched(2, kind, tmp_path / "two", "{}")
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "two")) < 1e-4
    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()] for run in ("one", "two")
    ]
    for a, b in zip(*logs, strict=True):
        assert a.keys() == b.keys() and all(abs(a[k] - b[k]) < 1e-4 for k in a)


@pytest.mark.distributed
def test_one_goes_on_in_mid_epoch_where_two_stopped(tmp_path):
    torch.set_num_threads(1)
    trained("ghost", tmp_path / "one")
    with pytest.raises(AssertionError, match="SIGKILL"):
        launched(2, "ghost", tmp_path / "both", json.dumps(dict(kill=6)))
    assert step_of(tmp_path / "both") == 5
    trained("ghost", tmp_path / "both", accumulate=4)
    assert apart(weights(tmp_path / "one"), weights(tmp_path / "both")) < 1e-4


def step_of(out):
    with safe_open(out / "checkpoint.safetensors", "pt") as f:
        return json.loads(f.metadata()["state"])["step"]


def pull(*_):
    raise OSError("pulled the plug")


def stopping(at, end=pull):
    "An `evaluate` that ends the training at its call number `at`"
    calls = iter(range(1, 1000))

    def look(net):
        if next(calls) == at:
            end()
        return dict(width=net.config.dim)

    return look


@pytest.mark.parametrize("kind", ["ghost", "sampled"])
def test_resumes_in_mid_epoch_bit_for_bit(kind, tmp_path):
    trained(kind, tmp_path / "whole", accumulate=2, normalise=4 if kind == "sampled" else 6)
    told = dict(accumulate=2, normalise=4 if kind == "sampled" else 6, every=1)
    with pytest.raises(OSError, match="plug"):
        trained(kind, tmp_path / "cut", evaluate=stopping(6), **told)
    assert step_of(tmp_path / "cut") == 5
    trained(kind, tmp_path / "cut", evaluate=stopping(0), **told)
    one, other = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "cut"))
    assert one.keys() == other.keys() and all(v.equal(other[k]) for k, v in one.items())


def test_is_looked_at_every_few_updates(tmp_path):
    seen = []
    log = trained("arcface", tmp_path, evaluate=lambda net: seen.append(net.training) or dict(lfw=0.5), every=8)[1]
    assert [row["step"] for row in log] == [8, 16, 20] and {row["lfw"] for row in log} == {0.5} and not any(seen)
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log


def test_a_look_during_training_sees_the_network_as_it_is_after_it():
    "Its batch norms and dropout do not belong to the training any more"
    x, seen = to_float(patterns().read(np.arange(6))), []
    net, _ = trained("ghost", accumulate=2, evaluate=lambda net: seen.append(net(x).detach()) or {})
    assert len(seen) == 5 and seen[-1].equal(net(x).detach()) and not seen[0].equal(seen[-1])


# Partial FC


def head_and_data(classes=30, dim=8, n=12):
    torch.manual_seed(0)
    return MarginHead(dim, classes, s=8.0), torch.randn(5, n, dim), torch.randint(classes, (5, n))


def test_sampled_classes_are_those_of_masked_logits():
    "Five updates of a head against a dense one: -inf for the classes that take no part, SGD written out"
    head, xs, ys = head_and_data()
    w, v = head.weight.detach().double().clone(), torch.zeros(30, 8, dtype=torch.double)
    sgd = torch.optim.SGD(head.parameters(), 0.3, 0.9, weight_decay=0.01)
    for step, (x, y) in enumerate(zip(xs, ys)):
        rows, dense = sampled_classes(y, 30, 0.5, 0, step), w.clone().requires_grad_()
        cosines = F.normalize(x.double()) @ F.normalize(dense).T
        own = cosines.gather(1, y[:, None]).clamp(-1 + 1e-4, 1 - 1e-4)
        bent = torch.where(own > -np.cos(0.5), (own.acos() + 0.5).cos(), own - 0.5 * np.sin(0.5))
        out = torch.full((30,), -torch.inf).double().index_fill(0, rows, 0.0)
        loss = F.cross_entropy(8 * cosines.scatter(1, y[:, None], bent) + out, y)
        (g,) = torch.autograd.grad(loss, dense)
        assert (g.abs().sum(1) > 0).nonzero().flatten().equal(rows)
        v[rows] = 0.9 * v[rows] + g[rows] + 0.01 * w[rows]
        w[rows] -= 0.3 * v[rows]
        place = torch.searchsorted(rows, y)
        ours = F.cross_entropy(head(x, y, rows), place)
        ours.backward()
        sgd_step(sgd, torch.amp.GradScaler("cpu", enabled=False), nn.Linear(1, 1), head, rows)
        assert abs(ours.item() - loss.item()) < 1e-5 and head.weight.double().allclose(w, atol=1e-5)
        assert sgd.state[head.weight]["momentum_buffer"].double().allclose(v, atol=1e-5)


def test_what_is_not_sampled_stays_as_it_is():
    head, xs, ys = head_and_data()
    sgd = torch.optim.SGD(head.parameters(), 0.3, 0.9, weight_decay=0.01)
    for step, (x, y) in enumerate(zip(xs, ys)):
        rows = sampled_classes(y, 30, 0.5, 0, step)
        assert set(y.tolist()) <= set(rows.tolist()) and len(rows) == 15
        assert rows.equal(sampled_classes(y, 30, 0.5, 0, step)) and not rows.equal(sampled_classes(y, 30, 0.5, 1, step))
        rest = torch.ones(30, dtype=torch.bool).index_fill(0, rows, False)
        state = [
            v.clone() for v in (head.weight.detach(), sgd.state[head.weight].get("momentum_buffer", torch.zeros(30, 8)))
        ]
        F.cross_entropy(head(x, y, rows), torch.searchsorted(rows, y)).backward()
        sgd_step(sgd, torch.amp.GradScaler("cpu", enabled=False), nn.Linear(1, 1), head, rows)
        for before, now in zip(state, (head.weight.detach(), sgd.state[head.weight]["momentum_buffer"])):
            assert before[rest].equal(now[rest]) and not (before[~rest] == now[~rest]).any()


def test_a_sample_of_all_classes_is_all_classes():
    "Bit for bit: the share .99 of 24 classes is 24, but they go through the sampled head"
    whole, sampled = (trained("sampled", sample=share)[0].state_dict() for share in (1.0, 0.99))
    assert all(v.equal(sampled[k]) for k, v in whole.items())
    some = trained("sampled")[0].state_dict()
    assert not all(v.equal(some[k]) for k, v in whole.items())


def test_an_update_samples_the_classes_of_its_pictures(monkeypatch):
    "The same ones for all its micro-batches, others in each update"
    room = sys.modules[train_recogniser.__module__]
    seen, rows_of = [], room.sampled_classes
    monkeypatch.setattr(
        room, "sampled_classes", lambda y, *told: seen.append((y.unique(), rows_of(y, *told))) or seen[-1][1]
    )
    trained("sampled", accumulate=2, normalise=4)
    assert len(seen) == 24 and all(set(y.tolist()) <= set(rows.tolist()) for y, rows in seen)
    assert {len(rows) for _, rows in seen} == {8} and len({tuple(rows.tolist()) for _, rows in seen}) > 12


# float16


def test_a_scaled_gradient_that_overflows_changes_nothing(tmp_path):
    head, xs, ys = head_and_data()
    net, rows = nn.Linear(8, 8), sampled_classes(ys[0], 30, 0.5, 0)
    sgd = torch.optim.SGD([*net.parameters(), *head.parameters()], 0.3, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, moves in ((1.0, True), (torch.inf, False), (1.0, True)):
        before = [net.weight.clone(), head.weight.detach().clone()]
        loss = F.cross_entropy(head(net(xs[0]), ys[0], rows), torch.searchsorted(rows, ys[0]))
        scaler.scale(loss).backward()
        head.weight.grad[rows[0], 0] *= factor
        sgd_step(sgd, scaler, net, head, rows)
        assert all(a.equal(b) != moves for a, b in zip(before, (net.weight, head.weight)))
        assert net.weight.isfinite().all() and head.weight.isfinite().all()
    assert scaler.get_scale() == 2.0


def test_float16_goes_on_bit_for_bit(tmp_path, monkeypatch):
    "torch's CPU can do it, slowly; the door that refuses it there is opened"
    monkeypatch.setattr(sys.modules[joined.__module__], "check_precision", lambda *told: None)
    told = dict(precision="fp16", every=1)
    trained("sampled", tmp_path / "whole", **told)
    with pytest.raises(OSError, match="plug"):
        trained("sampled", tmp_path / "cut", evaluate=stopping(14), **told)
    trained("sampled", tmp_path / "cut", evaluate=stopping(0), **told)
    one, other = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "cut"))
    assert one.keys() == other.keys() and all(v.equal(other[k]) for k, v in one.items())
    assert 1 < one["scaler.scale"] < 2**16 and one["scaler.growth"] > 1  # the first steps overflowed


def test_the_scale_goes_on():
    one, other = (torch.amp.GradScaler("cpu", init_scale=s) for s in (8.0, 2.0))
    kept = dict(scale=torch.tensor(0.0), growth=torch.tensor(0.0))
    one.load_state_dict(one.state_dict() | dict(_growth_tracker=7))
    _keep_scale(one, kept)
    _load_scale(other, kept)
    assert other.state_dict() == one.state_dict() and other.get_scale() == 8.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    told = json.loads(sys.argv[3])
    how = {}
    if "kill" in told:
        how = dict(evaluate=stopping(told.pop("kill"), lambda: os.kill(os.getpid(), signal.SIGKILL)), every=1)
    trained(sys.argv[1], Path(sys.argv[2]), **how, **told)
