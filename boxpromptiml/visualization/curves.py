"""What the plots are drawn with: panels, and lines that anybody tells apart.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), made for every colour vision; dashes
and markers differ too.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]

BASELINE, TEXT = "#a84a00", "#545c66"  # dark vermillion, grey
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # 4 and 7: 28 differ
_MOST_MARKERS = 12  # a curve
_MOST_NAME = 40  # characters of a legend's entry


class Style(TypedDict):
    """How the points of one curve look."""

    color: str
    marker: str


def style(number: int) -> Style:
    """Colour and marker of curve `number`."""
    return Style(color=_COLOURS[number % 7], marker=_MARKERS[number % 7])


def panels(
    count: int, width: float = 4.8, height: float = 3.0, across: int = 2
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels of `width` x `height` inches each, row by row."""
    columns = min(count, across)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    shown = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    for axes in shown:
        _style(axes)
    return figure, shown


def _style(axes: Axes) -> None:
    axes.grid(color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aab2bb")
    axes.tick_params(colors=TEXT, length=3)
    axes.xaxis.label.set_color(TEXT)
    axes.yaxis.label.set_color(TEXT)


def draw(axes: Axes, curves: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Lines that differ in colour, dash and marker, and a legend where there are several."""
    for number, points in enumerate(curves.values()):
        finite = [(a, b) for a, b in points if math.isfinite(a)]
        axes.plot(
            [a for a, _ in finite],
            [b if math.isfinite(b) else math.nan for _, b in finite],
            **style(number),
            linestyle=_DASHES[number % 4],
            markersize=4,
            markevery=max(1, math.ceil(len(finite) / _MOST_MARKERS)),
            linewidth=1.8,
        )
    if len(curves) > 1:
        _legend(axes, list(curves))


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Names are shown as they are: no mathematics, and a leading underscore hides nothing."""
    short = [name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…" for name in names]
    handles = axes.get_lines()[-len(names) :]
    legend = axes.legend(handles, [f" {name}" for name in short], fontsize=9, handlelength=3.2)
    legend.get_frame().set(edgecolor="#e3e7eb", alpha=0.9)
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(TEXT)


def reference(axes: Axes, height: float, text: str) -> None:
    """A dashed line with its name above it, or below where there is no room."""
    axes.axhline(height, color=BASELINE, linewidth=1.2, linestyle=(0, (4, 3)))
    above = height < 0.9
    axes.annotate(
        text,
        (0.01, height),
        (0, 4 if above else -4),
        textcoords="offset points",
        va="bottom" if above else "top",
        color=BASELINE,
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        zorder=3,
    )
