"""The plots of a report: drawn for the page, written as files, and their values as tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from boxpromptiml.evaluation.robustness import plotted, read_robustness
from boxpromptiml.report.page import Plot
from boxpromptiml.report.text import finite, format_value
from boxpromptiml.report.training import History, best_validation
from boxpromptiml.visualization.plots import (
    figure_svg,
    precision_recall_figure,
    robustness_figure,
    roc_figure,
    save_figure,
    threshold_figure,
    training_figure,
)

T = TypeVar("T")
Curves = Mapping[str, Sequence[tuple[float, float]]]  # by run

_TABLE_ROWS = 20
_NO_ROBUSTNESS = (
    "Not measured: run `boxpromptiml robustness --checkpoint RUN/checkpoints/best.ckpt "
    "--manifest MANIFEST --out RUN/robustness`."
)


def threshold_plot(
    curves: Curves, baseline: float | None, folder: Path | None, note: str = ""
) -> Plot:
    """F1 by threshold."""
    caption = (
        "Mean pixel F1 of the manipulated images when pixels above each threshold are flagged. "
        + note
    )
    columns = ("Threshold", "Mean F1")
    drawn = threshold_figure(curves, baseline)
    return _plot("threshold", "F1 by threshold", drawn, folder, caption.strip(), columns, curves)


def precision_recall_plot(curves: Curves, folder: Path | None) -> Plot:
    """Precision by recall."""
    caption = (
        "Mean over the manipulated images, at the same thresholds for all of them. Where nothing "
        "of an image is flagged, it has no precision: it is left out of the mean precision at that "
        "threshold, but not of the mean recall. So precision at high thresholds is of fewer images."
    )
    drawn, columns = precision_recall_figure(curves), ("Recall", "Precision")
    name = "precision-recall"
    return _plot(name, "Precision and recall", drawn, folder, caption, columns, curves)


def roc_plot(curves: Curves, folder: Path | None) -> Plot:
    """Pixel ROC."""
    caption = "Share of the manipulated pixels that are flagged by share of the others, likewise."
    columns = ("False positive rate", "True positive rate")
    return _plot("roc", "Pixel ROC", roc_figure(curves), folder, caption, columns, curves)


def training_plots(history: History, folder: Path | None) -> tuple[Plot, ...]:
    """Loss by epoch, and validation scores by epoch."""
    if not history:
        reason = "Not measured: the run's folder has no metrics.csv of a training."
        return (Plot("training", "Training", "", reason),)
    best = best_validation(history)
    caption = "Mean over the steps that were logged in each epoch."
    losses = {name: curve for name, curve in history.items() if name.endswith("loss")}
    scores = {name: curve for name, curve in history.items() if name not in losses}
    validation = "Scores of the validation images."
    if best is not None:
        validation += f" F1 is highest after epoch {best.epoch}: {best.score:.3f}."
    return (
        _by_epoch("training-loss", "Training loss", losses, folder, caption),
        _by_epoch("validation", "Validation during training", scores, folder, validation),
    )


def _by_epoch(name: str, title: str, curves: History, folder: Path | None, caption: str) -> Plot:
    if not curves:
        return Plot(name, title, "", "Not measured: metrics.csv has no such column.")
    epochs = sorted({epoch for curve in curves.values() for epoch, _ in curve})
    by_epoch = [dict(curve) for curve in curves.values()]
    rows = tuple(
        (str(epoch), *(format_value(values.get(epoch), "score") for values in by_epoch))
        for epoch in _sampled(epochs)
    )
    svg = _drawn(name, training_figure(curves), folder)
    return Plot(name, title, svg, caption, ("Epoch", *curves), rows)


def robustness_plot(run: Path, folder: Path | None) -> Plot:
    """F1 under degradations, from the run's robustness/ folder."""
    path, title = run / "robustness" / "robustness.json", "Robustness"
    if not path.exists():
        return Plot("robustness", title, "", _NO_ROBUSTNESS)
    found = read_robustness(path)
    conditions, clean = plotted(found)
    rows = tuple(
        (
            condition.name,
            "" if condition.level is None else f"{condition.level:g}",
            format_value(condition.value, "score"),
            f"[{format_value(condition.low, 'score')}, {format_value(condition.high, 'score')}]",
        )
        for condition in conditions
    )
    caption = (
        f"Mean pixel F1 of the {found['split']} images after they were degraded, with 95 % "
        "intervals."
    )
    svg = _drawn("robustness", robustness_figure(conditions, clean), folder)
    columns = ("Degradation", "Level", "Mean F1", "95 % interval")
    return Plot("robustness", title, svg, caption, columns, rows, broad=True)


def points(metrics: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    """A curve of metrics.json; null becomes nan, a gap."""
    pairs = metrics.get("curves", {}).get(name) or []
    nan = float("nan")
    return [(nan if a is None else a, nan if b is None else b) for a, b in pairs]


def _plot(
    name: str,
    title: str,
    figure: Figure,
    folder: Path | None,
    caption: str,
    columns: tuple[str, str],
    curves: Curves,
) -> Plot:
    first = next(iter(curves.values()), [])
    if not any(finite(a) is not None and finite(b) is not None for a, b in first):
        return Plot(name, title, "", "Not measured: no manipulated image was scored.")
    rows = tuple((f"{a:.3g}", format_value(b, "score")) for a, b in _sampled(first))
    return Plot(name, title, _drawn(name, figure, folder), caption, columns, rows)


def _drawn(name: str, figure: Figure, folder: Path | None) -> str:
    """The figure as SVG text; written as NAME.png and NAME.svg too, where a folder is given."""
    if folder is not None:
        save_figure(figure, folder / name)
    return figure_svg(figure, name)


def _sampled(values: Sequence[T]) -> list[T]:
    """At most `_TABLE_ROWS` of the values, evenly, both ends among them."""
    if len(values) <= _TABLE_ROWS:
        return list(values)
    last = len(values) - 1
    return [values[round(step * last / (_TABLE_ROWS - 1))] for step in range(_TABLE_ROWS)]
