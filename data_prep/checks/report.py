"""The results of a check as JSON, as a few lines of text, and as an HTML page.

The page is one file without scripts or requests; file names are escaped.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.pages import page_environment
from boxpromptiml.visualization.overlays import thumbnail
from data_prep.checks.between_images import Twins
from data_prep.checks.findings import Finding, Severity, printable, title
from data_prep.checks.giveaways import MIN_IMAGES, Leak
from data_prep.checks.totals import Balance, Distribution

_SHOWN = 7  # reasons of a severity in the text
_ROWS = 100  # of a list; all of them are in check.json
_PICTURES = 12  # pairs of near-duplicates that are shown
_SIDE = 300  # pixels of a picture


@dataclass(frozen=True)
class CheckReport:
    """Results of a check.

    Attributes:
        manifests: Manifests as the user named them.
        images: Number of rows checked.
        verified: Whether masks were decoded.
        findings: Without repetitions.
        twins: Near-duplicates across splits and datasets; each is one of the findings too.
        balances: Images of each class by dataset and split.
        distributions: Distributions of sizes, areas and qualities over all images.
        leaks: How well every property separates the classes of every split.
    """

    manifests: tuple[str, ...]
    images: int
    verified: bool
    findings: tuple[Finding, ...]
    twins: tuple[Twins, ...]
    balances: tuple[Balance, ...]
    distributions: tuple[Distribution, ...]
    leaks: tuple[Leak, ...]

    def by_reason(self, severity: Severity) -> list[tuple[str, list[Finding]]]:
        """Findings of a severity by reason, the most frequent reason first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            if finding.severity == severity:
                groups.setdefault(finding.reason, []).append(finding)
        return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))

    def counts(self, severity: Severity) -> dict[str, int]:
        """Number of findings of a severity by reason."""
        return dict(Counter(f.reason for f in self.findings if f.severity == severity))

    def known_leaks(self) -> bool:
        """Whether any split has enough images of both classes to detect a leak."""
        return any(leak.auc is not None for leak in self.leaks)

    def warned_leaks(self) -> list[Leak]:
        """Properties that separate the classes, the strongest first."""
        return sorted((leak for leak in self.leaks if leak.warn), key=lambda leak: -(leak.auc or 0))


NOT_VERIFIED = (
    "Of masks only headers were read: what they hold was not looked at. Run it again with --verify."
)


def as_json(report: CheckReport) -> dict[str, Any]:
    """The whole report as JSON, for programs."""
    return {
        "manifests": report.manifests,
        "images": report.images,
        "verified": report.verified,
        "rejected": report.counts("rejected"),
        "warnings": report.counts("warning"),
        "classes": [balance._asdict() for balance in report.balances],
        "leaks": [leak._asdict() for leak in report.leaks],
        "histograms": [one._asdict() for one in report.distributions],
        "near_duplicates": [
            {
                "first": two.first.inspection.path,
                "second": two.second.inspection.path,
                "splits": [two.first.sample.split, two.second.sample.split],
                "distance": two.distance,
                "correlation": round(two.correlation, 4),
            }
            for two in report.twins
        ],
        "findings": [finding._asdict() for finding in report.findings],
    }


def as_text(report: CheckReport) -> str:
    """The report as at most 30 lines of text, with control characters in file names escaped."""
    return "".join(f"{printable(line)}\n" for line in _lines(report))


def _lines(report: CheckReport) -> Iterator[str]:
    shown = report.balances[:3]
    for balance in shown:
        yield (
            f"{balance.dataset}, {balance.split}: {balance.images} images, {balance.authentic} "
            f"authentic, {balance.manipulated} manipulated ({balance.boxed} boxed, "
            f"{balance.masked} with mask, {balance.not_annotated} not annotated), "
            f"{balance.unlabelled} unlabelled"
        )
    yield from _more(report.balances, len(shown), "datasets and splits")
    for severity, heading in (("rejected", "rejected"), ("warning", "warnings")):
        groups = report.by_reason(severity)  # type: ignore[arg-type]
        yield f"{heading}: {sum(len(found) for _, found in groups)}"
        for reason, found in groups[:_SHOWN]:
            yield f"  {len(found):>6} {reason}: {title(reason)}, such as {found[0].path}"
        yield from _more(groups, _SHOWN, "reasons")
    leaks = report.warned_leaks()
    known = len(leaks) if report.known_leaks() else f"unknown, below {MIN_IMAGES} images of a class"
    yield f"properties of files that give the label away: {known}"
    yield from (f"  {leak.sentence()}" for leak in leaks[:4])
    yield from _more(leaks, 4, "properties")
    if not report.verified:
        yield NOT_VERIFIED


def _more(things: Sequence[object], shown: int, name: str) -> Iterator[str]:
    if len(things) > shown:
        yield f"  and {len(things) - shown} more {name}"


class _PairSide(NamedTuple):
    """One side of a pair; `uri` is empty if the file cannot be read any more."""

    path: str
    split: str
    label: str
    uri: str


def as_html(report: CheckReport) -> str:
    """The report as an HTML page; equal findings give equal text."""
    environment = page_environment("data_prep.checks", ".")
    environment.filters["printable"] = printable
    environment.filters["title"] = title
    return environment.get_template("check.html.jinja").render(
        report=report,
        rejected=report.by_reason("rejected"),
        warnings=report.by_reason("warning"),
        leaks=report.warned_leaks(),
        known_leaks=report.known_leaks(),
        min_images=MIN_IMAGES,
        splits=list(dict.fromkeys(leak.split for leak in report.leaks)),
        leak_rows=_leak_rows(report.leaks),
        histograms=[(one, _bars(one)) for one in report.distributions],
        pairs=[(two, _sides(two)) for two in report.twins[:_PICTURES]],
        most_rows=_ROWS,
        not_verified=NOT_VERIFIED,
    )


def _leak_rows(leaks: tuple[Leak, ...]) -> list[tuple[str, list[Leak]]]:
    """One row per property, one column per split."""
    rows: dict[str, list[Leak]] = {}
    for leak in leaks:
        rows.setdefault(leak.property, []).append(leak)
    return list(rows.items())


def _bars(distribution: Distribution) -> list[tuple[str, list[tuple[str, int, float]]]]:
    """By range: series, count, and length in percent of the series' highest.

    Empty ranges below the first and above the last value are left out.
    """
    highest = {name: max(counts) or 1 for name, counts in distribution.series.items()}
    filled = [row for row in range(len(distribution.ranges)) if _any(distribution, row)]
    return [
        (
            distribution.ranges[row],
            [
                (name, counts[row], 100 * counts[row] / highest[name])
                for name, counts in distribution.series.items()
            ],
        )
        for row in range(min(filled, default=0), max(filled, default=-1) + 1)
    ]


def _any(distribution: Distribution, row: int) -> bool:
    return any(counts[row] for counts in distribution.series.values())


def _sides(two: Twins) -> list[_PairSide]:
    shown = []
    for one in (two.first, two.second):
        label = {0: "authentic", 1: "manipulated"}.get(one.sample.label or 0, "")
        label = "unlabelled" if one.sample.label is None else label
        shown.append(
            _PairSide(one.inspection.path, one.sample.split, label, _picture(one.inspection.path))
        )
    return shown


def _picture(path: str) -> str:
    try:
        image, info = images.read_image(path)
    except RejectedInput:
        return ""
    data = images.encode_jpeg(thumbnail(image, _SIDE), 80, info.orientation)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
