"""Draws maps, masks and boxes, in colours that colour-blind readers can tell apart.

Hues are from Okabe and Ito, "Color Universal Design" (2008), https://jfly.uni-koeln.de/color/.
No file is read or written here.
"""

from collections.abc import Iterable
from functools import cache

import cv2
import numpy as np

from boxpromptiml.geometry import as_array, clip, pixel_slices, shrink
from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Box,
    ImageArray,
    MaskArray,
    ProbArray,
    TrimapArray,
)

Colour = tuple[int, int, int]  # RGB

FLAGGED: Colour = (213, 94, 0)  # vermillion
BOX: Colour = (240, 228, 66)  # yellow
BOX_EDGE: Colour = (0, 0, 0)
TRIMAP_COLOURS: dict[int, Colour] = {
    AUTHENTIC: (0, 0, 0),
    UNSURE: (0, 114, 178),  # blue, about as far from black as from white in luminance
    MANIPULATED: (255, 255, 255),
}
_TINT = 0.4  # weight of the colour inside a flagged region; its contour is opaque


def overlay(
    image: ImageArray,
    prob_or_mask: ProbArray | MaskArray,
    boxes: Iterable[Box] = (),
    threshold: float = 0.5,
) -> ImageArray:
    """Tint the flagged pixels of an image, outline them, and draw boxes on top.

    The outline lies inside the flagged region, so all other pixels keep their value, except under
    the lines of boxes.

    Args:
        image: (H, W, 3) RGB; not modified.
        prob_or_mask: (H, W) probability in [0, 1], or a mask, which needs no threshold.
        boxes: Float pixels of the image, half-open.
        threshold: A probability strictly above it is flagged.

    Raises:
        ValueError: If the map and the image differ in size.
    """
    if prob_or_mask.shape != image.shape[:2]:
        raise ValueError(f"map {prob_or_mask.shape} and image {image.shape[:2]} differ in size")
    flagged = np.asarray(
        prob_or_mask if prob_or_mask.dtype == np.bool_ else prob_or_mask > threshold, np.bool_
    )
    reach = 2 * _line_width(image.shape[0], image.shape[1]) + 1
    inner = cv2.erode(
        flagged.astype(np.uint8),
        np.ones((reach, reach), np.uint8),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,  # a region that the frame cuts gets a contour there too
    )
    tinted = np.round((1 - _TINT) * np.arange(256)[:, None] + _TINT * np.array(FLAGGED))
    canvas: ImageArray = np.asarray(cv2.LUT(image, tinted.astype(np.uint8)[None]), np.uint8)
    np.copyto(canvas, image, where=~flagged[..., None])
    canvas[flagged & (inner == 0)] = FLAGGED
    _draw_boxes(canvas, boxes)
    return canvas


def _draw_boxes(canvas: ImageArray, boxes: Iterable[Box]) -> None:
    size = (canvas.shape[0], canvas.shape[1])
    width = _line_width(*size)
    for box in clip(as_array(boxes), size):
        window = canvas[pixel_slices(box, size)]
        _frame(window, width, BOX)
        _frame(window[width:-width, width:-width], (width + 1) // 2, BOX_EDGE)


def heat(prob: ProbArray) -> ImageArray:
    """Probabilities (H, W) in Matplotlib's colour map `magma`: black 0 to pale yellow 1.

    Raises:
        ValueError: If a value is outside [0, 1] or nan.
    """
    if prob.size and not (prob.min() >= 0 and prob.max() <= 1):
        raise ValueError("prob must be in [0, 1]; apply the sigmoid before")
    return _magma()[np.round(prob * 255).astype(np.uint8)]


@cache
def _magma() -> ImageArray:
    """The colour map `magma` (256, 3) uint8."""
    from matplotlib import colormaps  # noqa: PLC0415 - slow, and `localize` draws no heat

    return np.asarray(colormaps["magma"](np.arange(256), bytes=True)[:, :3])


def trimap_image(levels: TrimapArray) -> ImageArray:
    """A pseudo-mask (H, W) in black (authentic), blue (unsure) and white (manipulated).

    Raises:
        ValueError: If a value is not 0, 127 or 255.
    """
    known = np.zeros(256, dtype=np.bool_)
    table = np.zeros((256, 3), dtype=np.uint8)
    for level, colour in TRIMAP_COLOURS.items():
        known[level], table[level] = True, colour
    if not known[levels].all():
        raise ValueError(f"a pseudo-mask holds {sorted(TRIMAP_COLOURS)} only")
    return table[levels]


def thumbnail(image: ImageArray, side: int) -> ImageArray:
    """An image (H, W, 3) whose longer side is at most `side` pixels; see `geometry.shrink`."""
    return shrink(image, side)


def _line_width(height: int, width: int) -> int:
    """Line width in pixels: 3 for 256 rows, 38 for 3000, so that lines survive a thumbnail."""
    return max(round(min(height, width) / 80), 1)


def _frame(window: ImageArray, width: int, colour: Colour) -> None:
    """Paint the outermost `width` pixels of a view of an image, in place."""
    window[:width] = colour
    window[-width:] = colour
    window[:, :width] = colour
    window[:, -width:] = colour
