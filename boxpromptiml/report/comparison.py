"""Runs beside each other: their scores, paired differences, and where their settings differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from boxpromptiml.manifests.manifest import join_by_key
from boxpromptiml.metrics.bootstrap import difference_interval
from boxpromptiml.metrics.results import Evaluation, ImageRow
from boxpromptiml.report.text import (
    METRICS,
    UNKNOWN,
    Scores,
    Shown,
    amount,
    format_bounds,
    format_value,
    judge,
    show,
)

SCORES = ("pixel_f1", "iou", "auc", "best_f1", "false_alarm_pixels", "image_auc")
_PAIRED = {"pixel_f1": "f1", "iou": "iou", "auc": "auc", "false_alarm_pixels": "flagged"}
_MAX_SETTINGS = 60
_SAME = "same run"


@dataclass(frozen=True)
class RunScores:
    """A run as the comparison sees it.

    Attributes:
        name: How the page calls it.
        scores: Of all its images.
        evaluation: Its images, one by one.
        config: Of its config.yaml.
    """

    name: str
    scores: Scores
    evaluation: Evaluation
    config: Mapping[str, Any]


class Difference(NamedTuple):
    """A run minus the first one, over the images that both were scored on."""

    value: str
    bounds: str
    images: int
    judgement: str


class ComparedRun(NamedTuple):
    """One line of each table."""

    name: str
    scores: tuple[Shown, ...]
    common: int
    differences: tuple[Difference, ...]


class Setting(NamedTuple):
    """A dotted key and its value in each run."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What the page shows of several runs; the first is the one that the report is of.

    Attributes:
        columns: Names of the scores.
        paired: Names of the scores that have differences.
        runs: In the order of the command line.
        notes: What makes the runs hard to compare, a sentence each.
        settings: Where they differ; the run's own folder is written as RUN.
    """

    columns: tuple[str, ...]
    paired: tuple[str, ...]
    runs: tuple[ComparedRun, ...]
    notes: tuple[str, ...]
    settings: tuple[Setting, ...]


def compare(runs: Sequence[RunScores]) -> Comparison:
    """Compare runs with the first of them, image by image."""
    first, *others = runs
    columns = [key for key in SCORES if any(key in run.scores for run in runs)]
    lines = [ComparedRun(first.name, _score_cells(first, columns), len(first.evaluation.rows), ())]
    for run in others:
        common, differences = _differences(run.evaluation, first.evaluation)
        if _is_same(run, first):
            differences = tuple(one._replace(judgement=_SAME) for one in differences)
        lines.append(ComparedRun(run.name, _score_cells(run, columns), common, differences))
    return Comparison(
        columns=tuple(METRICS[key].name for key in columns),
        paired=tuple(METRICS[key].name for key in _PAIRED),
        runs=tuple(lines),
        notes=tuple(note for run in others for note in _notes(run, first)),
        settings=_settings(runs),
    )


def _score_cells(run: RunScores, columns: Sequence[str]) -> tuple[Shown, ...]:
    return tuple(show(key, run.scores.get(key, UNKNOWN)) for key in columns)


def _differences(ours: Evaluation, theirs: Evaluation) -> tuple[int, tuple[Difference, ...]]:
    """How many images are common, and the paired differences over them."""
    pairs, _, _ = join_by_key(*({row.id: row for row in e.rows} for e in (ours, theirs)))
    settings = theirs.metrics.get("bootstrap", {})
    found = []
    for key, field in _PAIRED.items():
        rows = [(a, b) for a, b in pairs.values() if _counts(key, a) and _counts(key, b)]
        interval = UNKNOWN
        if rows:
            interval = difference_interval(
                [getattr(a, field) for a, _ in rows],
                [getattr(b, field) for _, b in rows],
                groups=[b.group for _, b in rows],
                resamples=int(settings.get("resamples", 2000)),
                seed=int(settings.get("seed", 0)),
                level=float(settings.get("level", 0.95)),
            )
        unit = METRICS[key].unit
        value, bounds = (
            format_value(interval.value, unit, True),
            format_bounds(interval, unit, True),
        )
        found.append(Difference(value, bounds, interval.count, judge(key, interval)))
    return len(pairs), tuple(found)


def _counts(key: str, row: ImageRow) -> bool:
    return row.label == (0 if key == "false_alarm_pixels" else 1)


def _is_same(run: RunScores, first: RunScores) -> bool:
    """Whether it is one run, or a copy: settings name the run's folder, so two runs differ."""
    # By their text, as nan is not equal to itself.
    return run.config == first.config and repr(run.evaluation) == repr(first.evaluation)


def _notes(run: RunScores, first: RunScores) -> list[str]:
    if _is_same(run, first):
        return [f"{run.name} and {first.name} are the same run: there is nothing to compare."]
    ours, theirs = (
        {row.id: f"{row.label} {row.region}" for row in one.evaluation.rows} for one in (run, first)
    )
    pairs, more, fewer = join_by_key(ours, theirs)
    notes = []
    if more or fewer:
        notes.append(
            f"{run.name} and {first.name} were scored on different images: "
            f"{amount(len(pairs), 'image is', 'images are')} common, {len(more):,} only of "
            f"{run.name}, {len(fewer):,} only of {first.name}. Only the differences compare like "
            "with like."
        )
    changed = sum(one != other for one, other in pairs.values())
    if changed:
        notes.append(
            f"{amount(changed, 'common image has', 'common images have')} another ground truth in "
            f"{run.name} than in {first.name}."
        )
    for key in ("preset", "threshold", "image_score", "split"):
        values = [one.evaluation.metrics.get(key) for one in (run, first)]
        if values[0] != values[1]:
            notes.append(f"{run.name} was scored with {key} {values[0]}, not {values[1]}.")
    return notes


def _settings(runs: Sequence[RunScores]) -> tuple[Setting, ...]:
    flats = [_relative(run.config) for run in runs]
    keys = list(dict.fromkeys(key for values in flats for key in values))
    rows = [Setting(key, tuple(values.get(key, "not set") for values in flats)) for key in keys]
    return tuple(row for row in rows if len(set(row.values)) > 1)[:_MAX_SETTINGS]


def _relative(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted settings; the run's own folder is no difference."""
    folder = str((config.get("trainer") or {}).get("default_root_dir") or "")
    return {key: value.replace(folder, "RUN") if folder else value for key, value in flat(config)}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values, as the command line takes them."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
