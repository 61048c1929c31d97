"""COCO run lengths: checked, packed, and their boxes without building the mask.

Runs alternate between background and foreground, down the columns. The text form packs them in
groups of five bits, as the COCO API does; from the fourth run on it holds the difference to the run
before the last. pycocotools reads beyond the end of damaged text (cocodataset/cocoapi#362), so
untrusted files are read by this code; tests compare the two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.annotations import Corners
from data_prep.annotations.screen import hull, number


def checked_runs(rle: dict[str, Any], size: tuple[float, float]) -> list[int]:
    """The runs of `{"size": [h, w], "counts": list or text}`, background first.

    Args:
        rle: As found in a file; malformed content raises `ValueError`, `TypeError` or
            `KeyError`.
        size: (H, W) of the image, which the run lengths must fill.

    Raises:
        ValueError, TypeError, KeyError: If anything in it is wrong.
    """
    height, width = (int(number(side)) for side in rle["size"])
    if not (height == size[0] and width == size[1]):
        raise ValueError(f"run lengths are of {width} x {height}, not of the image's size")
    counts = rle["counts"]
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("run lengths do not fill the image")
    return runs


def rle_corners(rle: dict[str, Any], size: tuple[float, float]) -> Corners:
    """Corners of the foreground of run lengths; arguments and errors as of `checked_runs`."""
    runs = checked_runs(rle, size)
    height = int(size[0])
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


def runs_of(pixels: npt.NDArray[np.bool_]) -> list[int]:
    """The lengths of the runs of equal pixels (N,), background first, which may be empty.

    Example:
        >>> runs_of(np.array([True, False, False]))
        [0, 1, 2]
    """
    edges = np.flatnonzero(np.diff(pixels, prepend=False))
    return [int(run) for run in np.diff([0, *edges, pixels.size])]


def packed(runs: Sequence[int]) -> str:
    """The text form of runs, as the COCO API writes it.

    Example:
        >>> packed([0, 24])
        '0h0'
    """
    text: list[str] = []
    for index, run in enumerate(runs):
        rest = run - runs[index - 2] if index > 2 else run
        while not -16 <= rest < 16:  # the last group's top bit is the sign
            text.append(chr(48 + (rest & 31 | 32)))
            rest >>= 5
        text.append(chr(48 + (rest & 31)))
    return "".join(text)


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
