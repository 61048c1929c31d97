"""How the numbers of a report are worded: names, meanings, units, and one sentence of judgement."""

import math
from typing import Literal, NamedTuple

Metrics = dict[str, float | int | None]

_DASH = "–"  # noqa: RUF001 (a typographic dash for a person)


class Metric(NamedTuple):
    """How a metric is shown."""

    group: str
    name: str
    meaning: str
    unit: Literal["score", "share", "min", "GiB"] = "score"


_IMAGES, _BOXES, _COST = "Whole images", "Training signal", "Cost"
METRICS = {
    "pixel_f1": Metric("headline", "Pixel F1", "Balance of precision and recall."),
    "iou": Metric("headline", "Pixel IoU", "Overlap of flagged and manipulated area."),
    "auc": Metric("headline", "Pixel AUC", "Ranking at any threshold; 0.5 is chance."),
    "empty_f1": Metric("baseline", "Flag nothing", "F1 of a map that is empty."),
    "full_f1": Metric("baseline", "Flag everything", "F1 of a map that is all ones."),
    "false_alarm_pixels": Metric(
        _IMAGES, "Falsely flagged area", "Mean share of an authentic image; 0 is best.", "share"
    ),
    "false_alarm_images": Metric(
        _IMAGES, "Falsely flagged images", "Share of the authentic images; 0 is best.", "share"
    ),
    "image_auc": Metric(
        _IMAGES, "Image AUC", "Ranking of manipulated before authentic images; 0.5 is chance."
    ),
    "image_f1": Metric(_IMAGES, "Image F1", "Of the decision that an image is manipulated."),
    "image_accuracy": Metric(_IMAGES, "Image accuracy", "Share of right decisions.", "share"),
    "box_iou": Metric(_BOXES, "Box IoU", "Overlap of the coarse boxes with the ground truth."),
    "pseudo_iou": Metric(
        _BOXES, "Pseudo-mask IoU", "Overlap of the teacher's masks with the ground truth."
    ),
    "minutes": Metric(_COST, "Time", "Wall-clock time of the run.", "min"),
    "peak_memory_gib": Metric(_COST, "Peak memory", "The most that the run held at once.", "GiB"),
}


def format_value(value: float | None, unit: str = "") -> str:
    """A metric as a person reads it; a dash for None, nan and infinities.

    Example:
        >>> format_value(0.12345, "score"), format_value(0.5, "share"), format_value(7)
        ('0.123', '50.0 %', '7')
    """
    number = finite(value)
    if number is None:
        return _DASH
    if unit in ("score", "share"):
        return f"{number:.3f}" if unit == "score" else f"{100 * number:.1f} %"
    return f"{number:.2f} {unit}" if unit else f"{value:.6g}"


def finite(value: float | None) -> float | None:
    """The value as a float, or None for what cannot be shown as a number."""
    return None if value is None or not math.isfinite(value) else float(value)


def grouped(metrics: Metrics) -> dict[str, list[tuple[str, str, str]]]:
    """Name, value and meaning of every metric, by group, known ones first."""
    groups: dict[str, list[tuple[str, str, str]]] = {"headline": [], "baseline": []}
    for key, metric in METRICS.items():
        if key in metrics:
            value = format_value(metrics[key], metric.unit)
            groups.setdefault(metric.group, []).append((metric.name, value, metric.meaning))
    for key, number in metrics.items():
        if key not in METRICS:
            groups.setdefault("Other", []).append((key, format_value(number), ""))
    return groups


def bars(metrics: Metrics) -> list[tuple[str, str, float]]:
    """Name, F1 and length in percent of the localizer and the maps that know nothing."""
    names = {"pixel_f1": "This localizer"}
    names |= {key: metric.name for key, metric in METRICS.items() if metric.group == "baseline"}
    shown = [(name, metrics[key]) for key, name in names.items() if key in metrics]
    return [(name, format_value(f1, "score"), 100 * (finite(f1) or 0)) for name, f1 in shown]


def verdict(metrics: Metrics) -> str:
    """One sentence: is the localizer better than maps that never look; empty if unknown."""
    score = finite(metrics.get("pixel_f1"))
    known = [finite(metrics.get(key)) for key in ("empty_f1", "full_f1")]
    baselines = [value for value in known if value is not None]
    if score is None or not baselines:
        return ""
    best = max(baselines)
    relation = "better" if score > best else "not better"
    return (
        f"With a mean pixel F1 of {score:.3f} on manipulated images, this localizer is {relation} "
        f"than the best map that never looks at an image ({best:.3f})."
    )
