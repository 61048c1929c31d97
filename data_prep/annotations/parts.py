"""The connected parts of masks, as annotation files describe them."""

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import Box, MaskArray
from data_prep.annotations.rle import packed, runs_of


def split_parts(mask: MaskArray) -> list[tuple[Box, MaskArray]]:
    """The connected parts (8 neighbours) of a mask (H, W): the box of each, and the mask in it."""
    _, labels, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    parts: list[tuple[Box, MaskArray]] = []
    for number, (x, y, width, height, _) in enumerate(found[1:].tolist(), start=1):
        inside = labels[y : y + height, x : x + width] == number
        parts.append((Box(x, y, x + width, y + height), inside))
    return parts


def edge_polygon(box: Box, part: MaskArray) -> npt.NDArray[np.float64]:
    """The outer edge of a connected part as a polygon (N, 2) x y along the borders of its pixels.

    OpenCV joins the centres of pixels. In a mask of twice the size they are a quarter of a pixel
    inside the border, so that rounding outwards gives the border itself.
    """
    doubled = np.repeat(np.repeat(part.astype(np.uint8), 2, axis=0), 2, axis=1)
    (found,), _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = (found[:, 0] + 1) // 2
    is_new = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
    return np.asarray(corners[is_new] + np.array([box.x0, box.y0]))


def full_rle(box: Box, part: MaskArray, size: tuple[int, int]) -> str:
    """Compressed run lengths (COCO) of a part by `split_parts`, in an image of `size` (H, W)."""
    x0, y0, x1, y1 = (int(side) for side in box)
    columns = np.zeros((size[0], x1 - x0), np.bool_)
    columns[y0:y1] = part
    runs = runs_of(columns.ravel(order="F"))
    runs[0] += x0 * size[0]
    if rest := (size[1] - x1) * size[0]:
        runs += [0] * (len(runs) % 2 == 0)
        runs[-1] += rest
    return packed(runs)
