"""Angle of the closest pair against seconds: facesyn's anchors beside other solvers, on one machine, each for as long
as facesyn's own optimiser took.

    python bench/bench_anchors.py [--sizes 2000x128 10000x512] [--seconds 0]

The others, as their papers describe them; each is given the best of three step sizes in a tenth of the time first, and
its best set counts:
- closest pair, Adam: HyperFace's objective (arXiv 2411.08470), the distance of the closest pair, without its gallery
term;
- row maximum, SGD: hyperspherical prototypes (Mettes 2019), the mean over rows of the largest cosine, gradient steps
and renormalisation;
- soft maximum, Adam: log-sum-exp of all cosines with a rising sharpness (as Manopt's packing example, with Adam).
Prints a table and JSON."""

import argparse
import json
import math
import time

import torch
from torch.nn.functional import normalize

from facesyn.sphere.anchors import describe, tammes_anchors
from facesyn.sphere.geometry import levenshtein_bound, max_cosine, random_anchors


def degrees(c):
    return round(math.degrees(math.acos(c)), 3)


def cosines(x, a, b):
    c = x[a:b] @ x.T
    return c.masked_fill(torch.arange(len(x)) == torch.arange(a, min(b, len(x)))[:, None], -1.0)


def loss_of(name, x, share, block=2000):
    "The loss is differentiated a block of rows at a time; `share` of the time is over"
    beta = math.sqrt(x.shape[1]) * 5 * 2 ** (8 * share)
    blocks = range(0, len(x), block)
    if name == "closest pair, Adam":
        with torch.no_grad():
            best = max((cosines(x, a, a + block).max(), a) for a in blocks)
        loss = cosines(x, best[1], best[1] + block).max()
        loss.backward()
    elif name == "row maximum, SGD":
        for a in blocks:
            (cosines(x, a, a + block).max(1).values.sum() / len(x)).backward(retain_graph=True)
    else:
        with torch.no_grad():
            top = torch.stack([(beta * cosines(x, a, a + block)).logsumexp((0, 1)) for a in blocks]).logsumexp(0)
        for a in blocks:
            ((beta * cosines(x, a, a + block) - top).exp().sum() / beta).backward(retain_graph=True)


def solve(name, n, dim, seconds, lr, seed=0):
    x = random_anchors(n, dim, seed).requires_grad_()
    optimiser = torch.optim.SGD([x], lr * n) if "SGD" in name else torch.optim.Adam([x], lr)
    started, best, steps = time.perf_counter(), max_cosine(x.detach()), 0
    checked = started
    while (spent := time.perf_counter() - started) < seconds:
        optimiser.zero_grad()
        loss_of(name, normalize(x, dim=1), spent / seconds)
        optimiser.step()
        with torch.no_grad():
            x.copy_(normalize(x, dim=1))
        steps += 1
        if time.perf_counter() - checked > seconds / 20:
            best = min(best, max_cosine(x.detach()))
            checked = time.perf_counter()
    return min(best, max_cosine(x.detach())), steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["2000x128", "10000x512"])
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="for every other solver; 0: what facesyn's optimiser took"
    )
    asked, results = parser.parse_args(), []
    for n, dim in (map(int, size.split("x")) for size in asked.sizes):
        rows = []
        for method in ("auto", "search"):
            started = time.perf_counter()
            x = tammes_anchors(n, dim, method=method, device="cpu")
            seconds = time.perf_counter() - started
            rows.append(
                (
                    f"facesyn, {method}: {describe(n, dim, method=method)['how']}",
                    degrees(max_cosine(x)),
                    round(seconds, 1),
                )
            )
        for name, rates in (
            ("closest pair, Adam", (1e-4, 1e-3, 1e-2)),
            ("row maximum, SGD", (0.03, 0.1, 0.3)),
            ("soft maximum, Adam", (3e-4, 1e-3, 3e-3)),
        ):
            limit = asked.seconds or seconds
            lr = min(rates, key=lambda lr: solve(name, n, dim, limit / 10, lr)[0])
            started = time.perf_counter()
            c, steps = solve(name, n, dim, limit, lr)
            rows.append((f"{name}, lr {lr:g}, {steps} steps", degrees(c), round(time.perf_counter() - started, 1)))
        print(f"{n} x {dim}, no set exceeds {degrees(levenshtein_bound(n, dim))} degrees")
        for name, angle, seconds in rows:
            print(f"  {angle:7.3f} degrees in {seconds:6.1f} s   {name}")
        results.append(dict(n=n, dim=dim, bound=degrees(levenshtein_bound(n, dim)), rows=rows))
        assert all(angle <= rows[0][1] for _, angle, _ in rows[2:]), "another solver is ahead of the automatic choice"
    print(json.dumps(dict(threads=torch.get_num_threads(), torch=torch.__version__, results=results)))
