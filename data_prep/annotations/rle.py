"""Boxes of COCO run lengths, without making the mask.

Runs alternate between background and foreground, down the columns. The text form packs them in
groups of five bits, as the COCO API does; from the fourth run on it holds the difference to the run
before the last. pycocotools reads beyond the end of damaged text (cocodataset/cocoapi#362), so
untrusted files are read here; the tests compare the two.
"""

from typing import Any

from data_prep.annotations import Corners
from data_prep.annotations.screen import hull, number


def rle_corners(rle: dict[str, Any], size: tuple[float, float]) -> Corners:
    """Corners of the foreground of `{"size": [h, w], "counts": list or text}`.

    Args:
        rle: As found in a file; anything wrong with it raises `ValueError`, `TypeError` or
            `KeyError`.
        size: (H, W) of the image, which the run lengths must fill.
    """
    height, width = (int(number(side)) for side in rle["size"])
    if not (height == size[0] and width == size[1]):
        raise ValueError(f"run lengths are of {width} x {height}, not of the image's size")
    counts = rle["counts"]
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("run lengths do not fill the image")
    rows: list[float] = []
    columns: list[float] = []
    start = 0
    for index, run in enumerate(runs):
        if index % 2 and run:
            (first, top), (last, bottom) = divmod(start, height), divmod(start + run - 1, height)
            columns += [first, last + 1]
            rows += [top, bottom + 1] if first == last else [0, height]
        start += run
    return hull(columns, rows)


def _unpacked(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("run lengths are damaged text")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:  # more groups follow
            continue
        if group & 16:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths end in the middle of a number")
    return runs
