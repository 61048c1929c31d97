"""The page a person opens: what was trained on what, how good it is, how sure, where it fails.

One HTML file that needs no server, no script and no network, so that it can be mailed, archived
or attached to a run. Names from datasets are untrusted and stay text. A part of which nothing is
known is a sentence that says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from boxpromptiml.io.files import write_text
from boxpromptiml.records import AUTHENTIC, MANIPULATED, UNSURE
from boxpromptiml.report import text as wording
from boxpromptiml.report.comparison import Comparison, flat
from boxpromptiml.report.gallery import Gallery, Row
from boxpromptiml.report.training import Audit
from boxpromptiml.visualization import overlays

ONE_RUN = "Not compared: name other runs with `boxpromptiml report --compare`."
_MANY_KINDS = 12  # more are no filter, but a list
_TRUTH: overlays.Colour = (86, 180, 233)  # sky blue of Okabe and Ito; `magma` has no blue like it
_PRINTED_ROWS, _PRINTED_ALARMS = 60, 24


@dataclass(frozen=True)
class Plot:
    """A plot of the page.

    Attributes:
        name: A plain word: the section's id and the name of the files in plots/.
        title: Heading.
        svg: The drawing, by `plots.figure_svg`; empty where there is nothing to draw.
        caption: What it shows, or why there is nothing.
        columns: Of the table of its values, for those who do not see it.
        rows: Likewise, as text.
        broad: Whether it needs the page's whole width.
    """

    name: str
    title: str
    svg: str
    caption: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    broad: bool = False


class Group(NamedTuple):
    """The images of one data set, kind or region size; `scores` are in the table's order."""

    name: str
    images: int
    scores: tuple[wording.Shown, ...]


@dataclass(frozen=True)
class GroupTable:
    """Scores of groups of images; the first score is drawn as a bar too."""

    title: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Report:
    """What the page shows. Where a part is a string, that string says why there is none.

    Attributes:
        title: Heading of the page.
        summary: Questions and answers in plain sentences.
        scores: By key, see `wording.METRICS`; others are shown under their key.
        groups: Scores by data set, kind, region size.
        comparison: With other runs.
        plots: In the page's order.
        gallery: The images.
        audits: Of the pseudo-masks that training used.
        worst_pseudo_masks: Pictures of those that overlap least with the ground truth.
        settings: Nested values are shown under dotted names.
        versions: Version of each package that took part.
        checksums: SHA-256 of each file that the numbers depend on.
    """

    title: str
    summary: tuple[tuple[str, str], ...]
    scores: wording.Scores
    groups: tuple[GroupTable, ...] | str
    plots: tuple[Plot, ...]
    gallery: Gallery
    audits: tuple[Audit, ...] | str
    settings: Mapping[str, Any] | str
    versions: Mapping[str, str]
    checksums: Mapping[str, str] | str
    comparison: Comparison | str = ONE_RUN
    worst_pseudo_masks: tuple[Row, ...] = ()


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all; equal reports give equal bytes."""
    write_text(path, render(report))


def render(report: Report) -> str:
    """The page as HTML text."""
    settings = report.settings
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            scores=wording.grouped(report.scores),
            bars=wording.bars(report.scores),
            settings=settings if isinstance(settings, str) else list(flat(settings)),
            filters=report.gallery.kinds if 1 < len(report.gallery.kinds) <= _MANY_KINDS else (),
            printed_rows=_PRINTED_ROWS,
            printed_alarms=_PRINTED_ALARMS,
            colours=_colours(),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("boxpromptiml.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters["score"] = lambda value: wording.format_value(value, "score")
    environment.filters["share"] = lambda value: wording.format_value(value, "share")
    environment.filters["amount"] = wording.amount
    environment.filters["code"] = _code
    return environment


def _finalize(value: object) -> object:
    """Called for everything that a template prints, before it is escaped."""
    return wording.visible(value) if type(value) is str else value


def _code(text: str) -> Markup:
    """What stands between backticks as code."""
    parts = [escape(wording.visible(part)) for part in text.split("`")]
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def _colours() -> dict[str, Any]:
    return {
        "box": _css(overlays.BOX),
        "truth": _css(_TRUTH),
        "levels": [
            _css(overlays.TRIMAP_COLOURS[level]) for level in (AUTHENTIC, UNSURE, MANIPULATED)
        ],
        "heat": [_css(c) for c in overlays.heat(np.linspace(0, 1, 9, dtype=np.float32)).tolist()],
    }


def _css(colour: Sequence[int]) -> Markup:
    return Markup("#{:02x}{:02x}{:02x}").format(*colour)
