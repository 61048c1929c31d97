"""How the numbers of a report are worded: names, meanings, units, intervals, one judgement."""

import math
import unicodedata
from collections.abc import Mapping
from typing import Literal, NamedTuple

from boxpromptiml.metrics.bootstrap import Interval

Unit = Literal["score", "share", "min", "GiB", ""]
Scores = Mapping[str, Interval]

_DASH = "–"  # noqa: RUF001 (a typographic dash for a person)
_MINUS = "\N{MINUS SIGN}"
_DIRECTION_MARKS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)
HEADLINE, BASELINE = "headline", "baseline"


class Metric(NamedTuple):
    """How a metric is shown."""

    group: str
    name: str
    meaning: str
    unit: Unit = "score"
    lower_is_better: bool = False


_PIXELS, _IMAGES = "Pixels of manipulated images", "Whole images"
_BOXES, _COST = "Training signal", "Cost"
METRICS = {
    "pixel_f1": Metric(HEADLINE, "Pixel F1", "Balance of precision and recall."),
    "iou": Metric(HEADLINE, "Pixel IoU", "Overlap of flagged and manipulated area."),
    "auc": Metric(HEADLINE, "Pixel AUC", "Ranking at any threshold; 0.5 is chance."),
    "empty_f1": Metric(BASELINE, "Flag nothing", "F1 of a map that is empty."),
    "full_f1": Metric(BASELINE, "Flag everything", "F1 of a map that is all ones."),
    "precision": Metric(_PIXELS, "Precision", "Share of the flagged pixels that are manipulated."),
    "recall": Metric(_PIXELS, "Recall", "Share of the manipulated pixels that are flagged."),
    "best_f1": Metric(
        _PIXELS,
        "F1 at the best threshold",
        "One threshold for all, chosen on these very images: it flatters.",
    ),
    "combined_f1": Metric(_PIXELS, "Combined F1", "As the preset defines it."),
    "false_alarm_pixels": Metric(
        _IMAGES,
        "Falsely flagged area",
        "Mean share of an authentic image; 0 is best.",
        "share",
        lower_is_better=True,
    ),
    "false_alarm_images": Metric(
        _IMAGES,
        "Falsely flagged images",
        "Share of the authentic images; 0 is best.",
        "share",
        lower_is_better=True,
    ),
    "image_auc": Metric(
        _IMAGES, "Image AUC", "Ranking of manipulated before authentic images; 0.5 is chance."
    ),
    "image_f1": Metric(_IMAGES, "Image F1", "Of the decision that an image is manipulated."),
    "all_image_f1": Metric(
        _IMAGES, "Image F1 without looking", "What calling every image manipulated gives."
    ),
    "image_accuracy": Metric(_IMAGES, "Image accuracy", "Share of right decisions.", "share"),
    "all_image_accuracy": Metric(
        _IMAGES,
        "Image accuracy without looking",
        "What calling every image manipulated gives.",
        "share",
    ),
    "box_iou": Metric(_BOXES, "Box IoU", "Overlap of the coarse boxes with the ground truth."),
    "pseudo_iou": Metric(
        _BOXES, "Pseudo-mask IoU", "Overlap of the teacher's masks with the ground truth."
    ),
    "minutes": Metric(_COST, "Time", "Wall-clock time of the run.", "min"),
    "peak_memory_gib": Metric(_COST, "Peak memory", "The most that the run held at once.", "GiB"),
}


class Shown(NamedTuple):
    """A score in words, and its place on a scale from 0 to 100 percent (None: not known)."""

    name: str
    value: str
    bounds: str
    meaning: str
    images: int
    at: float | None
    low: float | None
    high: float | None


def plain(values: Mapping[str, float | int | None]) -> dict[str, Interval]:
    """Numbers of which no interval is known, as scores."""
    nan = math.nan
    return {key: Interval(nan if v is None else v, nan, nan, 0) for key, v in values.items()}


def finite(value: float | None) -> float | None:
    """The value as a float, or None for what cannot be shown as a number."""
    return None if value is None or not math.isfinite(value) else float(value)


def format_value(value: float | None, unit: Unit = "", signed: bool = False) -> str:
    """A number as a person reads it; a dash for None, nan and infinities.

    Example:
        >>> format_value(0.12345, "score"), format_value(0.5, "share"), format_value(7)
        ('0.123', '50.0 %', '7')
    """
    number = finite(value)
    if number is None:
        return _DASH
    text = f"{100 * abs(number):.1f} %" if unit == "share" else f"{abs(number):.6g}"
    if unit not in ("", "share"):
        text = f"{abs(number):.3f}" if unit == "score" else f"{abs(number):.2f} {unit}"
    nothing = not any(digit in text for digit in "123456789")  # no "+0.000"
    sign = _MINUS if number < 0 else "+" if signed else ""
    return text if nothing else sign + text


def format_bounds(score: Interval, unit: Unit = "score", signed: bool = False) -> str:
    """The interval as `[low, high]`; empty where it is not known.

    Example:
        >>> format_bounds(Interval(0.3, 0.25, 0.351, 40)), format_bounds(Interval(1, 1, 2, 9), "")
        ('[0.250, 0.351]', '[1, 2]')
    """
    if finite(score.low) is None or finite(score.high) is None:
        return ""
    low, high = (format_value(end, unit, signed) for end in (score.low, score.high))
    return f"[{low.removesuffix(' %')}, {high.removesuffix(' %')}]"


def with_bounds(score: Interval | None, unit: Unit = "score", signed: bool = False) -> str:
    """Value and interval in one: `0.300 [0.250, 0.351]`."""
    if score is None:
        return _DASH
    return f"{format_value(score.value, unit, signed)} {format_bounds(score, unit, signed)}".strip()


def show(key: str, score: Interval) -> Shown:
    """A score under its metric's name; one that is no known metric under its own."""
    metric = METRICS.get(key, Metric("Other", key, "", ""))
    places = [_percent(end) for end in (score.value, score.low, score.high)]
    value, bounds = format_value(score.value, metric.unit), format_bounds(score, metric.unit)
    return Shown(metric.name, value, bounds, metric.meaning, score.count, *places)


def _percent(value: float) -> float | None:
    number = finite(value)
    return None if number is None else round(100 * min(max(number, 0.0), 1.0), 1)


def grouped(scores: Scores) -> dict[str, list[Shown]]:
    """Every score by group, known metrics first and in their order."""
    groups: dict[str, list[Shown]] = {HEADLINE: [], BASELINE: []}
    known = [key for key in METRICS if key in scores]
    for key in known + [key for key in scores if key not in METRICS]:
        group = METRICS[key].group if key in METRICS else "Other"
        groups.setdefault(group, []).append(show(key, scores[key]))
    return groups


def bars(scores: Scores) -> list[Shown]:
    """F1 of the localizer and of the maps that flag nothing or everything."""
    shown = {"pixel_f1": "This localizer"}
    shown |= {key: metric.name for key, metric in METRICS.items() if metric.group == BASELINE}
    rows = [(name, show(key, scores[key])) for key, name in shown.items() if key in scores]
    return [row._replace(name=name) for name, row in rows]


def verdict(scores: Scores) -> str:
    """One sentence: is it better than flagging nothing or everything; empty if unknown."""
    score = scores.get("pixel_f1")
    names = {"empty_f1": "nothing", "full_f1": "everything"}
    known = {name: finite(scores[key].value) for key, name in names.items() if key in scores}
    baselines = {name: value for name, value in known.items() if value is not None}
    if score is None or finite(score.value) is None or not baselines:
        return ""
    best = max(baselines.values())
    relation = "better" if score.value > best else "not better"
    if score.value > best >= score.low:
        relation = "not clearly better"
    return (
        f"With a mean pixel F1 of {with_bounds(score)} on manipulated images, this localizer is "
        f"{relation} than flagging {' or '.join(baselines)} ({best:.3f})."
    )


def judge(key: str, difference: Interval) -> str:
    """`better`, `worse` or `not clear`, as the interval of a difference lies about 0."""
    if finite(difference.low) is None or finite(difference.high) is None:
        return "not clear"
    if difference.low <= 0 <= difference.high:
        return "not clear"
    lower_is_better = key in METRICS and METRICS[key].lower_is_better
    return "better" if (difference.low > 0) != lower_is_better else "worse"


def amount(number: int, one: str, many: str = "") -> str:
    """A count with its noun.

    Example:
        >>> amount(1, "image"), amount(1500, "image"), amount(2, "box", "boxes")
        ('1 image', '1,500 images', '2 boxes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listing(parts: list[str]) -> str:
    """Words as a sentence lists them.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def visible(text: str) -> str:
    r"""Text with control characters and marks of writing direction spelt out.

    Both could make a name look like another, or turn the words around it.

    Example:
        >>> visible("photo\u202egnp.exe")
        'photo\\u202egnp.exe'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(c):04x}" if c in _DIRECTION_MARKS or unicodedata.category(c) == "Cc" else c
        for c in text
    )
