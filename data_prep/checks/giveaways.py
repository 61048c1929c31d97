"""Whether a simple property of the files gives the label away.

A property of the file, such as its format, says nothing about the content. If it separates the
classes of a split, a network learns the property instead of forgeries.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.metrics.image import image_auc
from boxpromptiml.records import Sample
from data_prep.checks.between_images import Inspected
from data_prep.checks.one_image import FileFacts

MIN_IMAGES = 10  # of either class, to say anything
WARN_AUC = 0.6
_BINS = 20

ClassArray = npt.NDArray[np.bool_]  # (N,), True = manipulated


class Leak(NamedTuple):
    """How well one property of the files separates the classes of a split.

    Attributes:
        auc: 0.5 is chance; None where a class has too few images that have the property.
        warn: Whether the separation is beyond chance.
    """

    split: str
    property: str
    auc: float | None
    warn: bool

    def sentence(self) -> str:
        """The result as a sentence."""
        known = "–" if self.auc is None else f"{self.auc:.2f}"  # noqa: RUF001 (a dash)
        return f"{self.split}: {self.property} alone gives AUC {known}"


def leaks(inspected: Sequence[Inspected]) -> list[Leak]:
    """How well each property of the files alone tells manipulated from authentic images.

    Returns:
        A result for every property in every split, suspicious or not, in the splits' order of
        appearance. Images without a label are left out.
    """
    found: list[Leak] = []
    for split in dict.fromkeys(one.sample.split for one in inspected):
        files = [
            (one.sample, one.inspection.file)
            for one in inspected
            if one.sample.split == split and one.inspection.file and one.sample.label is not None
        ]
        for name, of in _CATEGORIES.items():
            having = [(sample, of(file)) for sample, file in files if of(file) is not None]
            found.append(_leak(split, name, having))
        for name, number in _NUMBERS.items():
            values = binned([number(file) for _, file in files])
            pairs = zip((sample for sample, _ in files), values, strict=True)
            found.append(_leak(split, name, list(pairs)))
    return found


def _leak(split: str, name: str, having: Sequence[tuple[Sample, Hashable]]) -> Leak:
    manipulated = np.array([sample.label == 1 for sample, _ in having], np.bool_)
    groups = [f"{sample.dataset}/{sample.group}" for sample, _ in having]
    area = separation([value for _, value in having], manipulated, groups)
    ours = int(manipulated.sum())
    warn = area is not None and is_leak(area, ours, len(having) - ours)
    return Leak(split, name, None if area is None else round(area, 4), warn)


# By name, how a property is taken from a file; None: this file has none.
_CATEGORIES: dict[str, Callable[[FileFacts], Hashable]] = {
    "file format": lambda file: file.format,
    "file name's ending": lambda file: file.ending,
    "pixel mode": lambda file: file.mode,
    "exact size": lambda file: file.size,
    "JPEG quality": lambda file: file.jpeg.quality if file.jpeg else None,
    "JPEG tables": lambda file: file.jpeg.tables if file.jpeg else None,
    "chroma subsampling": lambda file: file.jpeg.subsampling if file.jpeg else None,
}
_NUMBERS: dict[str, Callable[[FileFacts], float]] = {
    "number of pixels": lambda file: file.size[0] * file.size[1],
    "bytes per pixel": lambda file: file.bytes / (file.size[0] * file.size[1]),
}


def separation(
    values: Sequence[Hashable], manipulated: ClassArray, groups: Sequence[str]
) -> float | None:
    """AUC with which a property alone separates manipulated from authentic images.

    The score of a value is the fraction of manipulated images among those with that value, counted
    over the groups of the other half. So a property with a different value for every image is no
    better than chance, and no order of the values is assumed.

    Args:
        values: The property of each image (N).
        manipulated: (N,) label of each image.
        groups: Group of each image; siblings are never in both halves.

    Returns:
        AUC in [0, 1], 0.5 is chance; None if a class has too few images.
    """
    if min(manipulated.sum(), (~manipulated).sum()) < MIN_IMAGES:
        return None
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(value, len(numbers)) for value in values])
    half = np.array([_in_first_half(group) for group in groups], np.bool_)
    found: list[tuple[float, int]] = []
    for ours in (half, ~half):
        base = manipulated[~ours].mean() if (~ours).any() else 0.5
        fraction = np.bincount(codes[~ours], manipulated[~ours], len(numbers)) + base
        fraction /= np.bincount(codes[~ours], minlength=len(numbers)) + 1
        area = float(
            image_auc(np.ones((1, ours.sum())), fraction[codes[ours]], manipulated[ours])[0]
        )
        if not math.isnan(area):  # neither class is missing
            found.append((area, int(ours.sum())))
    total = sum(weight for _, weight in found)
    return sum(area * weight for area, weight in found) / total if total else None


def _in_first_half(group: str) -> bool:
    """Assign a group to a half by a hash: consecutive names must not alternate between halves."""
    return sha256_bytes(group.encode(errors="surrogatepass"))[0] < "8"


def is_leak(area: float, manipulated: int, authentic: int) -> bool:
    """Whether an AUC is large, and more than three standard errors above chance.

    Args:
        area: The AUC, in [0, 1].
        manipulated: Number of manipulated images that it is of, 1 or more.
        authentic: Number of authentic ones, 1 or more.
    """
    error = math.sqrt((manipulated + authentic + 1) / (12 * manipulated * authentic))
    return area >= max(WARN_AUC, 0.5 + 3 * error)


def binned(values: Sequence[float]) -> list[Hashable]:
    """Bin numbers into up to 20 classes of about equal count."""
    array = np.array(values, np.float64)
    if not len(array):
        return []
    edges = np.unique(np.quantile(array, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return list(np.searchsorted(edges, array, side="right").tolist())
