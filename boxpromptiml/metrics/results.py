"""An evaluation on disk: metrics.json, and per_image.csv with a row for every image."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import csv_text, write_json, write_text
from boxpromptiml.io.strict_json import parse_json

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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        metrics: The content of metrics.json; None stands for an undefined score.
        rows: One row per image, in the manifests' order.
    """

    metrics: dict[str, Any]
    rows: tuple[ImageRow, ...]


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write both files, metrics.json last: where it exists, the rows belong to it."""
    metrics = folder / "metrics.json"
    metrics.unlink(missing_ok=True)
    lines = ([getattr(row, column) for column in COLUMNS] for row in evaluation.rows)
    write_text(folder / "per_image.csv", csv_text(COLUMNS, lines))
    write_json(metrics, evaluation.metrics)


def read_evaluation(folder: Path) -> Evaluation:
    """Read back what `write_evaluation` wrote.

    Raises:
        UserError: If a file is missing, damaged, or of a newer version.
    """
    path = folder / "metrics.json"
    metrics = parse_json(_text(path), str(path))
    version = metrics.get("schema_version") if isinstance(metrics, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema {version!r}, this version reads {SCHEMA_VERSION}; "
            "run `boxpromptiml evaluate` again"
        )
    table = folder / "per_image.csv"
    reader = csv.DictReader(io.StringIO(_text(table), newline=""))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise UserError(f"{table}: columns are not {','.join(COLUMNS)}; run evaluate again")
    try:
        rows = tuple(_row(cells) for cells in reader)
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{table}:{reader.line_num}: {error}; run evaluate again") from error
    return Evaluation(metrics, rows)


def _text(path: Path) -> str:
    try:
        # As bytes: universal newlines would change a \r inside a cell.
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read: {error}; `boxpromptiml evaluate` writes it"
        ) from error


def _row(cells: dict[str, str]) -> ImageRow:
    if None in cells.values() or len(cells) > len(COLUMNS):
        raise ValueError(f"must have {len(COLUMNS)} cells")
    texts = {name: cells[name].removeprefix("'") for name in _TEXTS}
    numbers = {
        name: float(cells[name]) if cells[name] else math.nan
        for name in COLUMNS
        if name not in (*_TEXTS, "label", "height", "width")
    }
    return ImageRow(
        label=int(cells["label"]) if cells["label"] else None,
        height=int(cells["height"]),
        width=int(cells["width"]),
        **texts,  # type: ignore[arg-type]
        **numbers,  # type: ignore[arg-type]
    )


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
    return f"{head}{_aligned(lines)}\n{middle}\n{_aligned(others)}"


def _line(name: str, scores: dict[str, Any], count: int) -> list[str]:
    return [name, str(count), *(_cell(scores.get(column)) for column in _COLUMNS)]


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
