"""Pictures with edges, for what looks for objects in photographs."""

import cv2
import numpy as np

from boxpromptiml.records import ImageArray


def picture(size: tuple[int, int], seed: int) -> ImageArray:
    """Six discs over a gradient, (H, W, 3): edges that superpixels can follow."""
    rng = np.random.default_rng(seed)
    image = np.linspace(40, 200, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    for _ in range(6):
        centre = tuple(int(v) for v in rng.integers(0, size[::-1]))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(3, max(size) // 3)), colour, -1)
    return image
