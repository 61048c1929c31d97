"""The answers at the top of a run's report, in sentences: scored on what, how good, how sure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from boxpromptiml.metrics.results import Evaluation
from boxpromptiml.report.comparison import Comparison
from boxpromptiml.report.page import GroupTable
from boxpromptiml.report.text import METRICS, Scores, amount, listing, verdict, with_bounds
from boxpromptiml.report.training import data_sets

_FEW_GROUPS = 30
_FEW_IMAGES = 10  # less say nothing of a kind


def scored_words(evaluation: Evaluation, checkpoint: str) -> str:
    """What was scored, and how."""
    metrics = evaluation.metrics
    counts = metrics.get("images", {})
    kinds = [
        f"{counts[name]:,} {name}" for name in ("manipulated", "authentic") if counts.get(name)
    ]
    if counts.get("unknown"):
        kinds.append(f"{counts['unknown']:,} of unknown label")
    datasets = sorted({row.dataset for row in evaluation.rows})
    split = metrics.get("split")
    part = f"the {split} images" if split else "all images"
    text = f"{checkpoint} on {part} of {data_sets(datasets)}: {listing(kinds)}. "
    text += f"A pixel is flagged where its probability is above {metrics.get('threshold', 0.5):g}"
    preset = metrics.get("preset", "default")
    return text + ("." if preset == "default" else f"; scored by the policy of preset {preset}.")


def good_words(scores: Scores) -> str:
    """The verdict on pixels, and what happens on authentic images."""
    found = [verdict(scores)]
    if not found[0] and "pixel_f1" in scores:
        found = [f"Mean pixel F1 {with_bounds(scores['pixel_f1'])} on manipulated images."]
    alarms = {key: scores.get(key) for key in ("false_alarm_pixels", "false_alarm_images")}
    area, whole = (
        with_bounds(score, "share") if score and math.isfinite(score.value) else ""
        for score in alarms.values()
    )
    if area and whole:
        found.append(
            f"On authentic images it falsely flags {area} of the area; by its image score it takes "
            f"{whole} of them for manipulated."
        )
    return " ".join(filter(None, found))


def sure_words(evaluation: Evaluation) -> str:
    """What the intervals are, and what they leave out."""
    bootstrap: Mapping[str, Any] = evaluation.metrics.get("bootstrap") or {}
    if not bootstrap:
        return "No intervals were computed."
    with_f1 = [row for row in evaluation.rows if math.isfinite(row.f1)]
    rows = with_f1 or evaluation.rows
    groups = len({row.group for row in rows})
    drawn = f"in {amount(groups, 'group')} of images that share a source"
    if groups == len(rows):
        drawn = "where each image counts as its own group"
    text = (
        f"Brackets are {100 * bootstrap.get('level', 0.95):g} % intervals of a bootstrap "
        f"({bootstrap.get('resamples', 0):,} draws) over {amount(len(rows), 'image')}"
        f"{' with an F1' if with_f1 else ''}, {drawn}. They hold for images like these; another "
        "seed of training is not in them."
    )
    if groups < _FEW_GROUPS:
        text += f" With only {amount(groups, 'group')} they are too narrow."
    return text


def fails_words(failures: str, groups: Sequence[GroupTable]) -> str:
    """How many images fail, and the groups with the lowest F1 of those whose F1 is known."""
    found = [failures]
    for table in groups:
        if table.columns[0] != METRICS["pixel_f1"].name:
            continue
        known = [
            (group.scores[0].at, group.name, group.scores[0])
            for group in table.groups
            if group.scores[0].at is not None and group.scores[0].images >= _FEW_IMAGES
        ]
        if len(known) > 1:
            _, name, f1 = min(known, key=lambda one: one[0])
            found.append(
                f"{table.title}, F1 is lowest for {name}: {f1.value} {f1.bounds}".rstrip()
                + f", {amount(f1.images, 'image')}."
            )
    return " ".join(filter(None, found))


def compared_words(comparison: Comparison) -> str:
    """The difference in F1 to every other run, said from the side of the first."""
    found = [
        f"{run.name}: F1 {f1.value} {f1.bounds} ({f1.judgement}) over "
        f"{amount(f1.images, 'common manipulated image')}"
        for run in comparison.runs[1:]
        for f1 in run.differences[:1]
    ]
    return f"Compared with {comparison.runs[0].name}, {'; '.join(found)}." if found else ""
