"""Comparison of runs: scores, paired differences, and differing settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from boxpromptiml.manifests.manifest import join_by_key
from boxpromptiml.metrics.bootstrap import Interval, difference_interval
from boxpromptiml.metrics.results import Evaluation, ImageRow
from boxpromptiml.report.run import ScoredRun
from boxpromptiml.report.text import UNKNOWN, Scores, is_finite, metric

_SCORES = ("pixel_f1", "iou", "auc", "best_f1", "false_alarm_pixels", "image_auc")
PAIRED = {"pixel_f1": "f1", "iou": "iou", "auc": "auc", "false_alarm_pixels": "flagged"}
_EVALUATION_SETTINGS = ("preset", "threshold", "image_score", "split")
_MAX_SETTINGS = 60


@dataclass(frozen=True)
class ComparedRun:
    """A run, and its difference from the first one over the images that both were scored on.

    Attributes:
        name: Name on the page.
        scores: Scores over all its images.
        common: Number of images that both runs have.
        only_here: Number of images that only this run has.
        only_first: Number of images that only the first run has.
        other_truth: Number of common images with a different ground truth.
        scored_differently: Settings of the evaluation that differ: here, and of the first run.
        is_same: Whether both are the same run, or copies of it.
        differences: This run minus the first one, paired image by image, by key.
    """

    name: str
    scores: Scores
    common: int
    only_here: int = 0
    only_first: int = 0
    other_truth: int = 0
    scored_differently: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    is_same: bool = False
    differences: Scores = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The part of the page that compares runs.

    Attributes:
        first: The run that the report is of.
        others: The other runs, in the order of the command line.
        columns: Keys of the scores that any of the runs has.
        settings: Values of each setting in which the runs differ, by dotted key, in the order of
            the runs; None where it is not set. A run's own folder is written as RUN.
    """

    first: ComparedRun
    others: tuple[ComparedRun, ...]
    columns: tuple[str, ...]
    settings: Mapping[str, tuple[str | None, ...]]


def compare(runs: Mapping[str, ScoredRun]) -> Comparison:
    """Compare runs with the first of them, image by image.

    Args:
        runs: Two or more, by their names on the page.
    """
    (name, first), *others = runs.items()
    return Comparison(
        first=ComparedRun(name, first.scores, len(first.evaluation.rows)),
        others=tuple(_compared(other_name, other, first) for other_name, other in others),
        columns=tuple(key for key in _SCORES if any(key in run.scores for run in runs.values())),
        settings=_settings([run.run.config for run in runs.values()]),
    )


def _compared(name: str, run: ScoredRun, first: ScoredRun) -> ComparedRun:
    rows = ({row.id: row for row in one.evaluation.rows} for one in (run, first))
    pairs, only_here, only_first = join_by_key(*rows)
    ours, theirs = run.evaluation.metrics, first.evaluation.metrics
    values = {key: (ours.get(key), theirs.get(key)) for key in _EVALUATION_SETTINGS}
    return ComparedRun(
        name=name,
        scores=run.scores,
        common=len(pairs),
        only_here=len(only_here),
        only_first=len(only_first),
        other_truth=sum((a.label, a.region) != (b.label, b.region) for a, b in pairs.values()),
        scored_differently={key: pair for key, pair in values.items() if pair[0] != pair[1]},
        is_same=_is_same(run, first),
        differences={
            key: _difference(key, list(pairs.values()), first.evaluation) for key in PAIRED
        },
    )


def _difference(
    key: str, pairs: list[tuple[ImageRow, ImageRow]], evaluation: Evaluation
) -> Interval:
    label = 0 if key == "false_alarm_pixels" else 1
    rows = [(a, b) for a, b in pairs if a.label == b.label == label]
    if not rows:
        return UNKNOWN
    settings = evaluation.metrics["bootstrap"]
    ours, theirs = ([getattr(row, PAIRED[key]) for row in side] for side in zip(*rows, strict=True))
    return difference_interval(
        ours,
        theirs,
        groups=[b.group for _, b in rows],
        resamples=settings["resamples"],
        seed=settings["seed"],
        level=settings["level"],
    )


def _is_same(run: ScoredRun, first: ScoredRun) -> bool:
    """Whether it is one run, or a copy: settings name the run's folder, so two runs differ."""
    # By their text, as nan is not equal to itself.
    return run.run.config == first.run.config and repr(run.evaluation) == repr(first.evaluation)


def judge(key: str, difference: Interval) -> str:
    """`better`, `worse` or `not clear`, from the interval of a difference of the score `key`."""
    if not (is_finite(difference.low) and is_finite(difference.high)):
        return "not clear"
    if difference.low <= 0 <= difference.high:
        return "not clear"
    return "better" if (difference.low > 0) != metric(key).lower_is_better else "worse"


def _settings(configs: list[dict[str, Any]]) -> dict[str, tuple[str | None, ...]]:
    dotted = [_without_folder(config) for config in configs]
    keys = dict.fromkeys(key for values in dotted for key in values)
    rows = {key: tuple(values.get(key) for values in dotted) for key in keys}
    differing = [(key, values) for key, values in rows.items() if len(set(values)) > 1]
    return dict(differing[:_MAX_SETTINGS])


def _without_folder(config: Mapping[str, Any]) -> dict[str, str]:
    """Settings under dotted names, with the run's own folder replaced by RUN."""
    trainer = config.get("trainer")
    folder = str((trainer if isinstance(trainer, dict) else {}).get("default_root_dir") or "")
    return {key: value.replace(folder, "RUN") if folder else value for key, value in flat(config)}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values of nested settings, as the command line takes them."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
