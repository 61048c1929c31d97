"""Formatting of metrics, numbers, intervals and names in a report."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from boxpromptiml.metrics.bootstrap import Interval

Unit = Literal["score", "percent", ""]
Scores = Mapping[str, Interval]  # by the metric's key in metrics.json

_DASH = "–"  # noqa: RUF001 (a typographic dash for a person)
_MINUS = "\N{MINUS SIGN}"
UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)
HEADLINE, BASELINE = "headline", "baseline"


class Metric(NamedTuple):
    """Presentation of a metric on the page.

    Attributes:
        group: Heading of the table it stands in, or `HEADLINE` or `BASELINE`.
        name: Its name.
        meaning: One short sentence.
        unit: A score in [0, 1] with three digits, a fraction shown in percent, or a plain number.
        lower_is_better: Whether a lower value is the better one.
    """

    group: str
    name: str
    meaning: str
    unit: Unit = "score"
    lower_is_better: bool = False


_PIXELS, _IMAGES = "Pixels of manipulated images", "Whole images"
_ALL_MANIPULATED = "Every image called manipulated."
METRICS = {
    "pixel_f1": Metric(HEADLINE, "Pixel F1", "Balance of precision and recall."),
    "iou": Metric(HEADLINE, "Pixel IoU", "Overlap of flagged and manipulated area."),
    "auc": Metric(HEADLINE, "Pixel AUC", "Ranking at any threshold; 0.5 is chance."),
    "empty_f1": Metric(BASELINE, "Flag nothing", "F1 of a map that is empty."),
    "full_f1": Metric(BASELINE, "Flag everything", "F1 of a map that is all ones."),
    "precision": Metric(_PIXELS, "Precision", "Flagged pixels that are manipulated."),
    "recall": Metric(_PIXELS, "Recall", "Manipulated pixels that are flagged."),
    "best_f1": Metric(
        _PIXELS,
        "F1 at the best threshold",
        "One threshold for all, chosen on these images: optimistic.",
    ),
    "combined_f1": Metric(_PIXELS, "Combined F1", "As the preset defines it."),
    "false_alarm_pixels": Metric(
        _IMAGES,
        "Pixel FPR on authentic images",
        "Mean fraction of their pixels that is flagged; 0 is best.",
        "percent",
        lower_is_better=True,
    ),
    "false_alarm_images": Metric(
        _IMAGES,
        "Image FPR on authentic images",
        "Fraction of them called manipulated; 0 is best.",
        "percent",
        lower_is_better=True,
    ),
    "image_auc": Metric(
        _IMAGES, "Image AUC", "Ranking of manipulated before authentic images; 0.5 is chance."
    ),
    "image_f1": Metric(_IMAGES, "Image F1", "Of the decision that an image is manipulated."),
    "all_image_f1": Metric(_IMAGES, "Image F1, all-manipulated baseline", _ALL_MANIPULATED),
    "image_accuracy": Metric(_IMAGES, "Image accuracy", "Correct decisions.", "percent"),
    "all_image_accuracy": Metric(
        _IMAGES, "Image accuracy, all-manipulated baseline", _ALL_MANIPULATED, "percent"
    ),
}


def metric(key: str) -> Metric:
    """Presentation of a metric; one that is not in `METRICS` gets its key as name."""
    return METRICS.get(key, Metric("Other", key, "", ""))


def grouped(scores: Scores) -> dict[str, dict[str, Interval]]:
    """Scores by `Metric.group`, known metrics first and in the order of `METRICS`."""
    groups: dict[str, dict[str, Interval]] = {HEADLINE: {}, BASELINE: {}}
    for key in sorted(scores, key=lambda key: (*METRICS, key).index(key)):
        groups.setdefault(metric(key).group, {})[key] = scores[key]
    return groups


def is_finite(value: float | None) -> bool:
    """Whether a value is a number that can be shown: neither None, nan nor infinite."""
    return value is not None and math.isfinite(value)


def format_value(value: float | None, unit: Unit = "", signed: bool = False) -> str:
    """A number as text; a dash for None, nan and infinities.

    Args:
        value: The number; a fraction in [0, 1] if the unit is percent.
        unit: See `Metric`.
        signed: Write the plus of positive numbers.

    Example:
        >>> format_value(0.12345, "score"), format_value(0.5, "percent"), format_value(7)
        ('0.123', '50.0 %', '7')
    """
    if value is None or not math.isfinite(value):
        return _DASH
    digits = {"score": f"{abs(value):.3f}", "percent": f"{100 * abs(value):.1f} %"}
    text = digits.get(unit, f"{abs(value):.6g}")
    is_zero = not any(digit in text for digit in "123456789")  # no "+0.000"
    sign = _MINUS if value < 0 else "+" if signed else ""
    return text if is_zero else sign + text


def format_bounds(score: Interval, unit: Unit = "score", signed: bool = False) -> str:
    """The interval of a score as `[low, high]`; empty where it has none.

    Example:
        >>> format_bounds(Interval(0.3, 0.25, 0.351, 40)), format_bounds(Interval(1, 1, 2, 9), "")
        ('[0.250, 0.351]', '[1, 2]')
    """
    if not (is_finite(score.low) and is_finite(score.high)):
        return ""
    low, high = (format_value(end, unit, signed) for end in (score.low, score.high))
    return f"[{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def percent(value: float) -> float:
    """A score as percent from 0 to 100 with one decimal; 0 if it is not finite."""
    return round(100 * min(max(value, 0.0), 1.0), 1) if math.isfinite(value) else 0.0


def amount(number: int, one: str, many: str = "") -> str:
    """A count with its noun.

    Example:
        >>> amount(1, "image"), amount(1500, "image"), amount(2, "box", "boxes")
        ('1 image', '1,500 images', '2 boxes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
