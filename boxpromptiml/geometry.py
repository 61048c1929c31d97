"""Geometry of boxes and of label maps: where things lie, and where they lie at another size.

Boxes are (N, 4) float32 x0 y0 x1 y1, half-open pixels of the stored image. A pixel (column c,
row r) covers [c, c+1) x [r, r+1); so the box of one pixel is (c, r, c+1, r+1) and a box of the
whole image is (0, 0, W, H).
"""

from collections.abc import Iterable

import cv2
import numpy as np

from boxpromptiml.records import Box, BoxArray, ImageArray, MaskArray, RegionArray


def as_array(boxes: Iterable[Box]) -> BoxArray:
    """Boxes as one (N, 4) float32 array; (0, 4) for none.

    Example:
        >>> as_array([]).shape
        (0, 4)
    """
    return np.array(list(boxes), dtype=np.float32).reshape(-1, 4)


def clip(boxes: BoxArray, size: tuple[int, int]) -> BoxArray:
    """Cut boxes (N, 4) to an image of `size` (H, W)."""
    height, width = size
    limit = np.array([width, height, width, height], dtype=np.float32)
    clipped: BoxArray = np.clip(boxes, 0, limit).astype(np.float32)
    return clipped


def rescale(boxes: BoxArray, old: tuple[int, int], new: tuple[int, int]) -> BoxArray:
    """Carry boxes (N, 4) from an image of size `old` (H, W) to the same image at size `new`."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    scaled: BoxArray = (boxes * np.array([sx, sy, sx, sy])).astype(np.float32)
    return scaled


def expand(boxes: BoxArray, fraction: float, size: tuple[int, int]) -> BoxArray:
    """Grow boxes (N, 4) by `fraction` of their width and height on every side, cut to `size`.

    Example:
        >>> expand(as_array([Box(10, 10, 20, 30)]), 0.5, (100, 100)).tolist()
        [[5.0, 0.0, 25.0, 40.0]]
    """
    side = boxes[:, 2:] - boxes[:, :2]
    grown = np.concatenate([boxes[:, :2] - fraction * side, boxes[:, 2:] + fraction * side], axis=1)
    return clip(grown.astype(np.float32), size)


def jitter(
    boxes: BoxArray, fraction: float, size: tuple[int, int], rng: np.random.Generator
) -> BoxArray:
    """Move every side of boxes (N, 4) by up to `fraction` of the box's extent, uniformly.

    Args:
        boxes: To be moved.
        fraction: In [0, 0.5): opposite sides never cross.
        size: (H, W) of the image; the result lies inside and keeps at least one pixel a side.
        rng: Where the movements come from.

    Raises:
        ValueError: If `fraction` is out of range.
    """
    if not 0 <= fraction < 0.5:
        raise ValueError(f"jitter fraction must be in [0, 0.5), got {fraction}")
    side = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    shift = side * rng.uniform(-fraction, fraction, boxes.shape)
    moved = clip((boxes + shift).astype(np.float32), size)
    return np.stack([_at_least_a_pixel(box, size) for box in moved]) if len(moved) else moved


def _at_least_a_pixel(box: BoxArray, size: tuple[int, int]) -> BoxArray:
    low, high = box[:2].copy(), box[2:].copy()
    limit = np.array([size[1], size[0]], dtype=np.float32)
    high = np.minimum(np.maximum(high, low + 1), limit)
    low = np.maximum(np.minimum(low, high - 1), 0)
    return np.concatenate([low, high]).astype(np.float32)


def pixel_slices(box: BoxArray | Box, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a box touches, cut to an image of `size` (H, W).

    Example:
        >>> pixel_slices(Box(0.5, 1.0, 2.0, 3.2), (10, 10))
        (slice(1, 4, None), slice(0, 2, None))
    """
    height, width = size
    x0, y0, x1, y1 = (float(v) for v in box)

    def pixels(low: float, high: float, limit: int) -> slice:
        return slice(max(int(np.floor(low)), 0), max(min(int(np.ceil(high)), limit), 0))

    return pixels(y0, y1, height), pixels(x0, x1, width)


def from_mask(mask: MaskArray) -> Box | None:
    """The tight box around the True pixels of a mask (H, W); None for an empty mask.

    Example:
        >>> from_mask(np.eye(3, dtype=bool))
        Box(x0=0.0, y0=0.0, x1=3.0, y1=3.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def union_mask(boxes: BoxArray, size: tuple[int, int]) -> MaskArray:
    """(H, W) mask of the pixels that any of the boxes (N, 4) touches."""
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        mask[pixel_slices(box, size)] = True
    return mask


def shrink(image: ImageArray, side: int) -> ImageArray:
    """An image (H, W, 3) whose longer side is at most `side` pixels, by area averages.

    An image that is small enough already is returned as it is; none is enlarged.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    target = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def nearest(labels: RegionArray, size: tuple[int, int]) -> RegionArray:
    """Region numbers (h, w) at another size (H, W).

    Each new pixel takes the number of the old pixel that holds its centre, so no number is ever
    averaged and nothing is shifted.
    """
    if labels.shape == size:
        return labels
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, labels.shape, strict=True)
    )
    resized: RegionArray = labels[rows[:, None], columns]
    return resized
