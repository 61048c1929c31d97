"""`boxpromptiml report`: a run's folder read, scored where it is not yet, and put on a page."""

import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.runs import Run, Which, score_run
from boxpromptiml.io.files import sha256_file
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.metrics.results import Evaluation, read_evaluation
from boxpromptiml.records import Split
from boxpromptiml.report import summary
from boxpromptiml.report.comparison import RunScores, compare
from boxpromptiml.report.gallery import Entry, Gallery, Row, make_gallery
from boxpromptiml.report.page import ONE_RUN, Plot, Report, write_report
from boxpromptiml.report.plots import (
    points,
    precision_recall_plot,
    robustness_plot,
    roc_plot,
    threshold_plot,
    training_plots,
)
from boxpromptiml.report.run import ScoredRun, group_tables
from boxpromptiml.report.stored_views import StoredViews, worst_pseudo_masks
from boxpromptiml.report.text import UNKNOWN, finite, format_value
from boxpromptiml.report.training import (
    Audit,
    History,
    best_validation,
    last_epoch,
    read_audit,
    read_history,
    training_words,
    what_was_taught,
)

_PACKAGES = ("torch", "lightning", "timm", "matplotlib", "jinja2")


def report(
    run: Path,
    compare: list[Path] = [],  # noqa: B006 (never changed)
    split: Split = "test",
    checkpoint: Which = "best",
    out: Path | None = None,
    device: str = "cpu",
) -> None:
    """One page that says what a run was trained on, how good it is, how sure, where it fails.

    Scores the checkpoint first unless RUN/evaluation/SPLIT is up to date. Writes report.html, which
    needs no server and no network, and its plots as RUN/plots/NAME.png and .svg.

    Args:
        run: Folder of a `boxpromptiml fit`.
        compare: Folders of other runs; differences are paired, image by image.
        split: Rows of the run's manifests to report on.
        checkpoint: The one that was best on validation, or that of the last epoch.
        out: File to write; RUN/report.html by default.
        device: Where the network runs if it has to: cpu or cuda.
    """
    scored = [_scored(folder, split, checkpoint, device) for folder in (run, *compare)]
    path = out or run / "report.html"
    page = build_report(scored, run / "plots")
    write_report(page, path)
    f1 = page.scores.get("pixel_f1", UNKNOWN).value
    size = path.stat().st_size / 1e6
    sys.stdout.write(f"{path}: pixel F1 {format_value(f1, 'score')}, {size:.1f} MB\n")


def _scored(folder: Path, split: Split, which: Which, device: str) -> ScoredRun:
    run = Run.open(folder)
    found = score_run(folder, split, which, device)
    return ScoredRun(run, found, run.checkpoint(which), read_evaluation(found))


def build_report(scored: Sequence[ScoredRun], plots: Path | None) -> Report:
    """The report of the first run, compared with the others.

    Args:
        scored: The run, and those to compare it with.
        plots: Folder for the plots as files; None writes none.
    """
    first = scored[0]
    names = _names([one.run.folder for one in scored])
    rows = [
        RunScores(name, one.scores, one.evaluation, one.run.config)
        for name, one in zip(names, scored, strict=True)
    ]
    compared = compare(rows) if len(rows) > 1 else None
    history = read_history(first.run.folder)
    gallery, groups = _gallery(first), group_tables(first.evaluation.metrics)
    trained, audits, worst = _training(first, history)
    answers = [
        ("Trained", trained),
        ("Scored", summary.scored_words(first.evaluation, first.checkpoint.name)),
        ("How good", summary.good_words(first.scores)),
        ("How sure", summary.sure_words(first.evaluation)),
        ("Where it fails", summary.fails_words(gallery.failures, groups)),
    ]
    if compared is not None:
        answers.append(("Other runs", summary.compared_words(compared)))
    return Report(
        title=f"Run {names[0]}",
        summary=tuple((question, answer) for question, answer in answers if answer),
        scores=first.scores,
        groups=groups or "Not measured: metrics.json of the evaluation has no groups.",
        plots=_plots(dict(zip(names, scored, strict=True)), history, plots),
        gallery=gallery,
        audits=audits,
        worst_pseudo_masks=worst,
        settings=first.run.config,
        versions=_versions(first.evaluation),
        checksums=_checksums(first),
        comparison=compared or ONE_RUN,
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as make them distinct; numbered if nothing does."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{folder.resolve().name} ({number})" for number, folder in enumerate(folders, 1)]


def _gallery(scored: ScoredRun) -> Gallery:
    named = scored.evaluation.metrics.get("manifests", [])
    views = StoredViews(scored.folder, scored.evaluation, _found([Path(m["path"]) for m in named]))
    entries = [
        Entry(row.id, row.kind, row.region > 0, row.f1, row.iou, row.flagged)
        for row in scored.evaluation.rows
    ]
    return make_gallery(entries, views.draw)


def _found(paths: Sequence[Path]) -> list[Manifest]:
    """The manifests that are still there."""
    return [read_manifest(path) for path in paths if path.exists()]


def _training(
    scored: ScoredRun, history: History
) -> tuple[str, tuple[Audit, ...] | str, tuple[Row, ...]]:
    """What was trained on what, in words; the audits of the pseudo-masks; the worst of them."""
    try:
        paths = scored.run.manifests("train")
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise UserError(f"{missing[0]} is not there; run `report` where the training ran")
    except UserError as error:
        return f"Not known: {error}.", f"Not known: {error}.", ()
    manifests = _found(paths)
    taught = what_was_taught(scored.run.config, manifests)
    pairs = [(manifest, read_audit(manifest.path)) for manifest in manifests]
    audits = tuple(audit for _, audit in pairs if audit is not None)
    words = training_words(
        scored.run.config,
        taught,
        [audit.teacher for audit in audits],
        last_epoch(history),
        best_validation(history),
    )
    if not taught.annotations["pseudo"]:
        return words, "None: this run was not trained on pseudo-masks.", ()
    worst = (worst_pseudo_masks(m, audit.worst) for m, audit in pairs if audit is not None)
    rows = tuple(row for some in worst for row in some)
    return words, audits or "Not measured: there is no summary.json beside the manifest.", rows


def _plots(
    scored: Mapping[str, ScoredRun], history: History, folder: Path | None
) -> tuple[Plot, ...]:
    first = next(iter(scored.values()))
    metrics = {name: one.evaluation.metrics for name, one in scored.items()}
    f1, both, roc = (
        {name: points(one, curve) for name, one in metrics.items()}
        for curve in ("f1", "precision_recall", "roc")
    )
    baseline = first.scores.get("full_f1", UNKNOWN).value
    return (
        threshold_plot(f1, finite(baseline), folder, _best_words(first)),
        precision_recall_plot(both, folder),
        roc_plot(roc, folder),
        robustness_plot(first.run.folder, folder),
        *training_plots(history, folder),
    )


def _best_words(scored: ScoredRun) -> str:
    best = scored.evaluation.metrics.get("scores", {}).get("best_f1", {})
    if best.get("value") is None or best.get("best_f1_threshold") is None:
        return ""
    return (
        f"The highest is {best['value']:.3f} at {best['best_f1_threshold']:.3g}; chosen on these "
        "very images, so it flatters."
    )


def _versions(evaluation: Evaluation) -> dict[str, str]:
    found = {str(name): str(text) for name, text in evaluation.metrics.get("versions", {}).items()}
    here = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    return found | {name: text for name, text in here.items() if name not in found}


def _checksums(scored: ScoredRun) -> dict[str, str]:
    """Of the files that the run and its scores were made of; those that are gone are left out."""
    run = scored.run
    paths = [scored.checkpoint, run.folder / "config.yaml"]
    for split in ("train", "val"):
        paths += [Path(str(path)) for path in run.config["data"].get(split) or []]
    found = {str(path): sha256_file(path) for path in paths if path.is_file()}
    found |= {m["path"]: m["sha256"] for m in scored.evaluation.metrics.get("manifests", [])}
    for path in (scored.folder / "metrics.json", scored.folder / "per_image.csv"):
        found[str(path)] = sha256_file(path)
    return found
