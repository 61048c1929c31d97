"""Percentile bootstrap intervals of scores, over groups of sibling images.

Images of one group (versions of one photograph) are not independent, so whole groups are drawn with
replacement, as many as there are. The interval spans percentiles of the score over the draws (Efron
and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It covers the sampling of
images of the same kind, not the variance between training runs or datasets.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from boxpromptiml.metrics.histograms import Floats

Integers = npt.NDArray[np.intp]

RESAMPLES, LEVEL = 2000, 0.95
_CELLS = 1 << 21  # numbers held at a time: 16 MiB of them


class Interval(NamedTuple):
    """A score with its bootstrap interval.

    Attributes:
        value: The score; nan where it is undefined.
        low: Lower end of the interval; nan where there is none.
        high: Upper end of the interval; nan where there is none.
        count: How many images the score is computed over.
    """

    value: float
    low: float
    high: float
    count: int  # type: ignore[assignment] # hides tuple.count

    def to_json(self) -> dict[str, float | int | None]:
        """The fields by name, with None for what is not finite.

        Example:
            >>> Interval(0.5, 0.4, float("nan"), 9).to_json()
            {'value': 0.5, 'low': 0.4, 'high': None, 'count': 9}
        """
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {name: x if math.isfinite(x) else None for name, x in ends.items()} | {
            "count": self.count
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Interval":
        """Read back `to_json`; None becomes nan, other keys are ignored.

        Raises:
            KeyError: If `value`, `low`, `high` or `count` is missing.
        """
        value, low, high = (
            math.nan if fields[name] is None else float(fields[name])
            for name in ("value", "low", "high")
        )
        return cls(value, low, high, int(fields["count"]))


def mean_interval(
    values: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The mean of one score per image, with its interval.

    Args:
        values: (N,) one score per image; nan (undefined) is left out, and so is a group of only
            nan.
        groups: (N,) group of each image; by default every image is its own group.
        resamples: Number of bootstrap draws.
        seed: The same seed gives the same interval.
        level: Fraction of the draws that lie inside the interval.

    Returns:
        Mean and interval; low and high are nan with fewer than two groups, all are nan without a
        score.

    Example:
        >>> mean_interval([0.5, 0.5, 0.5, float("nan")])
        Interval(value=0.5, low=0.5, high=0.5, count=3)
    """
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    array, numbers, count = array[known], _numbered(groups, known), int(known.sum())
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    sums, sizes = np.bincount(numbers, array), np.bincount(numbers)

    def means(drawn: Integers) -> Floats:
        return np.asarray(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))

    low, high = _percentiles(means, len(sums), len(sums), resamples, seed, level)
    return Interval(float(array.mean()), low, high, count)


def difference_interval(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The paired mean of `ours - theirs` over the same images: narrower than two intervals.

    Images that are undefined (nan) on either side are left out. If the interval excludes 0, the
    difference is not explained by the choice of images.

    Args:
        ours: (N,) one score per image.
        theirs: (N,) scores of the same images in the same order.
        groups: As in `mean_interval`.
        resamples: As in `mean_interval`.
        seed: As in `mean_interval`.
        level: As in `mean_interval`.

    Raises:
        ValueError: If the two differ in length.
    """
    first, second = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"scores of {first.shape} and {second.shape} images are not paired")
    return mean_interval(first - second, groups, resamples, seed, level)


def statistic_interval(
    statistic: Callable[[Floats], Floats],
    count: int,
    groups: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Any score of a whole set of images, with its interval.

    Args:
        statistic: Takes how often each image is drawn, (R, N) floats, and returns the score of each
            draw, (R,); nan for a draw without a score, which is left out.
        count: Number of images N.
        groups: As in `mean_interval`.
        resamples: As in `mean_interval`.
        seed: As in `mean_interval`.
        level: As in `mean_interval`.
    """
    if not count:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    numbers = _numbered(groups, np.ones(count, bool))
    total = int(numbers.max()) + 1

    def scores(drawn: Integers) -> Floats:
        rows = np.arange(len(drawn))[:, None] * total
        times = np.bincount((drawn + rows).ravel(), minlength=len(drawn) * total)
        return statistic(times.reshape(len(drawn), total)[:, numbers].astype(np.float64))

    value = float(statistic(np.ones((1, count)))[0])
    low, high = _percentiles(scores, total, max(total, count), resamples, seed, level)
    return Interval(value, low, high, count)


def _numbered(groups: Sequence[str] | None, known: npt.NDArray[np.bool_]) -> Integers:
    """Numbers, from 0, of the groups of images with a score, in order of first appearance."""
    if groups is None:
        return np.arange(int(known.sum()))
    if len(groups) != len(known):
        raise ValueError(f"{len(groups)} groups of {len(known)} images")
    numbers: dict[str, int] = {}
    chosen = (group for group, is_known in zip(groups, known, strict=True) if is_known)
    return np.array([numbers.setdefault(group, len(numbers)) for group in chosen], np.intp)


def _percentiles(
    scores: Callable[[Integers], Floats],
    groups: int,
    width: int,
    resamples: int,
    seed: int,
    level: float,
) -> tuple[float, float]:
    """Both ends of the interval; draws are made in blocks of at most `_CELLS` numbers."""
    if groups < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    rows = max(_CELLS // width, 1)
    found: list[Floats] = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, groups, (min(rows, resamples - start), groups))
        found.append(scores(drawn))
    draws = np.concatenate(found)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
