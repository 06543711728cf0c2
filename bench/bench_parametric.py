"""Speed of `render_faces` in images/s, and as a ratio to one baseline measured in the same run: the same renderer one
image at a time (batch=1), one thread.

    python bench/bench_parametric.py [--images 96] [--repeats 3]

Prints JSON. Each figure is the best of `repeats`, the baseline and the batches taking turns; both must draw the same
bytes.
"""

import argparse
import json
import os
import platform
import time

import torch

from facesyn.rendered.faces import render_faces


def timed(threads, **kw):
    "Seconds and images of one call with so many torch threads"
    torch.set_num_threads(threads)
    started = time.perf_counter()
    images, _, _ = render_faces(**kw)
    return time.perf_counter() - started, images


def measure(size, images, repeats, ways):
    "Images/s of each way (name -> threads, batch) to draw the same pictures, and its ratio to the way named baseline"
    best, drawn = dict.fromkeys(ways, float("inf")), {}
    for _ in range(repeats):
        for name, (threads, batch) in ways.items():
            seconds, drawn[name] = timed(threads, identities=range(images), images=[0] * images, size=size, batch=batch)
            best[name] = min(best[name], seconds)
    assert all(torch.equal(d, drawn["baseline"]) for d in drawn.values()), "batches changed the pictures"
    return {
        name: dict(images_per_s=round(images / s, 2), ratio_to_baseline=round(best["baseline"] / s, 2))
        for name, s in best.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=3)
    asked, threads = parser.parse_args(), torch.get_num_threads()
    ways = {"baseline": (1, 1), "batch 32, 1 thread": (1, 32)}
    if threads > 1:
        ways[f"batch 32, {threads} threads"] = (threads, 32)
    render_faces([0], [0])  # builds the basis and the masks
    result = {f"{size} px": measure(size, asked.images, asked.repeats, ways) for size in (32, 64)}
    print(
        json.dumps(
            dict(
                baseline="render_faces, batch=1, 1 thread",
                images=asked.images,
                repeats=asked.repeats,
                torch=torch.__version__,
                machine=platform.machine(),
                cores=os.cpu_count(),
                **result,
            ),
            indent=1,
        )
    )
