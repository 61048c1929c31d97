"""Throughput of signed error levels, against two plain calls of Pillow with the same result.

OMP_NUM_THREADS=1 python -m benchmarks.error_levels --data DATA/val
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from boxpromptiml.io.images import read_image
from boxpromptiml.models.error_levels import signed_error_levels
from boxpromptiml.records import ImageArray

_QUALITIES = (60, 75, 90)


def by_pillow(image: ImageArray, quality: int) -> npt.NDArray[np.int16]:
    """Signed error levels by two calls of Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return image.astype(np.int16) - np.asarray(Image.open(buffer)).astype(np.int16)


def seconds(levels: Callable[[ImageArray, int], object], image: ImageArray) -> float:
    """CPU seconds of all three qualities."""
    start = time.process_time()
    for quality in _QUALITIES:
        levels(image, quality)
    return time.process_time() - start


def main() -> None:
    """Interleave both on the same images and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with authentic/")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    paths = sorted((options.data / "authentic").glob("*.jpg"))[: options.count]
    rows: list[tuple[float, float, float]] = []
    for path in paths:
        image, _ = read_image(path)
        for quality in _QUALITIES:
            np.testing.assert_array_equal(
                signed_error_levels(image, quality), by_pillow(image, quality)
            )
        ours, pillow = seconds(signed_error_levels, image), seconds(by_pillow, image)
        rows.append((ours, pillow, image.shape[0] * image.shape[1] * len(_QUALITIES) / 1e6))
    ours, pillow = (statistics.median(row[i] / row[2] for row in rows) for i in (0, 1))
    print(f"{len(paths)} images, exact at qualities {_QUALITIES}")
    print(f"ours   {ours * 1e3:6.1f} ms a megapixel and quality, {1 / ours:5.0f} MP/s")
    print(f"Pillow {pillow * 1e3:6.1f} ms a megapixel and quality; ratio {ours / pillow:.2f}")


if __name__ == "__main__":
    main()
