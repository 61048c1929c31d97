"""From one row per image to the scores of metrics.json: means, intervals, groups, curves."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from boxpromptiml.metrics import image
from boxpromptiml.metrics.bootstrap import Interval, mean_interval, statistic_interval
from boxpromptiml.metrics.histograms import Floats, ratio
from boxpromptiml.metrics.presets import THRESHOLDS, PixelScores, ScoringPreset
from boxpromptiml.metrics.results import ImageRow

REGION_SIZES = (("below 1%", 0.01), ("1% to 5%", 0.05), ("5% to 15%", 0.15), ("15% and more", 1.01))

_PIXEL_SCORES = {"pixel_f1": "f1", "iou": "iou", "auc": "auc"} | {
    name: name for name in ("precision", "recall")
}
_NAN = float("nan")
_ROC_POINTS = np.r_[0, 1, 2:257:2]  # both ends, and few enough: contracts say at most 256


def region_size(region: float) -> str:
    """The size class of a region by the fraction of the image it covers; empty for no region.

    Example:
        >>> region_size(0.05), region_size(0)
        ('5% to 15%', '')
    """
    if region == 0:
        return ""
    return next(name for name, below in REGION_SIZES if region < below)


def _kind_group(row: ImageRow) -> str:
    """The forgery kind, or a reserved name for a row without one."""
    reserved = "unknown" if row.region else "authentic"
    if row.kind == "unknown" or (row.kind == "authentic" and row.region):
        return f"{row.kind} (kind)"
    return row.kind or reserved


@dataclass
class Curves:
    """Accumulates the curves of all images, one image at a time.

    Attributes:
        f1: F1 curve (256,) of every image that enters the means, for the interval of the best F1.
        rows: Number of the image that each F1 curve belongs to.
        sums: Sum and count at every point, by the curve's name.
        best: F1 of every image at its own best threshold, by the image's number.
    """

    f1: list[npt.NDArray[np.float32]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    sums: dict[str, Floats] = field(default_factory=lambda: defaultdict(lambda: np.zeros((2, 257))))

    def add(self, number: int, scores: PixelScores) -> None:
        """Add the scores of image `number`, counted from 0."""
        self.best.append(scores.best_f1)
        if not math.isnan(scores.f1):
            self.f1.append(scores.f1_curve.astype(np.float32))
            self.rows.append(number)
        if scores.rates is not None:
            for name, values in scores.rates._asdict().items():
                self.sums[name] += (np.nan_to_num(values), ~np.isnan(values))

    def f1_of(self, numbers: npt.NDArray[np.intp]) -> tuple[Floats, npt.NDArray[np.intp]]:
        """The F1 curves (n, 256) of the given images, and the images they are of."""
        chosen = np.isin(self.rows, numbers)
        curves = np.array([self.f1[i] for i in np.flatnonzero(chosen)], np.float64)
        return curves.reshape(-1, len(THRESHOLDS)), np.array(self.rows, np.intp)[chosen]

    def as_points(self) -> dict[str, list[list[float]]]:
        """The mean curves, in the form of metrics.json."""
        mean = {name: ratio(*sums) for name, sums in self.sums.items()}
        every = np.array(self.f1, np.float64).reshape(-1, len(THRESHOLDS))
        f1 = ratio(every.sum(axis=0), len(every))
        points = {"f1": _points(THRESHOLDS, f1), "precision_recall": [], "roc": []}
        if mean:
            # The first point flags every pixel and the last none, where precision is undefined.
            points["precision_recall"] = _points(mean["recall"][1:-1], mean["precision"][1:-1])
            rates = mean["false_positive"][_ROC_POINTS], mean["recall"][_ROC_POINTS]
            points["roc"] = _points(*rates)
        return points


def _points(x: Floats, y: Floats) -> list[list[float]]:
    known = ~(np.isnan(x) | np.isnan(y))
    return np.column_stack([x[known], y[known]]).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class DatasetScores:
    """Rows, curves and settings from which the scores of an evaluation are computed.

    Attributes:
        rows: One row per image.
        curves: Curves of the same images.
        preset: The scoring protocol.
        threshold: An image is flagged where its score is strictly above it.
        resamples: Bootstrap draws per interval.
        seed: Seed of the bootstrap.
        level: Confidence level of the intervals, such as 0.95.
    """

    rows: Sequence[ImageRow]
    curves: Curves
    preset: ScoringPreset
    threshold: float
    resamples: int
    seed: int
    level: float

    def scores(self) -> dict[str, dict[str, Any]]:
        """Value, low, high and count of every score by name; None where it is undefined."""
        return self._scores(range(len(self.rows)))

    def groups(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The scores of every dataset, forgery kind and region size, without undefined ones.

        Returns:
            By `dataset`, `kind` or `region_size`, then by its value: the scores as in `scores`, and
            `count`, the number of its images.
        """
        found: dict[str, dict[str, list[int]]] = {"dataset": {}, "kind": {}, "region_size": {}}
        for number, row in enumerate(self.rows):
            kind, size = _kind_group(row), row.region_size
            names = {"dataset": row.dataset, "kind": kind, "region_size": size}
            for group, name in names.items():
                if name:
                    found[group].setdefault(name, []).append(number)
        order = [name for name, _ in REGION_SIZES]
        found["region_size"] = {
            n: found["region_size"][n] for n in order if n in found["region_size"]
        }
        return {
            group: {name: self._defined(numbers) for name, numbers in members.items()}
            for group, members in found.items()
        }

    def _defined(self, numbers: Sequence[int]) -> dict[str, Any]:
        scores = self._scores(numbers)
        known = {name: score for name, score in scores.items() if score["value"] is not None}
        return known | {"count": len(numbers)}

    def _scores(self, numbers: Iterable[int]) -> dict[str, dict[str, Any]]:
        chosen = np.array(list(numbers), np.intp)
        rows = [self.rows[i] for i in chosen]
        intervals = {
            name: self._mean(rows, [getattr(row, column) for row in rows])
            for name, column in _PIXEL_SCORES.items()
        }
        intervals["best_f1"], best_threshold = self._best_f1(chosen)
        clean = [row.region == 0 for row in rows]
        flagged = [row.image_score > self.threshold for row in rows]
        areas = [row.flagged if c else _NAN for row, c in zip(rows, clean, strict=True)]
        intervals["false_alarm_pixels"] = self._mean(rows, areas)
        image_fpr = [float(f) if c else _NAN for f, c in zip(flagged, clean, strict=True)]
        intervals["false_alarm_images"] = self._mean(rows, image_fpr)
        intervals |= self._image_level(rows)
        found: dict[str, dict[str, Any]] = {n: one.to_json() for n, one in intervals.items()}
        found["best_f1"]["best_f1_threshold"] = best_threshold
        return found

    def _mean(self, rows: Sequence[ImageRow], values: Sequence[float]) -> Interval:
        groups = [row.group for row in rows]
        return mean_interval(values, groups, self.resamples, self.seed, self.level)

    def _best_f1(self, chosen: npt.NDArray[np.intp]) -> tuple[Interval, float | None]:
        """Mean F1 at the best threshold: one per image or one for all, as the preset says.

        The interval of the latter chooses the threshold anew in every draw.
        """
        if self.preset.permutes:
            rows = [self.rows[i] for i in chosen]
            return self._mean(rows, [self.curves.best[i] for i in chosen]), None
        curves, numbers = self.curves.f1_of(chosen)
        groups = [self.rows[i].group for i in numbers]

        def best(weights: Floats) -> Floats:
            return np.asarray((weights @ curves).max(axis=1) / weights.sum(axis=1))

        interval = self._statistic(best, groups)
        threshold = float(THRESHOLDS[curves.mean(axis=0).argmax()]) if len(curves) else None
        return interval, threshold

    def _statistic(self, statistic: Callable[[Floats], Floats], groups: Sequence[str]) -> Interval:
        return statistic_interval(
            statistic, len(groups), groups, self.resamples, self.seed, self.level
        )

    def _image_level(self, rows: Sequence[ImageRow]) -> dict[str, Interval]:
        """Image-level scores over images with a known label; nan without both classes."""
        known = [row for row in rows if row.label is not None]
        groups = [row.group for row in known]
        truth = np.array([row.label == 1 for row in known], bool)
        scores = np.array([row.image_score for row in known], np.float64)
        above = scores > self.threshold
        of_rates = self.preset.image_f1_of_rates
        f1 = image.image_f1_of_rates if of_rates else image.image_f1
        image_f1 = partial(f1, flagged=above, manipulated=truth)
        statistics: dict[str, Callable[[Floats], Floats]] = {
            "image_auc": partial(image.image_auc, scores=scores, manipulated=truth),
            "image_f1": image_f1,
            "image_accuracy": partial(image.image_accuracy, flagged=above, manipulated=truth),
        }
        if of_rates:
            pixel_f1 = np.array([row.f1 for row in known], np.float64)

            def combined(weights: Floats) -> Floats:
                mean = ratio(weights @ np.nan_to_num(pixel_f1), weights @ ~np.isnan(pixel_f1))
                return image.harmonic_mean(mean, image_f1(weights))

            statistics["combined_f1"] = combined
        if truth.all() or not truth.any():
            undefined = Interval(_NAN, _NAN, _NAN, len(known))
            return dict.fromkeys(statistics, undefined)
        return {name: self._statistic(one, groups) for name, one in statistics.items()}
