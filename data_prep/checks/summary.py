"""All that a check found, as JSON and as a few lines of text."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.checks.across import Twins
from data_prep.checks.findings import Finding, Severity, printable, title
from data_prep.checks.totals import Balance, Histogram, Leak

_SHOWN = 7  # kinds of a thing in the text


@dataclass(frozen=True)
class Summary:
    """What a check found.

    Attributes:
        manifests: As the user named them.
        images: How many rows were looked at.
        verified: Whether pixels were decoded.
        findings: Each once.
        twins: Near-duplicates across splits; each is one of the findings too.
        balances: By dataset and split.
        histograms: Of the whole.
        leaks: Every property in every split.
    """

    manifests: tuple[str, ...]
    images: int
    verified: bool
    findings: tuple[Finding, ...]
    twins: tuple[Twins, ...]
    balances: tuple[Balance, ...]
    histograms: tuple[Histogram, ...]
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

    def warned_leaks(self) -> list[Leak]:
        """Properties that tell the classes apart, the plainest first."""
        return sorted((leak for leak in self.leaks if leak.warn), key=lambda leak: -(leak.auc or 0))


NOT_VERIFIED = (
    "Only headers were read: damage behind them, near-duplicates and what masks hold were not "
    "looked for. Run it again with --verify."
)


def as_json(summary: Summary) -> dict[str, Any]:
    """All of it, for a program."""
    return {
        "manifests": summary.manifests,
        "images": summary.images,
        "verified": summary.verified,
        "rejected": summary.counts("rejected"),
        "warnings": summary.counts("warning"),
        "classes": [balance._asdict() for balance in summary.balances],
        "leaks": [leak._asdict() for leak in summary.leaks],
        "histograms": [histogram._asdict() for histogram in summary.histograms],
        "near_duplicates": [
            {
                "first": two.first.look.path,
                "second": two.second.look.path,
                "splits": [two.first.sample.split, two.second.sample.split],
                "distance": two.distance,
                "correlation": round(two.correlation, 4),
            }
            for two in summary.twins
        ],
        "findings": [finding._asdict() for finding in summary.findings],
    }


def as_text(summary: Summary) -> str:
    """At most 30 lines; names cannot steer the terminal."""
    return "".join(f"{printable(line)}\n" for line in _lines(summary))


def _lines(summary: Summary) -> Iterator[str]:
    shown = summary.balances[:3]
    for balance in shown:
        yield (
            f"{balance.dataset}, {balance.split}: {balance.images} images, {balance.authentic} "
            f"authentic, {balance.manipulated} manipulated ({balance.boxed} boxed, "
            f"{balance.masked} with mask, {balance.not_annotated} not annotated), "
            f"{balance.unlabelled} unlabelled"
        )
    yield from _more(summary.balances, len(shown), "datasets and splits")
    for severity, heading in (("rejected", "rejected"), ("warning", "warnings")):
        groups = summary.by_reason(severity)  # type: ignore[arg-type]
        yield f"{heading}: {sum(len(found) for _, found in groups)}"
        for reason, found in groups[:_SHOWN]:
            yield f"  {len(found):>6} {reason}: {title(reason)}, such as {found[0].path}"
        yield from _more(groups, _SHOWN, "reasons")
    leaks = summary.warned_leaks()
    yield f"properties of files that give the label away: {len(leaks)}"
    yield from (f"  {leak.sentence()}" for leak in leaks[:4])
    yield from _more(leaks, 4, "properties")
    if not summary.verified:
        yield NOT_VERIFIED


def _more(things: Sequence[object], shown: int, name: str) -> Iterator[str]:
    if len(things) > shown:
        yield f"  and {len(things) - shown} more {name}"
