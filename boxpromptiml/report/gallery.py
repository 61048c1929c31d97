"""The gallery of a report: which images it shows, and in which orders.

Images are drawn one after the other and only thumbnails are kept, so the page and the memory stay
small however many and large the images are.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from boxpromptiml.report.panels import PSEUDO_MASK, Panel
from boxpromptiml.report.text import amount

MAX_ROWS = 1000
LOW_F1 = 0.5
_MAX_BYTES = 27_000_000  # of all pictures, as text of the page
_SIDES = (400, 320)  # pixels of a thumbnail, in small and in large galleries
_MANY = 300
_BINS = 10


@dataclass(frozen=True)
class Entry:
    """What is known of an image without its pixels.

    Attributes:
        id: Shown as text, whatever it contains.
        kind: Forgery kind, or what else tells images apart; may be empty.
        manipulated: False: authentic, nothing is to be found.
        f1: Pixel F1; nan for an authentic image.
        iou: Pixel IoU; nan likewise.
        flagged: Share of the pixels that are flagged.
    """

    id: str
    kind: str
    manipulated: bool
    f1: float
    iou: float
    flagged: float


class Row(NamedTuple):
    """An image of the gallery, and its place in each order."""

    entry: Entry
    panels: Sequence[Panel]
    kind: int = 0  # place in `Gallery.kinds`
    best: int = 0
    name: int = 0


class Kind(NamedTuple):
    """The images of one kind that are shown, for the filter."""

    name: str
    images: int


@dataclass(frozen=True)
class Gallery:
    """What is shown, and of how much.

    Attributes:
        rows: Manipulated images, worst F1 first.
        alarms: Authentic images, most falsely flagged pixels first.
        kinds: Of the rows.
        spread: From and to an F1, how many of all manipulated images, and that in percent of the
            fullest bin.
        failures: One sentence on all manipulated images.
        choice: What was left out of the rows, empty if nothing.
        alarm_choice: Likewise, of the authentic images.
    """

    rows: tuple[Row, ...] = ()
    alarms: tuple[Row, ...] = ()
    kinds: tuple[Kind, ...] = ()
    spread: tuple[tuple[float, float, int, float], ...] = ()
    failures: str = ""
    choice: str = ""
    alarm_choice: str = ""

    @property
    def has_pseudo_masks(self) -> bool:
        """Whether any row shows one."""
        return any(panel.caption == PSEUDO_MASK for row in self.rows for panel in row.panels)


Draw = Callable[[Entry, int, int], Sequence[Panel]]


def make_gallery(
    entries: Sequence[Entry], draw: Draw, limit: int = MAX_ROWS, seed: int = 0
) -> Gallery:
    """Choose the images to show and draw them, one after the other.

    Args:
        entries: Of all images that were scored, in any order.
        draw: Gives the panels of an image for the longer side of a thumbnail in pixels and the
            most characters that all panels together may take: `draw_panels` for its views.
        limit: Most images to show.
        seed: Decides which of the images are drawn at random.
    """
    manipulated = sorted((e for e in entries if e.manipulated), key=_worst_first)
    authentic = [e for e in entries if not e.manipulated]
    alarmed = sorted((e for e in authentic if e.flagged > 0), key=lambda e: (-e.flagged, e.id))
    alarms = alarmed[: max(limit - len(manipulated), limit // 10)]
    shown, choice = _choose(manipulated, limit - len(alarms), seed)
    side = _SIDES[len(shown) + len(alarms) > _MANY]
    most = _MAX_BYTES // max(len(shown) + len(alarms), 1)
    kinds = sorted({entry.kind for entry in shown})
    names = {entry.id: place for place, entry in enumerate(sorted(shown, key=lambda e: e.id))}
    rows = tuple(
        Row(
            entry,
            draw(entry, side, most),
            kinds.index(entry.kind),
            len(shown) - place,
            names[entry.id],
        )
        for place, entry in enumerate(shown)
    )
    return Gallery(
        rows=rows,
        alarms=tuple(Row(entry, draw(entry, side, most)) for entry in alarms),
        kinds=tuple(Kind(kind, sum(e.kind == kind for e in shown)) for kind in kinds),
        spread=_spread(manipulated),
        failures=_failures(manipulated),
        choice=choice,
        alarm_choice=_alarm_choice(len(authentic), len(alarmed), len(alarms)),
    )


def _worst_first(entry: Entry) -> tuple[bool, float, str]:
    known = math.isfinite(entry.f1)
    return not known, entry.f1 if known else 0.0, entry.id


def _choose(ordered: Sequence[Entry], limit: int, seed: int) -> tuple[list[Entry], str]:
    """The entries to show of a worst-first list, in its order, and in words which they are."""
    if len(ordered) <= limit:
        return list(ordered), ""
    worst, best = limit // 2, limit // 4
    drawn = limit - worst - best
    rest = np.arange(worst, len(ordered) - best)
    chosen = np.sort(np.random.default_rng(seed).choice(rest, drawn, replace=False))
    choice = (
        f"{limit:,} of the {len(ordered):,} manipulated images are shown: the {worst:,} with the "
        f"lowest F1, the {best:,} with the highest, and {drawn:,} of the others, drawn at random "
        f"(seed {seed})."
    )
    shown = [ordered[number] for number in chosen]
    return [*ordered[:worst], *shown, *ordered[len(ordered) - best :]], choice


def _alarm_choice(authentic: int, alarmed: int, shown: int) -> str:
    if not authentic:
        return "Not measured: no authentic image was scored."
    found = f"{alarmed:,} of the {amount(authentic, 'authentic image')} have falsely flagged pixels"
    return (
        f"{found}; the {shown:,} with most of them are shown." if shown < alarmed else f"{found}."
    )


def _failures(manipulated: Sequence[Entry]) -> str:
    scores = [entry.f1 for entry in manipulated if math.isfinite(entry.f1)]
    if not scores:
        return ""
    low, none = sum(score < LOW_F1 for score in scores), sum(score == 0 for score in scores)
    missed = f"; in {none:,} of them not one flagged pixel is right" if none else ""
    return f"{low:,} of the {len(scores):,} manipulated images have an F1 below {LOW_F1}{missed}."


def _spread(manipulated: Sequence[Entry]) -> tuple[tuple[float, float, int, float], ...]:
    scores = [entry.f1 for entry in manipulated if math.isfinite(entry.f1)]
    if not scores:
        return ()
    counts, edges = np.histogram(scores, _BINS, (0, 1))
    percents = 100 * counts / counts.max()
    ends = zip(edges[:-1], edges[1:], counts, percents, strict=True)
    return tuple((float(a), float(b), int(n), round(float(p), 1)) for a, b, n, p in ends)
