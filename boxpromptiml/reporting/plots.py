"""Plots of the report, as SVG text for a page. Matplotlib without pyplot: no global figures."""

import io

import matplotlib
from matplotlib.figure import Figure

_LINE, _BASELINE, _TEXT = "#0072b2", "#a84a00", "#545c66"  # blue and dark vermillion, grey


def f1_curve_svg(
    thresholds: list[float], scores: list[float], baseline: float | None = None
) -> str:
    """F1 by threshold as an `<svg>` element; equal input gives equal text.

    Args:
        thresholds: In [0, 1], rising.
        scores: F1 in [0, 1] at each threshold; nan leaves a gap.
        baseline: F1 of a map that flags everything, drawn as a dashed line.
    """
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(thresholds, scores, color=_LINE, linewidth=2, marker="o", markersize=3.5)
    if baseline is not None:
        axes.axhline(baseline, color=_BASELINE, linewidth=1.2, linestyle=(0, (4, 3)))
        above = baseline < 0.9
        axes.annotate(
            "flag everything",
            (0.01, baseline),
            (0, 4 if above else -4),
            textcoords="offset points",
            va="bottom" if above else "top",
            color=_BASELINE,
            fontsize=9,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold", ylabel="mean F1")
    axes.grid(color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aab2bb")
    axes.tick_params(colors=_TEXT, length=3)
    axes.xaxis.label.set_color(_TEXT)
    axes.yaxis.label.set_color(_TEXT)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    """The `<svg>` element alone: no XML header, no date, no random identifiers."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "boxpromptiml", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :].strip()
