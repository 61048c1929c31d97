"""The page of a report: training, scores, intervals, failures.

One HTML file that needs no server, no script and no network, so that it can be mailed, archived or
attached to a run. All sentences are in the templates. Names from datasets are untrusted and always
escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup, escape

from boxpromptiml.io.files import write_text
from boxpromptiml.io.pages import page_environment, visible
from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.records import AUTHENTIC, MANIPULATED, UNSURE
from boxpromptiml.report import text
from boxpromptiml.report.comparison import PAIRED, Comparison, flat, judge
from boxpromptiml.report.gallery import Gallery, GalleryImage
from boxpromptiml.report.memory import Memory
from boxpromptiml.report.run import GroupTable
from boxpromptiml.report.training import Training
from boxpromptiml.visualization import overlays

_MAX_FILTERS = 12  # kinds; more are no filter, but a list
_TRUTH: overlays.Colour = (86, 180, 233)  # sky blue of Okabe and Ito; `magma` has no blue like it
_PRINTED_IMAGES, _PRINTED_AUTHENTIC = 60, 24
_LEAD = 6  # rows above the summary; one click shows the others


@dataclass(frozen=True)
class Plot:
    """A plot of the page; its title and caption are in plots.jinja, by its name.

    Attributes:
        name: Id of the section, and name of the files in plots/.
        svg: The drawing, by `plots.figure_svg`.
        columns: Columns of the table of its values, for readers who cannot see it.
        rows: The values, as text.
        split: The images it shows, if they are not those of the report.
    """

    name: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    split: str = ""


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Attributes:
        title: Heading of the page.
        checkpoint: Name of the checkpoint that was scored.
        evaluation: Its evaluation.
        scores: By key, see `text.METRICS`; others are shown under their key.
        groups: Scores by dataset, kind, region size.
        plots: In the page's order.
        gallery: The images.
        training: The training, or why it is unknown.
        settings: Nested values are shown under dotted names.
        versions: Version of each package involved.
        checksums: SHA-256 of each file that the numbers depend on.
        comparison: With other runs; None if there are none.
        worst_pseudo_masks: Training pseudo-masks with the lowest overlap with the ground truth.
        memory: What the student's memory responds to; None without one.
    """

    title: str
    checkpoint: str
    evaluation: Evaluation
    scores: text.Scores
    groups: tuple[GroupTable, ...]
    plots: tuple[Plot, ...]
    gallery: Gallery
    training: Training | str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    checksums: Mapping[str, str]
    comparison: Comparison | None = None
    worst_pseudo_masks: tuple[GalleryImage, ...] = ()
    memory: Memory | None = None


def write_report(report: Report, path: Path) -> None:
    """Write the page atomically; equal reports give equal bytes."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The page as HTML text."""
    kinds = report.gallery.kinds
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            scores=text.grouped(report.scores),
            settings=list(flat(report.settings)),
            filters=kinds if 1 < len(kinds) <= _MAX_FILTERS else (),
            lead=_LEAD,
            printed_images=_PRINTED_IMAGES,
            printed_authentic=_PRINTED_AUTHENTIC,
            colours=_colours(),
        )
    )


@cache
def _environment() -> Environment:
    environment = page_environment("boxpromptiml.report")
    environment.globals |= {"metric": text.metric, "judge": judge, "paired": PAIRED}
    environment.tests["finite"] = text.is_finite
    environment.filters |= {
        "number": text.format_value,
        "bounds": text.format_bounds,
        "percent": text.percent,
        "amount": text.amount,
        "code": _code,
    }
    return environment


def _code(words: str) -> Markup:
    """Text with code spans for backticks."""
    parts = [escape(visible(part)) for part in words.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def _colours() -> dict[str, Any]:
    return {
        "box": _css(overlays.BOX),
        "truth": _css(_TRUTH),
        "trimap": [
            _css(overlays.TRIMAP_COLOURS[value]) for value in (AUTHENTIC, UNSURE, MANIPULATED)
        ],
        "heat": [_css(c) for c in overlays.heat(np.linspace(0, 1, 9, dtype=np.float32)).tolist()],
    }


def _css(colour: Sequence[int]) -> Markup:
    return Markup("#{:02x}{:02x}{:02x}").format(*colour)
