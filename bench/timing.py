"""Seconds of one thing done in several ways."""

import time


def best_of(repeats: int, ways: dict) -> dict[str, float]:
    "Seconds of each way (name -> a call without arguments): the best of `repeats`, the ways taking turns"
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, call in ways.items():
            started = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - started)
    return best
