"""The course of a training, from the metrics.csv that Lightning's CSVLogger leaves in a run."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boxpromptiml.errors import UserError

History = Mapping[str, Sequence[tuple[int, float]]]

_CURVES = ("train/loss", "val/pixel_f1", "val/iou", "val/auc", "val/image_auc")
_CHOICE = "val/pixel_f1"


class Best(NamedTuple):
    """The validation with the highest pixel F1, of how many; epochs count from 1."""

    epoch: int
    score: float
    of: int


def read_history(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Loss and validation scores by epoch, counted from 1; empty where nothing was logged.

    A training that went on from a checkpoint left its earlier epochs in metrics_before_N.csv.

    Raises:
        UserError: If a file is no such table.
    """
    earlier = sorted(run.glob("metrics_before_*.csv"), key=_number, reverse=True)
    found: dict[str, dict[int, float]] = {}
    first = math.inf
    for path in [run / "metrics.csv", *earlier]:
        if not path.exists():
            continue
        part = _read(path)
        epochs = [epoch for curve in part.values() for epoch in curve]
        if epochs and min(epochs) < first:
            for name, curve in part.items():
                before = {epoch: value for epoch, value in curve.items() if epoch < first}
                found[name] = before | found.get(name, {})
            first = min(epochs)
        if first <= 1:  # what lies before was another training
            break
    return {name: sorted(found[name].items()) for name in _CURVES if found.get(name)}


def _number(path: Path) -> int:
    text = path.stem.removeprefix("metrics_before_")
    return int(text) if text.isdecimal() else -1


def _read(path: Path) -> dict[str, dict[int, float]]:
    """Value by epoch of each curve: the mean of a loss, the last value of a score."""
    curves: dict[str, dict[int, list[float]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                for name in _CURVES:
                    if row.get("epoch") and row.get(name):
                        epoch = int(float(row["epoch"])) + 1
                        values = curves.setdefault(name, {}).setdefault(epoch, [])
                        values.append(float(row[name]))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot read the training's log: {error}") from error
    return {
        name: {
            epoch: math.fsum(values) / len(values) if name.endswith("loss") else values[-1]
            for epoch, values in curve.items()
        }
        for name, curve in curves.items()
    }


def best_validation(history: History) -> Best | None:
    """The first epoch with the highest validation F1, by which `fit` chooses the checkpoint."""
    known = [(score, -epoch) for epoch, score in history.get(_CHOICE, ()) if math.isfinite(score)]
    if not known:
        return None
    score, epoch = max(known)
    return Best(-epoch, score, len(known))


def last_epoch(history: History) -> int:
    """How many epochs were logged; 0 for none."""
    return max((epoch for curve in history.values() for epoch, _ in curve), default=0)
