"""Whether a simple property of the files gives the label away: then a network learns that."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.metrics import histograms

MIN_IMAGES = 10  # of either class, to say anything
WARN_AUC = 0.6
_BINS = 20

LabelArray = npt.NDArray[np.bool_]  # (N,), True = manipulated


def separation(
    values: Sequence[Hashable], manipulated: LabelArray, groups: Sequence[str]
) -> float | None:
    """AUC with which a property alone tells manipulated from authentic images of other groups.

    Each value scores the share of manipulated images that have it, among the groups of the other
    half; so a property of many values, each of one image, is no better than chance, and neither an
    order nor a direction is assumed.

    Args:
        values: Of the property, one an image.
        manipulated: (N,).
        groups: Siblings, which are never on both sides.

    Returns:
        In [0, 1], 0.5 is chance; None if a class has too few images.
    """
    if min(manipulated.sum(), (~manipulated).sum()) < MIN_IMAGES:
        return None
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(value, len(numbers)) for value in values])
    half = np.array([_in_first_half(group) for group in groups], np.bool_)
    found: list[tuple[float, int]] = []
    for ours in (half, ~half):
        base = manipulated[~ours].mean() if (~ours).any() else 0.5
        share = np.bincount(codes[~ours], manipulated[~ours], len(numbers)) + base
        share /= np.bincount(codes[~ours], minlength=len(numbers)) + 1
        area = auc(share[codes[ours]], manipulated[ours])
        if area is not None:
            found.append((area, int(ours.sum())))
    total = sum(weight for _, weight in found)
    return sum(area * weight for area, weight in found) / total if total else None


def _in_first_half(group: str) -> bool:
    """By a hash without structure: names that count up must not alternate between the halves."""
    return sha256_bytes(group.encode(errors="surrogatepass"))[0] < "8"


def auc(scores: npt.NDArray[np.float64], positive: LabelArray) -> float | None:
    """Area under the ROC curve, ties counted by half; None if a class is missing."""
    _, level = np.unique(scores, return_inverse=True)
    ours = np.bincount(level[positive], minlength=level.max(initial=0) + 1)
    theirs = np.bincount(level[~positive], minlength=level.max(initial=0) + 1)
    area = float(histograms.auc(ours, theirs))
    return None if math.isnan(area) else area


def is_leak(area: float, manipulated: int, authentic: int) -> bool:
    """Whether an AUC is large, and more than three standard errors above chance."""
    error = math.sqrt((manipulated + authentic + 1) / (12 * manipulated * authentic))
    return area >= max(WARN_AUC, 0.5 + 3 * error)


def binned(values: Sequence[float]) -> list[Hashable]:
    """Numbers as one of up to 20 classes of about equal count."""
    array = np.array(values, np.float64)
    if not len(array):
        return []
    edges = np.unique(np.quantile(array, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return list(np.searchsorted(edges, array, side="right").tolist())
