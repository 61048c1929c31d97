"""What decoding in a child process costs per image, compared with decoding in this process.

    OMP_NUM_THREADS=1 python -m benchmarks.isolated_decoding

Prints median wall-clock times for JPEG photographs of three sizes, with warm file caches.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder

_SIZES = ((64, 96, 200), (683, 1024, 60), (3000, 4000, 9))


def median(decode: Callable[[Path], object], path: Path, times: int) -> float:
    """Median time of a call, in milliseconds."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        decode(path)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    dice = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, IsolatedDecoder() as isolated:
        for height, width, times in _SIZES:
            path = Path(folder, f"{width}.jpg")
            coarse = dice.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            smooth = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
            images.write_jpeg(path, smooth, 90)
            isolated(path)
            here, there = median(images.read_image, path, times), median(isolated, path, times)
            print(f"{width} x {height}: {here:.2f} ms here, {there:.2f} ms isolated")
        began = time.perf_counter()
        with IsolatedDecoder() as fresh:
            fresh(Path(folder, "96.jpg"))
        print(f"starting a child: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
