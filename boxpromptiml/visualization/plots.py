"""The plots of an evaluation as figures, PNG and SVG; equal input gives equal files.

Matplotlib without pyplot: no global figures.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from boxpromptiml.io import files
from boxpromptiml.visualization.curves import (
    BASELINE,
    TEXT,
    Curve,
    draw,
    panels,
    reference,
    style,
)

_FACTS = {"svg": ("Creator", "Date", "Format", "Type"), "png": ("Software",)}  # left out of files
_LEVELS = {  # of robustness: title, and whether a larger level is a worse image
    "jpeg": ("JPEG quality", False),
    "blur": ("Gaussian blur: window in pixels", True),
    "noise": ("Gaussian noise: deviation, grey levels", True),
    "rescale": ("both sides scaled by", False),
}
_PLATFORMS = {
    "facebook": "Facebook",
    "weibo": "Weibo",
    "wechat": "WeChat",
    "whatsapp": "WhatsApp",
}


class Condition(NamedTuple):
    """A mean score under one degradation, with the bounds of its interval (nan for none)."""

    name: str
    level: float | None  # None where the degradation has no level
    value: float
    low: float
    high: float


def threshold_figure(curves: Mapping[str, Curve], baseline: float | None = None) -> Figure:
    """F1 by threshold, one curve of (threshold, mean F1) for every method or run.

    Args:
        curves: By name, thresholds rising; nan leaves a gap.
        baseline: F1 of a map that flags everything, drawn as a dashed line.
    """
    figure, (axes,) = panels(1)
    draw(axes, curves)
    if baseline is not None:
        reference(axes, baseline, "flag everything")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold", ylabel="mean F1")
    return figure


def precision_recall_figure(curves: Mapping[str, Curve]) -> Figure:
    """Precision by recall, one curve of (recall, precision) for every method or run."""
    figure, (axes,) = panels(1, width=4.4, height=3.8)
    draw(axes, curves)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    return figure


def roc_figure(curves: Mapping[str, Curve]) -> Figure:
    """ROC, one curve of (false, true positive rate) for every method; guessing is the diagonal."""
    figure, (axes,) = panels(1, width=4.4, height=3.8)
    axes.plot([0, 1], [0, 1], color=BASELINE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate("guessing", (0.62, 0.55), color=BASELINE, fontsize=9)
    draw(axes, curves)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return figure


def training_figure(history: Mapping[str, Sequence[tuple[int, float]]], x: str = "epoch") -> Figure:
    """How training went: losses in one panel, scores in another.

    Args:
        history: (epoch or step, value) by name as logged, such as `train/loss`, `val/pixel_f1`;
            a name that ends in `loss` is a loss.
        x: What the first numbers count.
    """
    losses = {name: curve for name, curve in history.items() if name.endswith("loss")}
    scores = {name: curve for name, curve in history.items() if name not in losses}
    parts = [(label, part) for label, part in (("loss", losses), ("score", scores)) if part]
    figure, shown = panels(max(len(parts), 1), width=4.2, height=3.2)
    for axes, (label, part) in zip(shown, parts, strict=False):
        draw(axes, part)
        name = next(iter(part)) if len(part) == 1 else label
        axes.set_xlabel(x)
        axes.set_ylabel(name, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0] if label == "loss" else 0))
    return figure


def robustness_figure(conditions: Sequence[Condition], clean: float | None = None) -> Figure:
    """Mean F1 under degradations: a panel for each kind, worse images to the right.

    Args:
        conditions: In any order; bands and bars are their intervals. `none` is not drawn.
        clean: F1 of the images as stored, drawn as a dashed line.
    """
    kinds = [(name, [c for c in conditions if c.name == name]) for name in _LEVELS]
    kinds.append(("", [c for c in conditions if c.name not in ("none", *_LEVELS)]))
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
    title, rising = _LEVELS[name]
    points = sorted((c.level or 0.0, c.value, c.low, c.high) for c in rows)
    levels, values, low, high = (list(column) for column in zip(*points, strict=True))
    look = style(number)
    axes.fill_between(levels, low, high, color=look["color"], alpha=0.18, linewidth=0)
    axes.plot(levels, values, **look, markersize=5, linewidth=1.8)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.set_title(title, fontsize=10, color=TEXT)
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
    """The `<svg>` element alone, to stand in a page; every id in it begins with `salt`."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", salt):
        raise ValueError(f"salt must be a plain name, got {salt!r}")
    text = _rendered(figure, "svg", transparent=True).decode()
    text = text[text.index("<svg") :].strip()
    return re.sub(r'(?<=\sid=")|(?<=href="#)|(?<=url\(#)', f"{salt}-", text)


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png (200 dots an inch) and `stem`.svg; the text of the SVG stays text."""
    png, svg = (stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg"))
    files.write_bytes(png, _rendered(figure, "png"))
    files.write_bytes(svg, _rendered(figure, "svg"))
    return png, svg


def _rendered(figure: Figure, kind: str, transparent: bool = False) -> bytes:
    """No date, no version, no random identifiers."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(_FACTS[kind])
    with matplotlib.rc_context({"svg.hashsalt": "boxpromptiml", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=200, metadata=nothing, transparent=transparent)
    return buffer.getvalue()
