"""An evaluation on disk: metrics.json, and per_image.csv with a row for every image."""

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import atomic_writer, csv_text, json_text, plain_cell, read_text
from boxpromptiml.io.strict_json import parse_as, parse_json

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class ImageRow:
    """Scores of one image, in the order of the columns; nan and None are empty cells.

    Attributes:
        id: Id of the sample.
        dataset: Name of the sample's dataset.
        kind: Forgery kind, empty where there is none.
        group: Siblings of one source image.
        label: 0 authentic, 1 manipulated, None unknown.
        height: Height of the stored image in pixels.
        width: Width of the stored image in pixels.
        image_score: Score in [0, 1] that the image is manipulated.
        f1: Pixel F1 as the preset defines it; nan if the image is not part of the mean.
        iou: Pixel IoU; nan as for `f1`.
        auc: Pixel AUC; nan as for `f1`.
        precision: Pixel precision; nan as for `f1`, and if nothing is flagged.
        recall: Pixel recall; nan as for `f1`.
        flagged: Fraction of the pixels above the threshold.
        region: Fraction of the stored pixels that are manipulated.
        region_size: Size class of the region, empty without manipulated pixels.
        name: Name of the prediction file, without .png.
    """

    id: str
    dataset: str
    kind: str
    group: str
    label: int | None
    height: int
    width: int
    image_score: float
    f1: float
    iou: float
    auc: float
    precision: float
    recall: float
    flagged: float
    region: float
    region_size: str
    name: str


COLUMNS = tuple(field.name for field in fields(ImageRow))
_TEXTS = ("id", "dataset", "kind", "group", "region_size", "name")
_ROW = TypeAdapter(ImageRow)
_MAX_TABLE = 2**30  # bytes of per_image.csv
_MEANS = {
    "pixel_f1": "f1",
    "iou": "iou",
    "auc": "auc",
    "precision": "precision",
    "recall": "recall",
}
_ROUNDING = 1e-4  # tables may be stored with four digits


@dataclass(frozen=True)
class _Score:
    """One score of metrics.json; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    count: int
    best_f1_threshold: float | None = None


@dataclass(frozen=True)
class _Labels:
    manipulated: int
    authentic: int
    unknown: int


@dataclass(frozen=True)
class _Bootstrap:
    resamples: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0)]
    level: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class _Named:
    path: str
    sha256: str


def _has_count(group: dict[str, _Score | int]) -> dict[str, _Score | int]:
    if [name for name, value in group.items() if isinstance(value, int)] != ["count"]:
        raise ValueError("must hold scores and their count")
    return group


Group = Annotated[dict[str, _Score | int], AfterValidator(_has_count)]


@dataclass(frozen=True)
class _Metrics:
    """What metrics.json must hold; more is left alone."""

    preset: str
    threshold: float
    split: str | None
    manifests: list[_Named]
    predictions: str
    image_score: Literal["predictions", "maximum"]
    images: _Labels
    scores: dict[str, _Score]
    groups: dict[str, dict[str, Group]]
    curves: dict[str, list[tuple[float, float]]]
    versions: dict[str, str]
    bootstrap: _Bootstrap


_METRICS = TypeAdapter(_Metrics)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` finds.

    Attributes:
        metrics: The content of metrics.json; None stands for what is undefined.
        rows: In the manifests' order.
    """

    metrics: dict[str, Any]
    rows: tuple[ImageRow, ...]


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write metrics.json and per_image.csv.

    Both are complete on the disk before either takes its place, so earlier scores stay if the disk
    is full. metrics.json comes last and is gone in between: where it is, the rows belong to it.

    Args:
        folder: Made if it is not there.
        evaluation: What to write.
    """
    metrics, table = folder / "metrics.json", folder / "per_image.csv"
    lines = ([getattr(row, column) for column in COLUMNS] for row in evaluation.rows)
    with atomic_writer(metrics) as head, atomic_writer(table) as rows:
        head.write(json_text(evaluation.metrics).encode("utf-8", errors="backslashreplace"))
        rows.write(csv_text(COLUMNS, lines).encode("utf-8", errors="backslashreplace"))
        for stream in (head, rows):
            stream.flush()
            os.fsync(stream.fileno())
        metrics.unlink(missing_ok=True)


def read_evaluation(folder: Path) -> Evaluation:
    """Read back what `write_evaluation` wrote.

    Raises:
        UserError: If a file is missing, damaged, or of a newer version.
    """
    path, table = folder / "metrics.json", folder / "per_image.csv"
    text = _text(path)
    metrics = parse_json(text, str(path))
    version = metrics.get("schema_version") if isinstance(metrics, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema {version!r}, this version reads {SCHEMA_VERSION}; "
            "run `boxpromptiml evaluate` again"
        )
    parse_as(_METRICS, text, str(path), strict=True)
    reader = csv.DictReader(io.StringIO(_text(table), newline=""))
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{table}: columns are not {','.join(COLUMNS)}; run evaluate again")
        rows = tuple(_row(cells) for cells in reader)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{first['loc'][0]}: {first['msg']}; run evaluate again"
        raise UserError(f"{table}:{reader.line_num}: {message}") from error
    except (ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{table}:{reader.line_num}: {error}; run evaluate again") from error
    if not _fit(metrics, rows):
        raise UserError(f"{table}: its rows are not those of the scores in {path}; evaluate again")
    return Evaluation(metrics, rows)


def _fit(metrics: dict[str, Any], rows: Sequence[ImageRow]) -> bool:
    """Whether the scores are the means of the rows: none was cut off, added or edited."""
    labels, images = Counter(row.label for row in rows), metrics["images"]
    counted = {"manipulated": labels[1], "authentic": labels[0], "unknown": labels[None]}
    found = len({row.id for row in rows}) == len(rows) and counted == images
    for name, column in _MEANS.items():
        score = metrics["scores"].get(name)
        values = [v for row in rows if not math.isnan(v := getattr(row, column))]
        if score is not None and found:
            mean = sum(values) / len(values) if values else None
            found = len(values) == score["count"] and (
                mean == score["value"]
                if mean is None or score["value"] is None
                else abs(mean - score["value"]) <= _ROUNDING
            )
    return found


def _text(path: Path) -> str:
    try:
        return read_text(path, _MAX_TABLE)
    except UserError as error:
        raise UserError(f"{error}; `boxpromptiml evaluate` writes it") from error


def _row(cells: dict[str, str]) -> ImageRow:
    if None in cells.values() or len(cells) > len(COLUMNS):
        raise ValueError(f"must have {len(COLUMNS)} cells")
    fields_ = {
        name: plain_cell(cell) if name in _TEXTS else cell or math.nan
        for name, cell in cells.items()
    }
    row = _ROW.validate_python(fields_ | {"label": cells["label"] or None})
    for field in fields(ImageRow):
        value = getattr(row, field.name)
        if isinstance(value, float) and not (0 <= value <= 1 or math.isnan(value)):
            raise ValueError(f"{field.name}: {value} is not in [0, 1]")
    return row


_COLUMNS = {"pixel_f1": "pixel F1", "iou": "IoU", "auc": "AUC", "false_alarm_pixels": "pixel FPR"}
_OTHERS = {
    "precision": "pixel precision",
    "recall": "pixel recall",
    "best_f1": "best pixel F1",
    "false_alarm_images": "image FPR",
    "image_auc": "image AUC",
    "image_f1": "image F1",
    "image_accuracy": "image accuracy",
    "combined_f1": "combined F1",
}
_NAMES = _COLUMNS | _OTHERS | {"best_f1_threshold": "its threshold"}
_COARSE = "coarse_"  # prefix of the scores of WCBnet's map before its refinement
_FEW = "-: undefined, since no image has what the score needs\n"


def score_list(scores: Mapping[str, float]) -> str:
    """Mean scores as lines of name and value; an undefined one names the images that it needs.

    Args:
        scores: By key, such as `pixel_f1`; nan where undefined. Other keys stay as they are.
    """
    rows = []
    for key, value in scores.items():
        score = key.removeprefix(_COARSE)
        name = _NAMES.get(score, score.replace("_", " "))
        shown = f"-  (there are no {_needed(score)})" if math.isnan(value) else f"{value:.4f}"
        rows.append([f"coarse {name}" if score != key else name, shown])
    return _aligned(rows)


def _needed(score: str) -> str:
    if score.startswith("false_alarm"):
        return "authentic images"
    if score.startswith("image_"):
        return "images of both labels"
    return "manipulated images with a mask"


def score_table(metrics: dict[str, Any]) -> str:
    """The content of metrics.json as a table: all images, then datasets, kinds, region sizes.

    The pixel FPR is the mean fraction of an authentic image that is flagged.
    """
    level = f"{100 * metrics['bootstrap']['level']:g} %"
    counts = metrics["images"]
    lines = [["", "images", *_COLUMNS.values()]]
    lines.append(_line("all", metrics["scores"], sum(counts.values())))
    for group, members in metrics["groups"].items():
        if group != "dataset" or len(members) > 1:
            lines += [
                _line(f"{group.replace('_', ' ')} {name}", scores, scores["count"])
                for name, scores in members.items()
            ]
    scores = metrics["scores"]
    known = [(text, scores[name]) for name, text in _OTHERS.items() if name in scores]
    others = [["", "images", "score"]] + [[t, str(s["count"]), _cell(s)] for t, s in known]
    head = (
        f"preset {metrics['preset']}, threshold {metrics['threshold']:g}: "
        f"{counts['manipulated']} manipulated, {counts['authentic']} authentic, "
        f"{counts['unknown']} unknown; [{level} intervals]\n"
    )
    source = {"predictions": "predictions.jsonl", "maximum": "each map's maximum"}
    middle = f"image scores: {source[metrics['image_score']]}"
    undefined = _FEW if "-" in (cell for line in lines + others for cell in line) else ""
    return f"{head}{_aligned(lines)}\n{middle}\n{_aligned(others)}{undefined}"


def _line(name: str, scores: dict[str, Any], count: int) -> list[str]:
    return [name, str(count), *(_cell(scores.get(column)) for column in _COLUMNS)]


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    if score["low"] is None or score["high"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
