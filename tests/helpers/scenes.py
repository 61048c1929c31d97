"""Pictures with the structure of a photograph, and changed copies of them."""

import cv2
import numpy as np

from boxpromptiml.io import images
from boxpromptiml.records import ImageArray


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> ImageArray:
    """Smooth coloured blobs: as much structure as a photograph at the scale of a thumbnail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def recompressed(image: ImageArray, quality: int) -> ImageArray:
    """The image after JPEG of that quality."""
    return images.decode_image(images.encode_jpeg(image, quality), "x.jpg")[0]


def forged(image: ImageArray) -> ImageArray:
    """The image with a part of another scene pasted in."""
    copy = image.copy()
    copy[30:70, 20:60] = scene(99)[30:70, 20:60]
    return copy
