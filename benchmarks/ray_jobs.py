"""What Ray costs a task, and what a second worker brings.

Run it from the repository root, on two free cores:

    OMP_NUM_THREADS=1 python -m benchmarks.ray_jobs [--tasks 10000] [--images 1000]

Overhead: tasks that do nothing, by worker processes and by Ray, both with two workers and the
chunks of `pseudo-masks`. CPU time is that of this process and all below it (with Ray its servers
too), from the first result to the last, so that the start does not count. Throughput: GrabCut
pseudo-masks of photographs of 256 x 384 by 1 and 2 workers; images/s are wall time and mean nothing
on a busy machine.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.data import astronaut

from boxpromptiml.io.progress import parallel
from boxpromptiml.io.ray_engine import RayEngine
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.grabcut import GrabCutTeacher

ENGINES = {"processes": None, "Ray": RayEngine()}


def cpu_seconds() -> float:
    """Of this process and all its descendants that run."""
    parents, ticks = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks[pid] for pid in family) / os.sysconf("SC_CLK_TCK")


def cost(
    work: Callable[[int], object], count: int, workers: int, ray: RayEngine | None
) -> tuple[float, float]:
    """Wall and CPU milliseconds of an item, without the start.

    What ran before the first result, about a chunk a worker, goes into neither time, so that few
    items give too little.
    """
    chunk = 1 if ray is None else 8
    results = parallel(work, range(count), workers, "working", chunk=chunk, ray=ray)
    next(results)
    wall, cpu = time.perf_counter(), cpu_seconds()
    for number, _ in enumerate(results, 2):
        if number == count:
            wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return 1000 * wall / count, 1000 * cpu / count


def nothing(item: int) -> int:
    """Costs nothing."""
    return item


def mask_of_a_photograph(item: int) -> int:
    """Number of pixels of a pseudo-mask for a box that depends on the item."""
    x, y = 40 + item % 60, 20 + item % 40
    boxes = np.array([[x, y, x + 150, y + 150]], np.float32)
    trimap, _ = pseudo_mask(GrabCutTeacher(), astronaut()[:256, :384], boxes, Consensus())
    return int((trimap > 0).sum())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    print("| engine, 2 workers | wall ms a task | CPU ms a task |\n|---|---|---|")
    for name, engine in ENGINES.items():
        wall, cpu = cost(nothing, given.tasks, 2, engine)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)
    print("\n| engine | workers | images/s | CPU ms an image |\n|---|---|---|---|")
    for name, engine in ENGINES.items():
        for workers in (1, 2):
            wall, cpu = cost(mask_of_a_photograph, given.images, workers, engine)
            print(f"| {name} | {workers} | {1000 / wall:.1f} | {cpu:.0f} |", flush=True)


if __name__ == "__main__":
    main()
