"""`boxpromptiml report`: reads a run's folder, scores it if needed, and writes report.html."""

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.robustness import plotted, read_robustness
from boxpromptiml.evaluation.runs import Run, Which, score_run
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.outputs import PLOTS, REPORT
from boxpromptiml.io.weights import found_device, require_device
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.metrics.results import Evaluation, read_evaluation
from boxpromptiml.records import Split
from boxpromptiml.report import comparison
from boxpromptiml.report.gallery import (
    Gallery,
    GalleryImage,
    StoredPixels,
    make_gallery,
    worst_pseudo_masks,
)
from boxpromptiml.report.memory import look_into_memory
from boxpromptiml.report.page import Plot, Report, write_report
from boxpromptiml.report.run import ScoredRun
from boxpromptiml.report.text import UNKNOWN, format_value, is_finite
from boxpromptiml.report.training import History, Training, describe_training, read_history
from boxpromptiml.visualization import plots

T = TypeVar("T")

_PACKAGES = ("torch", "lightning", "timm", "matplotlib", "jinja2")
_TABLE_ROWS = 20


def report(
    run: Path,
    compare: list[Path] = [],  # noqa: B006 (never changed)
    split: Split = "test",
    checkpoint: Which = "best",
    out: Path | None = None,
    device: str = "auto",
) -> None:
    """Write a page on a run: what it was trained on, how good it is, how sure, where it fails.

    Scores the checkpoint first unless RUN/evaluation/SPLIT is up to date. Writes report.html, which
    needs no server and no network, and its plots as RUN/plots/NAME.png and .svg.

    Args:
        run: Run folder of `boxpromptiml fit`.
        compare: Folders of other runs; differences are paired by image.
        split: Split of the run's manifests to report on.
        checkpoint: `best` on validation, or `last` epoch.
        out: File to write; RUN/report.html by default.
        device: Where the network runs, if scores are missing: cpu or cuda; auto: a GPU
            if there is one.

    Raises:
        UserError: If a run, its checkpoint or a manifest is missing, or an image has changed.
    """
    path = out or run / "report.html"
    require_device(found_device(device))
    REPORT.require(path)
    PLOTS.require(run)
    scored = [_scored(folder, split, checkpoint, device) for folder in (run, *compare)]
    PLOTS.mark(run)
    page = build_report(scored, run / "plots")
    write_report(page, path)
    f1 = page.scores.get("pixel_f1", UNKNOWN).value
    size = path.stat().st_size / 1e6
    sys.stdout.write(f"{path}: pixel F1 {format_value(f1, 'score')}, {size:.1f} MB\n")


def _scored(folder: Path, split: Split, which: Which, device: str) -> ScoredRun:
    run = Run.open(folder)
    found = score_run(folder, split, which, device)
    return ScoredRun(run, found, run.checkpoint(which), read_evaluation(found))


def build_report(scored: Sequence[ScoredRun], folder: Path | None) -> Report:
    """The report of the first run, compared with the others.

    Args:
        scored: The run, and those to compare it with.
        folder: Folder for the plots as files; None for none.
    """
    first = scored[0]
    runs = dict(zip(_names([one.run.folder for one in scored]), scored, strict=True))
    history = read_history(first.run.folder)
    training, worst = _training(first, history)
    manifests = _existing([Path(one["path"]) for one in first.evaluation.metrics["manifests"]])
    gallery = _gallery(first, manifests)
    return Report(
        title=f"Run {next(iter(runs))}",
        checkpoint=first.checkpoint.name,
        evaluation=first.evaluation,
        scores=first.scores,
        groups=first.group_tables,
        plots=_plots(runs, history, folder),
        gallery=gallery,
        memory=look_into_memory(first.checkpoint, gallery.shown, manifests),
        training=training,
        settings=first.run.config,
        versions=_versions(first.evaluation),
        checksums=_checksums(first),
        comparison=comparison.compare(runs) if len(runs) > 1 else None,
        worst_pseudo_masks=worst,
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Names for paths: as many last parts as make them distinct, else numbered."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{folder.resolve().name} ({number})" for number, folder in enumerate(folders, 1)]


def _gallery(scored: ScoredRun, manifests: Sequence[Manifest]) -> Gallery:
    evaluation = scored.evaluation
    pixels = StoredPixels(scored.folder, evaluation, manifests)
    images = [
        GalleryImage(row.id, row.kind, row.region > 0, row.f1, row.iou, row.flagged)
        for row in evaluation.rows
    ]
    return make_gallery(images, pixels.draw)


def _existing(paths: Sequence[Path]) -> list[Manifest]:
    return [read_manifest(path) for path in paths if path.exists()]


def _training(
    scored: ScoredRun, history: History
) -> tuple[Training | str, tuple[GalleryImage, ...]]:
    """The training, or why it is unknown, and its worst pseudo-masks."""
    try:
        paths = scored.run.manifests("train")
    except UserError as error:
        return str(error), ()
    missing = [path for path in paths if not path.exists()]
    if missing:
        return f"{missing[0]} is not there; run `report` where the training ran", ()
    manifests = _existing(paths)
    training = describe_training(scored.run.config, manifests, history)
    if not training.images.annotations["pseudo"]:
        return training, ()
    audits = {audit.path.parent: audit for audit in training.audits}
    shown = [
        image
        for manifest in manifests
        if (audit := audits.get(manifest.path.parent)) is not None
        for image in worst_pseudo_masks(manifest, audit.worst)
    ]
    return training, tuple(shown)


def _plots(
    runs: Mapping[str, ScoredRun], history: History, folder: Path | None
) -> tuple[Plot, ...]:
    """Draw all plots once, for the page and, if a folder is given, as files."""
    first = next(iter(runs.values()))
    f1, precision_recall, roc = (
        {name: _points(run.evaluation, curve) for name, run in runs.items()}
        for curve in ("f1", "precision_recall", "roc")
    )
    baseline = first.scores.get("full_f1", UNKNOWN).value
    drawn = plots.threshold_figure(f1, baseline if is_finite(baseline) else None)
    rates = ("False positive rate", "True positive rate")
    losses, scores = _losses_and_scores(history)
    drawings = (
        _curve("threshold", drawn, f1, ("Threshold", "Mean F1"), folder),
        _curve(
            "precision-recall",
            plots.precision_recall_figure(precision_recall),
            precision_recall,
            ("Recall", "Precision"),
            folder,
        ),
        _curve("roc", plots.roc_figure(roc), roc, rates, folder),
        _robustness(first.run.folder, folder),
        _by_epoch("training-loss", losses, "loss", folder),
        _by_epoch("validation", scores, "score", folder),
    )
    return tuple(plot for plot in drawings if plot is not None)


def _points(evaluation: Evaluation, name: str) -> plots.Curve:
    return [(x, y) for x, y in evaluation.metrics["curves"].get(name, [])]


def _curve(
    name: str,
    figure: Figure,
    curves: Mapping[str, plots.Curve],
    columns: tuple[str, str],
    folder: Path | None,
) -> Plot | None:
    """A plot of several runs, if there are values; its table has those of the first."""
    first = next(iter(curves.values()))
    if not first:
        return None
    rows = tuple((f"{x:.3g}", format_value(y, "score")) for x, y in _sampled(first))
    return Plot(name, _svg(name, figure, folder), columns, rows)


def _losses_and_scores(history: History) -> tuple[History, History]:
    losses = {name: curve for name, curve in history.items() if name.endswith("loss")}
    return losses, {name: curve for name, curve in history.items() if name not in losses}


def _by_epoch(name: str, curves: History, label: str, folder: Path | None) -> Plot | None:
    if not curves:
        return None
    epochs = sorted({epoch for curve in curves.values() for epoch, _ in curve})
    by_epoch = [dict(curve) for curve in curves.values()]
    rows = tuple(
        (str(epoch), *(format_value(values.get(epoch), "score") for values in by_epoch))
        for epoch in _sampled(epochs)
    )
    figure = plots.training_figure(curves, label)
    return Plot(name, _svg(name, figure, folder), ("Epoch", *curves), rows)


def _robustness(run: Path, folder: Path | None) -> Plot | None:
    """F1 under degradations, if it was measured into the run's robustness/ folder."""
    name, path = "robustness", run / "robustness" / "robustness.json"
    if not path.exists():
        return None
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
    svg = _svg(name, plots.robustness_figure(conditions, clean), folder)
    columns = ("Degradation", "Level", "Mean F1", "95 % interval")
    return Plot(name, svg, columns, rows, found["split"])


def _svg(name: str, figure: Figure, folder: Path | None) -> str:
    """The figure as SVG text; also written as NAME.png and NAME.svg if a folder is given."""
    if folder is not None:
        plots.save_figure(figure, folder / name)
    return plots.figure_svg(figure, name)


def _sampled(values: Sequence[T]) -> list[T]:
    """At most `_TABLE_ROWS` of the values, evenly spaced, with both ends."""
    if len(values) <= _TABLE_ROWS:
        return list(values)
    last = len(values) - 1
    return [values[round(step * last / (_TABLE_ROWS - 1))] for step in range(_TABLE_ROWS)]


def _versions(evaluation: Evaluation) -> dict[str, str]:
    found: dict[str, str] = dict(evaluation.metrics["versions"])
    here = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return found | {name: number for name, number in here.items() if name not in found}


def _checksums(scored: ScoredRun) -> dict[str, str]:
    """Hashes of the files behind the run and its scores, without missing ones."""
    run = scored.run
    paths = [scored.checkpoint, run.folder / "config.yaml"]
    for split in ("train", "val"):
        paths += [Path(str(path)) for path in run.config["data"].get(split) or []]
    found = {str(path): sha256_file(path) for path in paths if path.is_file()}
    named: list[dict[str, Any]] = scored.evaluation.metrics["manifests"]
    found |= {one["path"]: one["sha256"] for one in named}
    for path in (scored.folder / "metrics.json", scored.folder / "per_image.csv"):
        found[str(path)] = sha256_file(path)
    return found
