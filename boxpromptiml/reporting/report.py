"""The page a person opens: what was trained on what, how good it is, and where it fails.

One HTML file that needs no server, no script and no network, so that it can be mailed, archived
or attached to a run. Names from datasets are untrusted and stay text.
"""

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from boxpromptiml import images
from boxpromptiml.provenance import write_text
from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Box,
    ImageArray,
    LevelArray,
    MaskArray,
    ProbArray,
)
from boxpromptiml.reporting import overlays, wording
from boxpromptiml.reporting.plots import f1_curve_svg

_THUMBNAIL = 400  # pixels; a panel is about 230 wide on a desktop, and screens are dense
_LOW_F1 = 0.5


@dataclass(frozen=True)
class GalleryRow:
    """One image of the gallery; all arrays have its stored size (H, W).

    Attributes:
        id: Of the sample; shown as text, whatever it contains.
        kind: Forgery kind, or what else tells images apart; may be empty.
        image: (H, W, 3) RGB.
        boxes: The coarse boxes, float pixels, half-open.
        pseudo_mask: What the teacher made of them; None where there is none.
        prob: What the localizer says, in [0, 1].
        truth: True = manipulated.
        f1: Pixel F1 of this image; nan for an authentic one.
        iou: Pixel IoU of this image; nan likewise.
    """

    id: str
    kind: str
    image: ImageArray
    boxes: tuple[Box, ...]
    pseudo_mask: LevelArray | None
    prob: ProbArray
    truth: MaskArray
    f1: float
    iou: float


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: Heading of the page.
        summary: One or two sentences: what was trained on what.
        metrics: By key, see `wording.METRICS`; others are shown as they are. None, nan: a dash.
        curve: Thresholds and the mean F1 at each.
        gallery: In any order; the page shows the worst F1 first.
        settings: Nested values are shown under dotted names.
        versions: Version of each package that took part.
    """

    title: str
    summary: str
    metrics: dict[str, float | int | None]
    curve: tuple[list[float], list[float]] | None
    gallery: tuple[GalleryRow, ...]
    settings: dict[str, Any]
    versions: dict[str, str]


class Panel(NamedTuple):
    """One picture of a gallery row; `uri` is empty where there is nothing to show."""

    caption: str
    alt: str
    uri: str
    width: int
    height: int


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all; equal reports give equal bytes."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("boxpromptiml", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: wording.format_value(value, "score")
    baseline = wording.finite(report.metrics.get("full_f1"))
    return environment.get_template("report.html.jinja").render(
        report=report,
        verdict=wording.verdict(report.metrics),
        metrics=wording.grouped(report.metrics),
        bars=wording.bars(report.metrics),
        curve_svg=f1_curve_svg(*report.curve, baseline) if report.curve else "",
        curve=list(zip(*report.curve, strict=True)) if report.curve else [],
        best=_best(report.curve),
        rows=[(row, _panels(row)) for row in sorted(report.gallery, key=_worst_first)],
        failures=_failures(report.gallery),
        kinds=_kinds(report.gallery),
        settings=list(_flat(report.settings)),
        box_colour=_css(overlays.BOX),
        level_colours=[_css(overlays.LEVELS[k]) for k in (AUTHENTIC, UNSURE, MANIPULATED)],
        heat_colours=[_css(c) for c in overlays.heat(np.linspace(0, 1, 9, dtype=np.float32))],
    )


def _best(curve: tuple[list[float], list[float]] | None) -> tuple[float, float] | None:
    """Threshold and F1 of the curve's highest point."""
    points = [(f1, t) for t, f1 in zip(*curve, strict=True) if math.isfinite(f1)] if curve else []
    f1, threshold = max(points, default=(math.nan, math.nan))
    return (threshold, f1) if points else None


def _worst_first(row: GalleryRow) -> tuple[bool, float, str]:
    known = math.isfinite(row.f1)
    return not known, row.f1 if known else 0.0, row.id


def _failures(gallery: tuple[GalleryRow, ...]) -> str:
    scores = [row.f1 for row in gallery if math.isfinite(row.f1)]
    if not scores:
        return ""
    low = sum(score < _LOW_F1 for score in scores)
    return f"{low} of the {len(scores)} manipulated images shown have an F1 below {_LOW_F1}."


def _kinds(gallery: tuple[GalleryRow, ...]) -> list[tuple[str, int, float]]:
    """Kind, count and mean F1 of the images shown that have an F1, worst first."""
    scores: dict[str, list[float]] = {}
    for row in gallery:
        if row.kind and math.isfinite(row.f1):
            scores.setdefault(row.kind, []).append(row.f1)
    means = [(kind, len(f1s), sum(f1s) / len(f1s)) for kind, f1s in scores.items()]
    return sorted(means, key=lambda mean: (mean[2], mean[0]))


def _panels(row: GalleryRow) -> list[Panel]:
    found = f"{row.truth.mean():.1%} of the pixels are manipulated"
    count = len(row.boxes)
    boxed = f"The image with {count} coarse {'box' if count == 1 else 'boxes'}"
    truth = np.where(row.truth, np.uint8(MANIPULATED), np.uint8(AUTHENTIC))
    return [
        _picture("Image", f"Image {row.id}", row.image, photo=True),
        _picture("Coarse box", boxed, overlays.draw_boxes(row.image, row.boxes), photo=True),
        _pseudo_panel(row),
        _picture(
            "Prediction",
            f"Heat map of the prediction, highest probability {row.prob.max():.2f}",
            overlays.heat(row.prob),
            photo=True,
        ),
        _picture("Ground truth", f"Ground truth: {found}", overlays.levels_image(truth)),
    ]


def _pseudo_panel(row: GalleryRow) -> Panel:
    levels = row.pseudo_mask
    if levels is None:
        height, width = row.truth.shape
        return Panel("Pseudo-mask", "none for this image", "", width, height)
    sure, unsure = (levels == MANIPULATED).mean(), (levels == UNSURE).mean()
    alt = f"Pseudo-mask: {sure:.1%} of the pixels manipulated, {unsure:.1%} unsure"
    return _picture("Pseudo-mask", alt, overlays.levels_image(levels))


def _picture(caption: str, alt: str, image: ImageArray, photo: bool = False) -> Panel:
    small = overlays.thumbnail(image, _THUMBNAIL)
    data = images.encode_jpeg(small, 85) if photo else images.encode_png(small)
    kind = "jpeg" if photo else "png"
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Panel(caption, alt, uri, small.shape[1], small.shape[0])


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _css(colour: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
