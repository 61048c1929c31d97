"""Statistics of whole datasets: images of each class, distributions of sizes and qualities."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from boxpromptiml.records import Sample
from data_prep.checks.between_images import Inspected
from data_prep.checks.one_image import FileFacts

_AREAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9)  # fractions of an image
_MEGAPIXELS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_QUALITIES = (0.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)


class Balance(NamedTuple):
    """Numbers of images of each kind in one dataset and split."""

    dataset: str
    split: str
    images: int
    authentic: int  # confirmed by the label
    manipulated: int
    unlabelled: int
    boxed: int  # manipulated, with boxes
    masked: int  # manipulated, with a true mask
    not_annotated: int  # manipulated, with neither


class Distribution(NamedTuple):
    """Counts by range, one list per series.

    Attributes:
        name: What is counted.
        ranges: Ranges of the values, as text.
        series: Counts in the order of the ranges, by name.
    """

    name: str
    ranges: list[str]
    series: dict[str, list[int]]


def balances(samples: Iterable[Sample]) -> list[Balance]:
    """Count images by label and annotation, for every dataset and split in order of appearance."""
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


def distributions(inspected: Sequence[Inspected]) -> list[Distribution]:
    """Distributions over the images, for the report's histograms; empty ones are left out.

    Returns:
        Image size and JPEG quality by class, areas of all boxes and of all masks, each with its
        name, its ranges and the number of values in each.
    """
    files: list[tuple[str, FileFacts]] = [
        (_class(one.sample), one.inspection.file) for one in inspected if one.inspection.file
    ]
    sizes = [(name, file.size[0] * file.size[1] / 1e6) for name, file in files]
    qualities = [(name, float(file.jpeg.quality)) for name, file in files if file.jpeg]
    boxes = [
        ("boxes", (box.x1 - box.x0) * (box.y1 - box.y0) / (s.size[0] * s.size[1]))
        for s in (one.sample for one in inspected)
        for box in s.boxes or ()
    ]
    masks = [
        ("masks", one.inspection.mask_fraction)
        for one in inspected
        if one.inspection.mask_fraction is not None and one.sample.label != 0
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
) -> Distribution:
    """Counts of values by series; each range begins at its low value and ends before the next."""
    edges = [*lows, np.inf]
    ends = [f"{low * scale:g}" for low in lows]
    ranges = [f"{a} to {b}{unit}" for a, b in pairwise(ends)]
    series: dict[str, list[int]] = {}
    for which in sorted({which for which, _ in values}):
        counts, _ = np.histogram([value for one, value in values if one == which], edges)
        series[which] = [int(count) for count in counts]
    return Distribution(name, [*ranges, f"{ends[-1]}{unit} and more"], series)


def _class(sample: Sample) -> str:
    return "unlabelled" if sample.label is None else ("authentic", "manipulated")[sample.label]
