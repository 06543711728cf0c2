"""Seconds of the 10-fold protocol with VAL on 6,000 pairs: facesyn's against the per-threshold loops that the test
compares it with, in one run.

    python bench/bench_verification.py [--pairs 6000] [--dim 512]

Prints both times, their ratio and JSON; fails if the results differ anywhere or the ratio is below 100."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/unit"))
from test_verification import original, random_pairs

from facesyn.measure.verification import verify

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--dim", type=int, default=512)
    asked = parser.parse_args()
    pairs, times = random_pairs(asked.pairs, 1.0, 0, asked.dim), []
    for _ in range(9):
        started = time.perf_counter()
        ours = verify(*pairs)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    loops = original(*pairs)
    slow = time.perf_counter() - started
    fast, usual = min(times), float(np.median(times))
    print(
        f"{asked.pairs} pairs of {asked.dim}: loops {slow:.2f} s, facesyn {1000 * fast:.1f} ms (best of 9; median"
        f" {1000 * usual:.1f}), {slow / fast:.0f} times faster (median {slow / usual:.0f}), equal: {ours == loops}"
    )
    print(
        json.dumps(
            dict(pairs=asked.pairs, dim=asked.dim, loops=slow, facesyn=times, ratio=slow / fast, numpy=np.__version__)
        )
    )
    assert ours == loops and slow >= 100 * fast
