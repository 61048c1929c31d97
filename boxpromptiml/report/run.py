"""A run together with the scores of one of its checkpoints."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxpromptiml.evaluation.runs import Run
from boxpromptiml.metrics.bootstrap import Interval, mean_interval
from boxpromptiml.metrics.presets import PRESETS
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.page import Group, GroupTable
from boxpromptiml.report.text import METRICS, UNKNOWN, show

_GROUPS = {"dataset": "By data set", "kind": "By forgery kind", "region_size": "By region size"}
_GROUP_SCORES = ("pixel_f1", "iou", "auc", "precision", "recall", "false_alarm_pixels")


@dataclass(frozen=True)
class ScoredRun:
    """A run and the evaluation of one of its checkpoints.

    Attributes:
        run: Its folder and configuration.
        folder: Of the evaluation.
        checkpoint: That was scored.
        evaluation: The content of the folder.
    """

    run: Run
    folder: Path
    checkpoint: Path
    evaluation: Evaluation

    @property
    def scores(self) -> dict[str, Interval]:
        """Of metrics.json, of maps that flag nothing or everything, of one answer for all."""
        found = _intervals(self.evaluation.metrics.get("scores", {}))
        regions = [row.region for row in self.evaluation.rows if row.region > 0]
        if regions and self.evaluation.metrics.get("preset") == "default":
            groups = [row.group for row in self.evaluation.rows if row.region > 0]
            found["empty_f1"] = Interval(0.0, math.nan, math.nan, len(regions))
            found["full_f1"] = mean_interval([2 * r / (1 + r) for r in regions], groups)
        return found | _all_manipulated(self.evaluation)


def _all_manipulated(evaluation: Evaluation) -> dict[str, Interval]:
    """Image F1 and accuracy of calling every image manipulated; none without both classes."""
    labels = [row.label for row in evaluation.rows]
    manipulated, authentic = labels.count(1), labels.count(0)
    if not manipulated or not authentic:
        return {}
    count = manipulated + authentic
    f1 = 2 * manipulated / (count + manipulated)
    preset = evaluation.metrics.get("preset")
    if preset in PRESETS and PRESETS[preset].image_f1_of_rates:
        f1 = 0.0  # no authentic image is told
    return {
        "all_image_f1": Interval(f1, math.nan, math.nan, count),
        "all_image_accuracy": Interval(manipulated / count, math.nan, math.nan, count),
    }


def _intervals(scores: Mapping[str, Any]) -> dict[str, Interval]:
    """Scores of metrics.json; null becomes nan."""
    found = {}
    for name, row in scores.items():
        if isinstance(row, dict):
            ends = (row.get(end) for end in ("value", "low", "high"))
            value, low, high = (math.nan if end is None else float(end) for end in ends)
            found[name] = Interval(value, low, high, int(row.get("count", 0)))
    return found


def group_tables(metrics: Mapping[str, Any]) -> tuple[GroupTable, ...]:
    """The groups of metrics.json: lowest F1 first, region sizes from small to large."""
    tables = []
    for key, title in _GROUPS.items():
        members = {n: (_intervals(m), m) for n, m in metrics.get("groups", {}).get(key, {}).items()}
        if key != "dataset":  # an authentic image has neither kind nor region
            members = {n: found for n, found in members.items() if "pixel_f1" in found[0]}
        columns = [c for c in _GROUP_SCORES if any(c in scores for scores, _ in members.values())]
        rows = [
            Group(name, raw.get("count", 0), tuple(show(c, s.get(c, UNKNOWN)) for c in columns))
            for name, (s, raw) in members.items()
        ]
        if key != "region_size":
            rows.sort(key=lambda group: (group.scores[0].at is None, group.scores[0].at or 0.0))
        if rows:
            tables.append(GroupTable(title, tuple(METRICS[c].name for c in columns), tuple(rows)))
    return tuple(tables)
