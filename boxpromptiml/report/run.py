"""A run together with the scores of one of its checkpoints."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from boxpromptiml.evaluation.runs import Run
from boxpromptiml.metrics.bootstrap import Interval, mean_interval
from boxpromptiml.metrics.presets import PRESETS
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.text import UNKNOWN, Scores, is_finite

_GROUPINGS = ("dataset", "kind", "region_size")
_COLUMNS = ("pixel_f1", "iou", "auc", "precision", "recall", "false_alarm_pixels")
_MIN_IMAGES = 10  # of a group whose F1 is worth naming


@dataclass(frozen=True)
class GroupTable:
    """Scores of groups of images.

    Attributes:
        by: What groups them: `dataset`, `kind` or `region_size`.
        columns: Keys of the scores, see `text.METRICS`.
        rows: Number of images and scores of each group, by name.
    """

    by: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[int, Scores]]

    @property
    def lowest(self) -> tuple[str, Interval] | None:
        """The group with the lowest pixel F1, among groups of ten or more images.

        None if there are fewer than two of these.
        """
        found = [(name, scores.get("pixel_f1", UNKNOWN)) for name, (_, scores) in self.rows.items()]
        known = [(n, f1) for n, f1 in found if is_finite(f1.value) and f1.count >= _MIN_IMAGES]
        return min(known, key=lambda row: row[1].value) if len(known) > 1 else None


@dataclass(frozen=True)
class ScoredRun:
    """A run and the evaluation of one of its checkpoints.

    Attributes:
        run: Its folder and configuration.
        folder: Folder of the evaluation.
        checkpoint: The checkpoint that was scored.
        evaluation: The content of the folder.
    """

    run: Run
    folder: Path
    checkpoint: Path
    evaluation: Evaluation

    @cached_property
    def scores(self) -> dict[str, Interval]:
        """Scores by key: those of metrics.json, and of baselines.

        The baselines are the pixel F1 of maps that flag nothing (`empty_f1`) and everything
        (`full_f1`), under the default preset, and image F1 and accuracy of calling every image
        manipulated (`all_image_f1`, `all_image_accuracy`), if both classes are present.
        """
        found = _intervals(self.evaluation.metrics["scores"])
        regions = [row.region for row in self.evaluation.rows if row.region > 0]
        if regions and self.evaluation.metrics["preset"] == "default":
            groups = [row.group for row in self.evaluation.rows if row.region > 0]
            found["empty_f1"] = Interval(0.0, math.nan, math.nan, len(regions))
            found["full_f1"] = mean_interval([2 * r / (1 + r) for r in regions], groups)
        return found | _all_manipulated(self.evaluation)

    @cached_property
    def group_tables(self) -> tuple[GroupTable, ...]:
        """Groups of metrics.json, where there are several: lowest F1 first, regions by size."""
        tables = []
        for by in _GROUPINGS:
            groups = self.evaluation.metrics["groups"].get(by, {})
            rows: dict[str, tuple[int, Scores]] = {
                name: (group["count"], _intervals(group)) for name, group in groups.items()
            }
            if by != "dataset":  # an authentic image has neither kind nor region
                rows = {name: row for name, row in rows.items() if "pixel_f1" in row[1]}
            if by != "region_size":
                rows = dict(sorted(rows.items(), key=lambda row: _f1_or_infinity(row[1][1])))
            columns = tuple(c for c in _COLUMNS if any(c in scores for _, scores in rows.values()))
            if len(rows) > 1:  # one group has the scores of all
                tables.append(GroupTable(by, columns, rows))
        return tuple(tables)


def _f1_or_infinity(scores: Scores) -> float:
    f1 = scores.get("pixel_f1", UNKNOWN).value
    return f1 if is_finite(f1) else math.inf


def _intervals(scores: dict[str, object]) -> dict[str, Interval]:
    return {n: Interval.from_json(one) for n, one in scores.items() if isinstance(one, dict)}


def _all_manipulated(evaluation: Evaluation) -> dict[str, Interval]:
    labels = [row.label for row in evaluation.rows]
    manipulated, authentic = labels.count(1), labels.count(0)
    if not manipulated or not authentic:
        return {}
    count = manipulated + authentic
    f1 = 2 * manipulated / (count + manipulated)
    preset = evaluation.metrics["preset"]
    if preset in PRESETS and PRESETS[preset].image_f1_of_rates:
        f1 = 0.0  # the specificity is 0
    return {
        "all_image_f1": Interval(f1, math.nan, math.nan, count),
        "all_image_accuracy": Interval(manipulated / count, math.nan, math.nan, count),
    }
