"""Training data and history of a run, from its folder and manifests."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from boxpromptiml.data.supervision import Annotation, SourceWeights, Supervision, training_target
from boxpromptiml.errors import UserError
from boxpromptiml.io.files import read_text
from boxpromptiml.io.strict_json import read_as
from boxpromptiml.manifests.manifest import Manifest
from boxpromptiml.manifests.splits import nested_fraction

Config = Mapping[str, Any]
History = Mapping[str, Sequence[tuple[int, float]]]  # (epoch from 1, value) by name as logged

_CURVES = ("train/loss", "val/pixel_f1", "val/iou", "val/auc", "val/image_auc")
_CHOICE = "val/pixel_f1"
_MAX_LOG = 2**28  # bytes


@dataclass(frozen=True)
class TrainingImages:
    """The images that a run was trained on.

    Attributes:
        annotations: Number of manipulated images by kind of supervision.
        origins: Origins of the boxes behind pseudo-masks and filled boxes.
        authentic: Number of authentic images.
        datasets: Their names, sorted.
    """

    annotations: Counter[Annotation]
    origins: Counter[str | None]
    authentic: int
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """Summary of the pseudo-mask job for one training manifest.

    Attributes:
        path: Path of its summary.json.
        teacher: Name of the teacher.
        status: Number of images by status.
        images: Number of pseudo-masks compared with ground truth.
        iou: Their mean IoU, unsure pixels left out; None if it was not measured.
        f1: Their mean F1, unsure pixels left out; None if it was not measured.
        unsure: Mean fraction of unsure pixels; None if it was not measured.
        worst: Id and IoU of the pseudo-masks that overlap least with the ground truth.
    """

    path: Path
    teacher: str
    status: Mapping[str, int]
    images: int
    iou: float | None
    f1: float | None
    unsure: float | None
    worst: tuple[tuple[str, float], ...]


class BestEpoch(NamedTuple):
    """The validation with the highest pixel F1.

    Attributes:
        epoch: Counted from 1.
        score: The pixel F1.
        validations: Number of validations with a pixel F1.
    """

    epoch: int
    score: float
    validations: int


@dataclass(frozen=True)
class Training:
    """A training as the page describes it.

    Attributes:
        task: Class name of the LightningModule, such as DistillTask; may be empty.
        backbone: Backbone of the network; may be empty.
        pretrained: Weights that the network started from; None for random ones.
        planned: `trainer.max_epochs`; None or -1 for no limit.
        epochs: Number of logged epochs.
        best: The best validation; None if none was logged.
        images: The images.
        audits: Audits of the pseudo-masks, one per manifest that has one.
    """

    task: str
    backbone: str
    pretrained: str | None
    planned: int | None
    epochs: int
    best: BestEpoch | None
    images: TrainingImages
    audits: tuple[Audit, ...]


def describe_training(config: Config, manifests: Sequence[Manifest], history: History) -> Training:
    """Describe a training.

    Args:
        config: The content of config.yaml.
        manifests: The manifests of `data.train`.
        history: Logged values, see `read_history`.

    Raises:
        UserError: If the configuration or a summary.json is malformed.
    """
    model = section(config, "model.init_args")
    network = section(model, "student" if "student" in model else "wcbnet")
    audits = [read_audit(manifest.path) for manifest in manifests]
    return Training(
        task=str(section(config, "model").get("class_path", "")).rpartition(".")[2],
        backbone=str(network.get("backbone", "")),
        pretrained=model.get("pretrained"),
        planned=section(config, "trainer").get("max_epochs"),
        epochs=max((epoch for curve in history.values() for epoch, _ in curve), default=0),
        best=best_validation(history),
        images=count_images(config, manifests),
        audits=tuple(audit for audit in audits if audit is not None),
    )


def section(config: Config, dotted: str) -> dict[str, Any]:
    """The mapping under a dotted key; empty where there is none."""
    found: Any = config
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class _Data:
    """The settings of `data` that choose the training images."""

    supervision: Supervision = "pseudo"
    weights: SourceWeights = SourceWeights()
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0
    include_authentic: bool = True


_DATA = TypeAdapter(_Data)


def _data(config: Config) -> _Data:
    values = section(config, "data")
    known = {field.name: values[field.name] for field in fields(_Data) if field.name in values}
    unknown = section(config, "data.weights").keys() - {one.name for one in fields(SourceWeights)}
    if unknown:
        raise UserError(f"config.yaml: data.weights: no such source as {sorted(unknown)[0]!r}")
    try:
        return _DATA.validate_python(known)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"config.yaml: data.{place}: {first['msg']}") from error


def count_images(config: Config, manifests: Sequence[Manifest]) -> TrainingImages:
    """Count the training images as `fit` chooses them.

    Raises:
        UserError: If `data` of the configuration has other settings than `fit` takes.
    """
    data = _data(config)
    samples = [s for manifest in manifests for s in manifest.samples if s.split == "train"]
    chosen: set[str] = set()
    for label in (0, 1):
        ids = [sample.id for sample in samples if sample.label == label]
        chosen |= nested_fraction(ids, data.train_fraction, data.seed)
    annotations: Counter[Annotation] = Counter()
    origins: Counter[str | None] = Counter()
    datasets: set[str] = set()
    authentic = 0
    for sample in samples:
        target = training_target(sample, data.supervision, data.weights)
        left_out = sample.label == 0 and not data.include_authentic
        if sample.id not in chosen or target is None or left_out:
            continue
        datasets.add(sample.dataset)
        if sample.label == 0:
            authentic += 1
            continue
        annotations[target.annotation] += 1
        if target.annotation in ("pseudo", "box"):
            origins[sample.box_origin] += 1
    return TrainingImages(annotations, origins, authentic, tuple(sorted(datasets)))


@dataclass(frozen=True)
class _Teacher:
    name: str


@dataclass(frozen=True)
class _Worst:
    id: str
    iou: float


@dataclass(frozen=True)
class _Measured:
    images: int = 0
    iou: float | None = None
    f1: float | None = None
    unsure: float | None = None
    worst: tuple[_Worst, ...] = ()


@dataclass(frozen=True)
class _Summary:
    teacher: _Teacher
    status: dict[str, int] = field(default_factory=dict)
    audit: _Measured = _Measured()


_SUMMARY = TypeAdapter(_Summary)


def read_audit(manifest: Path) -> Audit | None:
    """Read the summary.json beside a manifest; None without one.

    Raises:
        UserError: If the file exists but is not such a summary.
    """
    path = manifest.parent / "summary.json"
    if not path.exists():
        return None
    summary = read_as(_SUMMARY, path)
    return Audit(
        path=path,
        teacher=summary.teacher.name,
        status=summary.status,
        images=summary.audit.images,
        iou=summary.audit.iou,
        f1=summary.audit.f1,
        unsure=summary.audit.unsure,
        worst=tuple((row.id, row.iou) for row in summary.audit.worst),
    )


def read_history(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Loss and validation scores by epoch, counted from 1; empty where nothing was logged.

    A resumed training has its earlier epochs in metrics_before_N.csv.

    Raises:
        UserError: If a file is not such a table.
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
    log = io.StringIO(read_text(path, _MAX_LOG), newline="")
    try:
        for row in csv.DictReader(log):
            for name in _CURVES:
                if row.get("epoch") and row.get(name):
                    epoch = int(float(row["epoch"])) + 1
                    values = curves.setdefault(name, {}).setdefault(epoch, [])
                    values.append(float(row[name]))
    except (ValueError, OverflowError, csv.Error) as error:
        raise UserError(f"{path}: cannot read the training's log: {error}") from error
    return {
        name: {
            epoch: math.fsum(values) / len(values) if name.endswith("loss") else values[-1]
            for epoch, values in curve.items()
        }
        for name, curve in curves.items()
    }


def best_validation(history: History) -> BestEpoch | None:
    """The first epoch with the highest validation F1, by which `fit` chooses the checkpoint.

    None if the history has no such score.
    """
    known = [(score, -epoch) for epoch, score in history.get(_CHOICE, ()) if math.isfinite(score)]
    if not known:
        return None
    score, epoch = max(known)
    return BestEpoch(-epoch, score, len(known))
