"""Numbers of the whole: classes, distributions, and properties that give the label away."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from boxpromptiml.records import Sample
from data_prep.checks.across import Looked
from data_prep.checks.one_image import FileFacts
from data_prep.checks.separation import binned, is_leak, separation

_AREAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9)  # shares of an image
_MEGAPIXELS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_QUALITIES = (0.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)


class Balance(NamedTuple):
    """How many images of a dataset and split there are of each kind."""

    dataset: str
    split: str
    images: int
    authentic: int  # confirmed by the label
    manipulated: int
    unlabelled: int
    boxed: int  # manipulated, with boxes
    masked: int  # manipulated, with a true mask
    not_annotated: int  # manipulated, with neither


class Histogram(NamedTuple):
    """Counts by range, one a series.

    Attributes:
        name: What is counted.
        ranges: Of the values, in words.
        series: Counts in the order of the ranges, by name.
    """

    name: str
    ranges: list[str]
    series: dict[str, list[int]]


class Leak(NamedTuple):
    """How well one property of the files tells the classes of a split apart.

    Attributes:
        auc: 0.5 is chance; None where a class has too few images that have the property.
        warn: Whether that is more than chance allows.
    """

    split: str
    property: str
    auc: float | None
    warn: bool

    def sentence(self) -> str:
        """What it means, for a person."""
        known = "–" if self.auc is None else f"{self.auc:.2f}"  # noqa: RUF001 (a dash)
        return f"{self.split}: {self.property} alone gives AUC {known}"


def balances(samples: Iterable[Sample]) -> list[Balance]:
    """By dataset and split, in the order in which they come."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for sample in samples:
        manipulated = sample.label == 1
        count = counts.setdefault((sample.dataset, sample.split), Counter())
        count.update(
            images=1,
            authentic=sample.label == 0,
            manipulated=manipulated,
            unlabelled=sample.label is None,
            boxed=manipulated and bool(sample.boxes),
            masked=manipulated and sample.mask is not None,
            not_annotated=manipulated and sample.boxes is None and sample.mask is None,
        )
    numbers = Balance._fields[2:]
    return [
        Balance(dataset, split, *(count[name] for name in numbers))
        for (dataset, split), count in counts.items()
    ]


def histograms(looked: Sequence[Looked]) -> list[Histogram]:
    """Image size, box area, mask area, JPEG quality; those without any value are left out."""
    files: list[tuple[str, FileFacts]] = [
        (_class(one.sample), one.look.file) for one in looked if one.look.file
    ]
    sizes = [(name, file.size[0] * file.size[1] / 1e6) for name, file in files]
    qualities = [(name, float(file.jpeg.quality)) for name, file in files if file.jpeg]
    boxes = [
        ("boxes", (box.x1 - box.x0) * (box.y1 - box.y0) / (s.size[0] * s.size[1]))
        for s in (one.sample for one in looked)
        for box in s.boxes or ()
    ]
    masks = [
        ("masks", one.look.mask_fraction)
        for one in looked
        if one.look.mask_fraction is not None and one.sample.label != 0
    ]
    parts = (
        ("Image size, megapixels", sizes, _MEGAPIXELS, 1.0, ""),
        ("Box area, percent of the image", boxes, _AREAS, 100.0, " %"),
        ("Mask area, percent of the image", masks, _AREAS, 100.0, " %"),
        ("JPEG quality (nearest IJG tables)", qualities, _QUALITIES, 1.0, ""),
    )
    return [_histogram(*part) for part in parts if part[1]]


def _histogram(
    name: str, values: Sequence[tuple[str, float]], lows: Sequence[float], scale: float, unit: str
) -> Histogram:
    """Counts of values by series; each range begins at its low value and ends before the next."""
    edges = [*lows, np.inf]
    ends = [f"{low * scale:g}" for low in lows]
    ranges = [f"{a} to {b}{unit}" for a, b in pairwise(ends)]
    series: dict[str, list[int]] = {}
    for which in sorted({which for which, _ in values}):
        counts, _ = np.histogram([value for one, value in values if one == which], edges)
        series[which] = [int(count) for count in counts]
    return Histogram(name, [*ranges, f"{ends[-1]}{unit} and more"], series)


def _class(sample: Sample) -> str:
    return "unlabelled" if sample.label is None else ("authentic", "manipulated")[sample.label]


def leaks(looked: Sequence[Looked]) -> list[Leak]:
    """Every property in every split, in the order of the splits."""
    found: list[Leak] = []
    for split in dict.fromkeys(one.sample.split for one in looked):
        files = [
            (one.sample, one.look.file)
            for one in looked
            if one.sample.split == split and one.look.file and one.sample.label is not None
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
