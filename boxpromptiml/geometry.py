"""Geometry of boxes, and resizing of images, trimaps and region maps without shifts.

Boxes are (N, 4) float32 x0 y0 x1 y1, half-open pixels of the stored image. A pixel (column c,
row r) covers [c, c+1) x [r, r+1); so the box of one pixel is (c, r, c+1, r+1) and a box of the
whole image is (0, 0, W, H).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Box,
    BoxArray,
    ImageArray,
    MaskArray,
    RegionArray,
    TrimapArray,
)

T = TypeVar("T", np.uint8, np.float32)

_MAX_CHANNELS = 4  # of an image that OpenCV resizes at once


def as_array(boxes: Iterable[Box]) -> BoxArray:
    """Boxes as one (N, 4) float32 array; (0, 4) for none.

    Example:
        >>> as_array([]).shape
        (0, 4)
    """
    return np.array(list(boxes), dtype=np.float32).reshape(-1, 4)


def clip(boxes: BoxArray, size: tuple[int, int]) -> BoxArray:
    """Clip boxes (N, 4) to an image of `size` (H, W)."""
    height, width = size
    limit = np.array([width, height, width, height], dtype=np.float32)
    clipped: BoxArray = np.clip(boxes, 0, limit).astype(np.float32)
    return clipped


def rescale(boxes: BoxArray, old: tuple[int, int], new: tuple[int, int]) -> BoxArray:
    """Rescale boxes (N, 4) from an image of size `old` (H, W) to the same image at size `new`."""
    sy, sx = new[0] / old[0], new[1] / old[1]
    scaled: BoxArray = (boxes * np.array([sx, sy, sx, sy])).astype(np.float32)
    return scaled


def expand(boxes: BoxArray, fraction: float, size: tuple[int, int]) -> BoxArray:
    """Expand boxes (N, 4) by `fraction` of their width and height on every side.

    The result is clipped to an image of `size` (H, W).

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
        boxes: The boxes.
        fraction: In [0, 0.5): opposite sides never cross.
        size: (H, W) of the image; the result lies inside and has sides of at least one pixel.
        rng: Random generator.

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
    """Rows and columns of the pixels that a box touches, clipped to an image of `size` (H, W).

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
    """Mask, of `size` (H, W), of the pixels that any of the boxes (N, 4) touches."""
    mask = np.zeros(size, dtype=bool)
    for box in boxes:
        mask[pixel_slices(box, size)] = True
    return mask


def shrink(image: ImageArray, side: int) -> ImageArray:
    """Shrink an image (H, W, 3) to at most `side` pixels on the longer side, by area averages.

    Smaller images are returned unchanged.
    """
    height, width = shrunk_size(image, side)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def shrunk_size(image: ImageArray, side: int) -> tuple[int, int]:
    """The (h, w) that `shrink` gives an image."""
    height, width = image.shape[:2]
    scale = min(side / max(height, width), 1)
    return max(1, round(height * scale)), max(1, round(width * scale))


def nearest(labels: RegionArray, size: tuple[int, int]) -> RegionArray:
    """Resize region numbers (h, w) to another size (H, W).

    Each new pixel gets the number of the old pixel that contains its centre, so numbers are never
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


def resize_by_area(array: npt.NDArray[T], size: tuple[int, int]) -> npt.NDArray[T]:
    """Resize an image (H, W, C), uint8 or float32, to (h, w, C) by area averages.

    Each new pixel is the mean of the area that it covers, so nothing is shifted. OpenCV averages
    only if no axis grows while the other shrinks; in that case this takes two steps.
    """
    height, width, channels = array.shape
    steps = [size]
    if (size[0] > height) != (size[1] > width):
        steps.insert(0, (size[0], width))
    for rows, columns in steps:
        parts = [
            cv2.resize(
                array[..., first : first + _MAX_CHANNELS],
                (columns, rows),
                interpolation=cv2.INTER_AREA,
            ).reshape(rows, columns, -1)
            for first in range(0, channels, _MAX_CHANNELS)
        ]
        array = (
            np.concatenate(parts, axis=2) if parts else np.empty((rows, columns, 0), array.dtype)
        )
    return array


def resize_trimap(trimap: TrimapArray, size: tuple[int, int]) -> TrimapArray:
    """Resize a trimap (H, W) to (h, w), by the area that each class covers.

    Classes are never averaged and nothing is shifted. A new pixel is manipulated if at least half
    of it is covered by manipulated pixels, authentic if more than half is covered by authentic
    ones, otherwise unsure. Of a manipulated region (connected over edges and corners) that no new
    pixel shows, the pixel that it covers most becomes manipulated, so that no region vanishes.
    """
    if trimap.shape == size:
        return trimap
    manipulated = trimap == MANIPULATED
    edges = tuple(np.arange(new + 1) * old for new, old in zip(size, trimap.shape, strict=True))
    shown = 2 * _covered(manipulated, edges, size) >= trimap.size
    resized = np.where(shown, np.uint8(MANIPULATED), np.uint8(AUTHENTIC))
    if (trimap == UNSURE).any():
        authentic = 2 * _covered(trimap == AUTHENTIC, edges, size) > trimap.size
        resized[~shown & ~authentic] = UNSURE
    for pixel in _pixels_of_lost_regions(manipulated, shown):
        resized[pixel] = MANIPULATED
    return resized


def _covered(
    mask: MaskArray, edges: Sequence[npt.NDArray[np.int64]], size: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Exact area that a mask covers in each cell of a grid.

    Args:
        mask: (H, W).
        edges: Edges of the cells' rows, in units of 1 / h pixel, and columns, of 1 / w pixel.
        size: (h, w).

    Returns:
        (rows, columns) covered areas in units of 1 / (h * w) pixel.
    """
    corners = cv2.integral(mask.astype(np.uint8))
    for axis in (0, 1):
        whole, rest = np.divmod(edges[axis], size[axis])
        rest = np.expand_dims(rest, 1 - axis)
        low = corners.take(whole, axis)
        high = corners.take(np.minimum(whole + 1, mask.shape[axis]), axis)
        corners = low * (size[axis] - rest) + high * rest  # in a pixel the integral is linear
    covered: npt.NDArray[np.int64] = np.diff(np.diff(corners, axis=0), axis=1)
    return covered


def _pixels_of_lost_regions(mask: MaskArray, shown: MaskArray) -> Iterator[tuple[int, int]]:
    """The most covered pixel of each region of a mask (H, W) that `shown` (h, w) lacks."""
    height, width = shown.shape
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    regions = labels.astype(np.int32, copy=False)
    at_centres = nearest(regions, (height, width))
    surely_shown = np.bincount(at_centres[shown], minlength=count) > 0
    for region in np.flatnonzero(~surely_shown[1:]) + 1:
        x, y, *extent = (int(v) for v in boxes[region, :4])
        right, bottom = x + extent[0], y + extent[1]
        part = regions[y:bottom, x:right] == region
        top, row_edges = _touched(y, bottom, mask.shape[0], height)
        left, column_edges = _touched(x, right, mask.shape[1], width)
        covered = _covered(part, (row_edges, column_edges), (height, width))
        rows, columns = covered.shape
        if not (shown[top : top + rows, left : left + columns] & (covered > 0)).any():
            row, column = divmod(int(covered.argmax()), columns)
            yield top + row, left + column


def _touched(start: int, stop: int, old: int, new: int) -> tuple[int, npt.NDArray[np.int64]]:
    """The first new pixel that old pixels start, ..., stop - 1 touch, and the new pixels' edges.

    Edges are clipped to the old pixels and counted from their start, in units of 1 / new of an old
    pixel.
    """
    first, last = start * new // old, -(-stop * new // old)
    edges = np.clip(np.arange(first, last + 1) * old, start * new, stop * new) - start * new
    return first, edges
