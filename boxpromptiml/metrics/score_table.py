"""The table that `evaluate` prints: every score with its interval, as plain text."""

from collections.abc import Sequence
from typing import Any

_COLUMNS = {"pixel_f1": "pixel F1", "iou": "IoU", "auc": "AUC", "false_alarm_pixels": "false alarm"}
_OTHERS = {
    "precision": "pixel precision",
    "recall": "pixel recall",
    "best_f1": "best pixel F1",
    "false_alarm_images": "authentic images flagged",
    "image_auc": "image AUC",
    "image_f1": "image F1",
    "image_accuracy": "image accuracy",
    "combined_f1": "combined F1",
}


def score_table(metrics: dict[str, Any]) -> str:
    """The content of metrics.json as a table: all images, then data sets, kinds, region sizes.

    False alarm is the mean share of an authentic image that is flagged.
    """
    level = f"{100 * metrics['bootstrap']['level']:g} %"
    counts = metrics["images"]
    lines = [["", "images", *_COLUMNS.values()]]
    lines.append(_line("all", metrics["scores"], sum(counts.values())))
    for group, members in metrics["groups"].items():
        if group != "dataset" or len(members) > 1:
            lines += [
                _line(f"{group.replace('_', ' ')} {name}", scores, scores["count"])
                for name, scores in members.items()
            ]
    scores = metrics["scores"]
    known = [(text, scores[name]) for name, text in _OTHERS.items() if name in scores]
    others = [["", "images", "score"]] + [[t, str(s["count"]), _cell(s)] for t, s in known]
    head = (
        f"preset {metrics['preset']}, threshold {metrics['threshold']:g}: "
        f"{counts['manipulated']} manipulated, {counts['authentic']} authentic, "
        f"{counts['unknown']} unknown; [{level} intervals]\n"
    )
    source = {"predictions": "predictions.jsonl", "maximum": "each map's maximum"}
    middle = f"image scores: {source[metrics['image_score']]}"
    return f"{head}{_aligned(lines)}\n{middle}\n{_aligned(others)}"


def _line(name: str, scores: dict[str, Any], count: int) -> list[str]:
    return [name, str(count), *(_cell(scores.get(column)) for column in _COLUMNS)]


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
