"""Plots of an evaluation as figures, PNG and SVG; equal input gives equal files.

Matplotlib without pyplot: no global figures. Colours are those of Okabe and Ito
(jfly.uni-koeln.de/color), chosen for every colour vision; dashes and markers differ too.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boxpromptiml.io import files

Curve = Sequence[tuple[float, float]]

BASELINE, TEXT = "#a84a00", "#545c66"  # dark vermillion, grey
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))  # 4 and 7: 28 differ
_MAX_MARKERS = 12  # a curve
_MAX_NAME = 40  # characters of a legend's entry


class Style(TypedDict):
    """Appearance of the points of a curve."""

    color: str
    marker: str


def style(number: int) -> Style:
    """Colour and marker of curve `number`."""
    return Style(color=_COLOURS[number % 7], marker=_MARKERS[number % 7])


def panels(
    count: int, width: float = 4.8, height: float = 3.0, across: int = 2
) -> tuple[Figure, list[Axes]]:
    """A figure of several panels.

    Args:
        count: Number of panels.
        width: Of a panel in inches.
        height: Of a panel in inches.
        across: Panels in a row.

    Returns:
        The figure, and the axes of its panels row by row.
    """
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
    """Draw lines that differ in colour, dash and marker, with a legend for several."""
    for number, points in enumerate(curves.values()):
        finite = [(a, b) for a, b in points if math.isfinite(a)]
        axes.plot(
            [a for a, _ in finite],
            [b if math.isfinite(b) else math.nan for _, b in finite],
            **style(number),
            linestyle=_DASHES[number % 4],
            markersize=4,
            markevery=max(1, math.ceil(len(finite) / _MAX_MARKERS)),
            linewidth=1.8,
        )
    if len(curves) > 1:
        _legend(axes, list(curves))


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Draw a legend with literal names: no mathematics, no names hidden by an underscore."""
    short = [name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…" for name in names]
    handles = axes.get_lines()[-len(names) :]
    legend = axes.legend(handles, [f" {name}" for name in short], fontsize=9, handlelength=3.2)
    legend.get_frame().set(edgecolor="#e3e7eb", alpha=0.9)
    for text in legend.get_texts():
        text.set_parse_math(False)
        text.set_color(TEXT)


def reference(axes: Axes, height: float, text: str) -> None:
    """Draw a dashed line with its name above it, or below it where there is no room."""
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


_FACTS = {"svg": ("Creator", "Date", "Format", "Type"), "png": ("Software",)}  # left out of files
_LEVELS = {  # of robustness: title, and whether a larger level is a worse image
    "jpeg": ("JPEG quality", False),
    "blur": ("Gaussian blur: window in pixels", True),
    "noise": ("Gaussian noise: deviation, grey levels", True),
    "rescale": ("both sides scaled by", False),
}
_PLATFORMS = {"facebook": "Facebook", "weibo": "Weibo", "wechat": "WeChat", "whatsapp": "WhatsApp"}


class Condition(NamedTuple):
    """A mean score under one degradation.

    Attributes:
        name: Of the degradation or the social network.
        level: Its strength; None where it has none.
        value: The mean score.
        low: Lower bound of its interval; nan for none.
        high: Upper bound; nan for none.
    """

    name: str
    level: float | None
    value: float
    low: float
    high: float


def threshold_figure(curves: Mapping[str, Curve], baseline: float | None = None) -> Figure:
    """F1 by threshold, one curve of (threshold, mean F1) per method or run.

    Args:
        curves: By name, in ascending order of thresholds; nan leaves a gap.
        baseline: F1 of a map that flags everything, drawn as a dashed line.
    """
    figure, (axes,) = panels(1)
    draw(axes, curves)
    if baseline is not None:
        reference(axes, baseline, "flag everything")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold", ylabel="mean F1")
    return figure


def precision_recall_figure(curves: Mapping[str, Curve]) -> Figure:
    """Precision by recall, one curve of (recall, precision) per method or run."""
    figure, (axes,) = panels(1, width=4.4, height=3.8)
    draw(axes, curves)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    return figure


def roc_figure(curves: Mapping[str, Curve]) -> Figure:
    """ROC, one curve of (false, true positive rate) per method; the diagonal is chance."""
    figure, (axes,) = panels(1, width=4.4, height=3.8)
    axes.plot([0, 1], [0, 1], color=BASELINE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("guessing", (0.62, 0.55), color=BASELINE, fontsize=9)
    draw(axes, curves)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return figure


def training_figure(curves: Mapping[str, Sequence[tuple[int, float]]], label: str) -> Figure:
    """How training went: curves of (epoch, value), by name as logged, such as `train/loss`.

    Args:
        curves: One or more; each begins at its first logged epoch.
        label: Of the vertical axis where there are several curves, such as `loss`.
    """
    figure, (axes,) = panels(1, width=4.2, height=3.2)
    draw(axes, curves)
    axes.set_xlabel("epoch")
    axes.set_ylabel(next(iter(curves)) if len(curves) == 1 else label, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if label == "loss" else 0)
    return figure


def robustness_figure(conditions: Sequence[Condition], clean: float | None = None) -> Figure:
    """Mean F1 under degradations: a panel for each kind, worse images to the right.

    Args:
        conditions: In any order; bands and bars show intervals. `none` is not drawn.
        clean: F1 of the stored images, drawn as a dashed line.
    """
    own = {c.name: 0 for c in conditions if "." in c.name}  # functions of others, by import path
    kinds = [(name, [c for c in conditions if c.name == name]) for name in (*_LEVELS, *own)]
    kinds.append(("", [c for c in conditions if c.name not in ("none", *_LEVELS, *own)]))
    kinds = [(name, rows) for name, rows in kinds if rows]
    figure, shown = panels(max(len(kinds), 1), width=3.2, height=2.6, across=3)
    heights = [height for c in conditions for height in (c.value, c.high)] + [clean or 0.0, 0.05]
    top = max(height for height in heights if not math.isnan(height))
    for number, (axes, (name, rows)) in enumerate(zip(shown, kinds, strict=False)):
        if name:
            _draw_levels(axes, name, rows, number)
        else:
            _draw_platforms(axes, rows, number)
        axes.set_ylim(0, min(1.02, 1.12 * top))
        if number % 3 == 0:
            axes.set_ylabel("mean F1")
        if clean is not None:
            axes.axhline(clean, color=BASELINE, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    if clean is not None:
        text = f"dashed: images as stored, mean F1 {clean:.3f}"
        figure.suptitle(text, color=BASELINE, fontsize=9)
    return figure


def _draw_levels(axes: Axes, name: str, rows: Sequence[Condition], number: int) -> None:
    title, rising = _LEVELS.get(name, (name, True))
    points = sorted((c.level or 0.0, c.value, c.low, c.high) for c in rows)
    levels, values, low, high = (list(column) for column in zip(*points, strict=True))
    look = style(number)
    axes.fill_between(levels, low, high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(levels, values, **look, markersize=5, linewidth=1.8)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_title(title, fontsize=10, color=TEXT, parse_math=False)
    if not rising:
        axes.invert_xaxis()


def _draw_platforms(axes: Axes, rows: Sequence[Condition], number: int) -> None:
    values = [c.value for c in rows]
    below = [max(c.value - c.low, 0.0) for c in rows]
    above = [max(c.high - c.value, 0.0) for c in rows]
    axes.errorbar(
        range(len(rows)),
        values,
        [below, above],
        **style(number),
        linestyle="none",
        capsize=4,
        markersize=6,
    )
    axes.set_xticks(range(len(rows)), [_PLATFORMS.get(c.name, c.name) for c in rows], fontsize=9)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_title("shared on a social network", fontsize=10, color=TEXT)


def figure_svg(figure: Figure, salt: str = "plot") -> str:
    """The `<svg>` element alone, to embed in a page; every id in it begins with `salt`.

    Raises:
        ValueError: If `salt` is not a plain name.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", salt):
        raise ValueError(f"salt must be a plain name, got {salt!r}")
    text = _rendered(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :].strip()
    return re.sub(r'(?<=\sid=")|(?<=href="#)|(?<=url\(#)', f"{salt}-", text)


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png (200 dots per inch) and `stem`.svg; the text of the SVG stays text."""
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    files.write_bytes(png, _rendered(figure, "png"))
    files.write_bytes(svg, _rendered(figure, "svg"))
    return png, svg


def _rendered(figure: Figure, kind: str, transparent: bool = False) -> bytes:
    """The file's bytes, without date, version or random identifiers."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(_FACTS[kind])
    with matplotlib.rc_context({"svg.hashsalt": "boxpromptiml", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=200, metadata=nothing, transparent=transparent)
    return buffer.getvalue()
