"""Scores of one map from two histograms: the levels of its manipulated and its authentic pixels.

A probability map of an 8-bit PNG has 256 levels, so the two histograms hold all that F1, IoU, AUC
and every curve depend on: the scores are exact, ties included, and cost one pass over the pixels
and a few hundred additions, whatever the image's size. A 16-bit map has 65536 levels. Which
probability a level means is the map's own (`values`, rising); a pixel is flagged when its
probability is strictly above the threshold.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from boxpromptiml.records import MaskArray

Floats = npt.NDArray[np.float64]

_CHUNK = 1 << 18  # pixels at a time, so that indices stay in the cache


class LevelCounts(NamedTuple):
    """Numbers (L,) of manipulated and authentic pixels of one image at each level, lowest first."""

    manipulated: npt.NDArray[np.int64]
    authentic: npt.NDArray[np.int64]


class Flagged(NamedTuple):
    """Flagged pixels for every cut: with cut k, levels k and higher are flagged.

    Both have one entry more than there are levels: cut 0 flags every pixel, the last cut none.
    """

    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]


def count_values(
    levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    truth: MaskArray,
    kept: MaskArray | None = None,
) -> LevelCounts:
    """Count the levels of a map: 256 bins for 8-bit levels, 65536 for 16-bit ones.

    Args:
        levels: (H, W).
        truth: (H, W), True = manipulated.
        kept: (H, W), pixels that count; all by default.

    Raises:
        ValueError: The sizes differ.

    Example:
        >>> found = count_values(np.array([[0, 9]], np.uint8), np.array([[False, True]]))
        >>> int(found.manipulated[9]), int(found.authentic[0]), len(found.authentic)
        (1, 1, 256)
    """
    if levels.shape != truth.shape:
        raise ValueError(f"map {levels.shape} and truth {truth.shape} differ in size")
    bins = int(np.iinfo(levels.dtype).max) + 1
    flat, mask = levels.reshape(-1), truth.reshape(-1)
    chosen = None if kept is None else kept.reshape(-1)
    total = np.zeros(2 * bins, np.int64)
    # Short indices take a third less time.
    kind: type[np.unsignedinteger[Any]] = np.uint16 if 2 * bins <= 2**16 else np.uint32
    for start in range(0, len(flat), _CHUNK):
        part = slice(start, start + _CHUNK)
        index = flat[part].astype(kind)
        index += mask[part] * kind(bins)
        total += np.bincount(index if chosen is None else index[chosen[part]], minlength=2 * bins)
    return LevelCounts(manipulated=total[bins:], authentic=total[:bins])


def stretched(histogram: LevelCounts, values: Floats) -> LevelCounts:
    """The histogram of the map stretched to 0 ... 255 by its own minimum and maximum.

    A probability p becomes level floor(255 (p - lowest) / (highest - lowest)); a map that was
    stretched before stays as it is. A constant map becomes 0 all over.

    Args:
        histogram: Of the map.
        values: (L,) the probability of each level, rising.

    Returns:
        Counts of 256 levels, evenly spaced.
    """
    used = np.flatnonzero(histogram.manipulated + histogram.authentic)
    if not len(used):
        return LevelCounts(np.zeros(256, np.int64), np.zeros(256, np.int64))
    lowest, highest = values[used[0]], values[used[-1]]
    span = (highest - lowest) or 1.0
    # Whole numbers must not fall below themselves by rounding; 65536 even steps are far coarser.
    levels = np.floor(255 * (values[used] - lowest) / span + 1e-9).astype(np.intp)
    both = (np.zeros(256, np.int64), np.zeros(256, np.int64))
    for new, old in zip(both, histogram, strict=True):
        np.add.at(new, levels, old[used])
    return LevelCounts(*both)


def flagged(histogram: LevelCounts) -> Flagged:
    """True and false positives for every cut."""
    tp, fp = (
        np.concatenate([np.cumsum(counts[::-1])[::-1], np.zeros(1, np.int64)])
        for counts in histogram
    )
    return Flagged(tp, fp)


def cuts(thresholds: npt.ArrayLike, values: Floats) -> npt.NDArray[np.intp]:
    """The lowest level that is flagged at each threshold; the number of levels where none is.

    Args:
        thresholds: Of any shape.
        values: (L,) the probability of each level, rising.

    Example:
        >>> cuts([-1, 0, 0.5, 0.2, 1], np.arange(256) / 255).tolist()
        [0, 1, 128, 52, 256]
    """
    return np.searchsorted(values, np.asarray(thresholds, np.float64), side="right")


def auc(manipulated: npt.NDArray[Any], authentic: npt.NDArray[Any]) -> Floats:
    """Area under the ROC curve from counts by level; ties count one half.

    The fraction of pairs (manipulated, authentic) where the manipulated one has the higher level:
    the Mann-Whitney U statistic divided by the number of pairs. Exact for integer counts.

    Args:
        manipulated: (..., L) counts or weights, lowest level first.
        authentic: (..., L), of the same levels.

    Returns:
        (...) in [0, 1]; nan where a class is absent.

    Example:
        >>> float(auc(np.array([0, 1, 2]), np.array([1, 1, 0])))
        0.9166666666666666
    """
    twice_below = 2 * np.cumsum(authentic, axis=-1) - authentic  # a tie counts once
    pairs = manipulated.sum(axis=-1) * authentic.sum(axis=-1)
    return ratio((manipulated * twice_below).sum(axis=-1), 2 * pairs)


def f1(tp: npt.ArrayLike, fp: npt.ArrayLike, positives: int, epsilon: float = 0.0) -> Floats:
    """F1 = 2 TP / (2 TP + FP + FN + epsilon); nan where that is 0 / 0.

    Args:
        tp: True positives, of any shape.
        fp: False positives, of the same shape.
        positives: Manipulated pixels, TP + FN.
        epsilon: Added to the denominator.
    """
    right, wrong = np.asarray(tp, np.float64), np.asarray(fp, np.float64)
    return ratio(2 * right, right + wrong + positives, epsilon)


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike, epsilon: float = 0.0) -> Floats:
    """Quotient part / (whole + epsilon) of arrays of any shapes that broadcast; nan for x / 0."""
    above, below = np.asarray(part, np.float64), np.asarray(whole, np.float64) + epsilon
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result
