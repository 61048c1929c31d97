"""The page of a check: one HTML file without script or request. Names stay text."""

import base64
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.visualization.overlays import thumbnail
from data_prep.checks.across import Twins
from data_prep.checks.findings import printable, title
from data_prep.checks.summary import NOT_VERIFIED, Summary
from data_prep.checks.totals import Histogram, Leak

_ROWS = 100  # of a list; all of them are in check.json
_PICTURES = 12  # pairs of near-duplicates that are shown
_SIDE = 300  # pixels of a picture


class Shown(NamedTuple):
    """One side of a pair; `uri` is empty if the file cannot be read any more."""

    path: str
    split: str
    label: str
    uri: str


def render(summary: Summary) -> str:
    """The page as HTML text; equal findings give equal text."""
    environment = Environment(
        loader=PackageLoader("data_prep.checks", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    environment.filters["title"] = title
    return environment.get_template("check.html.jinja").render(
        summary=summary,
        rejected=summary.by_reason("rejected"),
        warnings=summary.by_reason("warning"),
        leaks=summary.warned_leaks(),
        splits=list(dict.fromkeys(leak.split for leak in summary.leaks)),
        leak_rows=_leak_rows(summary.leaks),
        histograms=[(histogram, _bars(histogram)) for histogram in summary.histograms],
        pairs=[(two, _sides(two)) for two in summary.twins[:_PICTURES]],
        most_rows=_ROWS,
        not_verified=NOT_VERIFIED,
    )


def _leak_rows(leaks: tuple[Leak, ...]) -> list[tuple[str, list[Leak]]]:
    """One row a property, one column a split."""
    rows: dict[str, list[Leak]] = {}
    for leak in leaks:
        rows.setdefault(leak.property, []).append(leak)
    return list(rows.items())


def _bars(histogram: Histogram) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """By range: series, count, and length in percent of the series' highest.

    Empty ranges below the first and above the last value are left out.
    """
    highest = {name: max(counts) or 1 for name, counts in histogram.series.items()}
    filled = [row for row in range(len(histogram.ranges)) if _any(histogram, row)]
    return [
        (
            histogram.ranges[row],
            [
                (name, counts[row], 100 * counts[row] / highest[name])
                for name, counts in histogram.series.items()
            ],
        )
        for row in range(min(filled, default=0), max(filled, default=-1) + 1)
    ]


def _any(histogram: Histogram, row: int) -> bool:
    return any(counts[row] for counts in histogram.series.values())


def _sides(two: Twins) -> list[Shown]:
    shown = []
    for one in (two.first, two.second):
        label = {0: "authentic", 1: "manipulated"}.get(one.sample.label or 0, "")
        label = "unlabelled" if one.sample.label is None else label
        shown.append(Shown(one.look.path, one.sample.split, label, _picture(one.look.path)))
    return shown


def _picture(path: str) -> str:
    try:
        image, _ = images.read_image(path)
    except RejectedInput:
        return ""
    data = images.encode_jpeg(thumbnail(image, _SIDE), 80)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
