"""What happens to an image after it was forged: recompression, blur, noise, resizing.

Pure functions of images (H, W, 3) uint8 RGB, for robustness studies and made-up training data.
"""

import cv2
import numpy as np

from boxpromptiml.io.images import decode_image, encode_jpeg
from boxpromptiml.records import ImageArray


def jpeg(image: ImageArray, quality: int) -> ImageArray:
    """The image after one JPEG compression of `quality` in [1, 100]."""
    return decode_image(encode_jpeg(image, quality), "recompressed.jpg")[0]


def blur(image: ImageArray, kernel: int) -> ImageArray:
    """Gaussian blur with a window of `kernel` pixels, odd; OpenCV derives sigma from it."""
    return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), 0), dtype=np.uint8)


def noise(image: ImageArray, sigma: float, rng: np.random.Generator) -> ImageArray:
    """Add Gaussian noise of standard deviation `sigma` grey levels to every value."""
    noisy = image + rng.normal(0, sigma, image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def rescale(image: ImageArray, factor: float) -> ImageArray:
    """Resize both sides by `factor` > 0, at least to one pixel; shrinking averages areas."""
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
