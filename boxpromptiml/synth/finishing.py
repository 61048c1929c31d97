"""The life of a photograph around a forgery: framed and saved before, edited and saved after.

What happens after the forgery is drawn before it is known whether there is one, and applied alike
to forged and authentic images. So neither size nor compression tells them apart.
"""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

from boxpromptiml.io.images import encode_jpeg, encode_png
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.degradation import jpeg, rescale
from boxpromptiml.synth.regions import resized_region
from boxpromptiml.synth.variety import Variety, drawn

_GRID = 8  # pixels, of the blocks of a JPEG


def framed(image: ImageArray, variety: Variety, rng: np.random.Generator) -> ImageArray:
    """Crop and resize a photograph (H, W, 3) by chance; see `Variety` for the limits."""
    shortest, longest = variety.sides
    kept = drawn(variety.crop, rng)
    if kept is not None:
        fractions = np.array([kept, rng.uniform(kept, 1.0)])[rng.permutation(2)]
        size = np.array(image.shape[:2])
        least = np.minimum(size, np.where(size == size.max(), shortest, shortest * 2 // 3))
        crop = np.maximum(np.rint(size * fractions).astype(int), least)
        row, column = (int(rng.integers(room + 1)) for room in size - crop)
        image = image[row : row + crop[0], column : column + crop[1]]
    factor = drawn(variety.rescale, rng) or 1.0
    side = max(image.shape[:2])
    factor = min(max(factor, min(shortest / side, 1.0)), longest / side)
    return np.ascontiguousarray(image if factor == 1.0 else rescale(image, factor))


def saved_before(
    image: ImageArray, variety: Variety, rng: np.random.Generator
) -> tuple[ImageArray, list[int]]:
    """Save a host (H, W, 3) as JPEG as often as was drawn; the second grid may be shifted.

    Returns:
        The image, up to 7 pixels smaller where the grid was shifted, and the qualities in order.
    """
    times = int(rng.choice(3, p=variety.host_saves))
    qualities = [_quality(variety.host_quality, rng) for _ in range(times)]
    for number, quality in enumerate(qualities):
        if number and rng.random() < 0.5:
            row, column = rng.integers(_GRID, size=2)
            image = np.ascontiguousarray(image[row:, column:])
        image = jpeg(image, quality)
    return image, qualities


def _quality(limits: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))


@dataclass(frozen=True, slots=True)
class Finish:
    """What happens to a whole image after it was forged, or was not.

    Attributes:
        resize: Factor of both sides; None for none of it, as in the next three.
        gamma: Exponent of a curve on values in [0, 1].
        blur: Deviation of a Gaussian in pixels.
        sharpen: Fraction of the detail that is added.
        qualities: Of the JPEG saves in order; none for a lossless PNG.
        shift: Rows and columns cut off before the last of two saves.
    """

    resize: float | None
    gamma: float | None
    blur: float | None
    sharpen: float | None
    qualities: tuple[int, ...]
    shift: tuple[int, int]

    @classmethod
    def draw(
        cls, variety: Variety, saves: int, size: tuple[int, int], rng: np.random.Generator
    ) -> Self:
        """Draw what happens to an image of `size` (H, W) that is saved as JPEG `saves` times."""
        resize = drawn(variety.resize, rng)
        if resize is not None:
            shortest, longest = (side / max(size) for side in variety.sides)
            resize = min(max(resize, min(shortest, 1.0)), longest)
        shift = rng.integers(_GRID, size=2) * (rng.random() < 0.5)
        return cls(
            resize=resize,
            gamma=drawn(variety.gamma, rng),
            blur=drawn(variety.blur, rng),
            sharpen=drawn(variety.sharpen, rng),
            qualities=tuple(_quality(variety.quality, rng) for _ in range(saves)),
            shift=(int(shift[0]), int(shift[1])) if saves > 1 else (0, 0),
        )

    def file(self, image: ImageArray) -> bytes:
        """Edit an image (H, W, 3) and return it as a file, JPEG or PNG."""
        if self.resize is not None:
            image = rescale(image, self.resize)
        if self.gamma is not None:
            curve = np.rint(255 * (np.arange(256) / 255) ** self.gamma).astype(np.uint8)
            image = curve[image]
        if self.blur is not None:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur), dtype=np.uint8)
        if self.sharpen is not None:
            image = sharpened(image, self.sharpen)
        for quality in self.qualities[:-1]:
            image = jpeg(image, quality)
        image = np.ascontiguousarray(image[self.shift[0] :, self.shift[1] :])
        return encode_jpeg(image, self.qualities[-1]) if self.qualities else encode_png(image)

    def mask(self, mask: MaskArray) -> MaskArray:
        """Where the mask (H, W) of an image lies in the file."""
        if self.resize is not None:
            size = (
                max(1, round(mask.shape[0] * self.resize)),
                max(1, round(mask.shape[1] * self.resize)),
            )
            mask = resized_region(mask, size)
        return np.ascontiguousarray(mask[self.shift[0] :, self.shift[1] :])


def sharpened(image: ImageArray, amount: float) -> ImageArray:
    """Sharpen an image (H, W, 3) by an unsharp mask with a sigma of one pixel.

    `amount` is the fraction of the detail that is added; 0 changes nothing.
    """
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
    return np.asarray(cv2.addWeighted(image, 1 + amount, blurred, -amount, 0), dtype=np.uint8)
