"""What a run was trained on, by its config.yaml and the manifests named there, and in words."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from boxpromptiml.data.supervision import Annotation, SourceWeights, Supervision, training_target
from boxpromptiml.errors import UserError
from boxpromptiml.io.strict_json import parse_json
from boxpromptiml.manifests.manifest import Manifest
from boxpromptiml.manifests.splits import nested_fraction
from boxpromptiml.report.text import amount, listing

Config = Mapping[str, Any]

_ORIGINS = {
    "human": "drawn by people",
    "cam": "from the activation maps of a network that knew image labels only",
    "mask": "simulated from the ground-truth masks",
    None: "of an origin that nobody recorded",
}


History = Mapping[str, Sequence[tuple[int, float]]]

_CURVES = ("train/loss", "val/pixel_f1", "val/iou", "val/auc", "val/image_auc")
_CHOICE = "val/pixel_f1"


class Best(NamedTuple):
    """The validation with the highest pixel F1, of how many; epochs count from 1."""

    epoch: int
    score: float
    of: int


@dataclass(frozen=True)
class Taught:
    """What the training images taught with.

    Attributes:
        annotations: How many manipulated images taught with each.
        origins: Where the boxes came from that pseudo-masks and filled boxes were made of.
        authentic: How many authentic images took part.
        datasets: Names, sorted.
    """

    annotations: Counter[Annotation]
    origins: Counter[str | None]
    authentic: int
    datasets: tuple[str, ...]


class Audit(NamedTuple):
    """What the pseudo-mask job said of one training manifest.

    Attributes:
        path: Of its summary.json.
        teacher: Name of the teacher.
        facts: Name, value and meaning.
        worst: Id and IoU of the pseudo-masks that overlap least with the ground truth.
    """

    path: str
    teacher: str
    facts: tuple[tuple[str, str, str], ...]
    worst: tuple[tuple[str, float], ...]


def section(config: Config, dotted: str) -> dict[str, Any]:
    """The mapping under a dotted key; empty where there is none."""
    found: Any = config
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def what_was_taught(config: Config, manifests: Sequence[Manifest]) -> Taught:
    """Count the training images as `fit` chooses them.

    Raises:
        UserError: If `data` of the configuration has other settings than `fit` takes.
    """
    data = section(config, "data")
    supervision: Supervision = data.get("supervision", "pseudo")
    try:
        weights = SourceWeights(**section(config, "data.weights"))
    except TypeError as error:
        raise UserError(f"config.yaml: data.weights: {error}") from error
    samples = [s for manifest in manifests for s in manifest.samples if s.split == "train"]
    chosen: set[str] = set()
    for label in (0, 1):
        ids = [sample.id for sample in samples if sample.label == label]
        chosen |= nested_fraction(
            ids, float(data.get("train_fraction", 1.0)), int(data.get("seed", 0))
        )
    annotations: Counter[Annotation] = Counter()
    origins: Counter[str | None] = Counter()
    datasets: set[str] = set()
    authentic = 0
    for sample in samples:
        taught = training_target(sample, supervision, weights)
        authentic_too = data.get("include_authentic", True)
        if sample.id not in chosen or taught is None or (sample.label == 0 and not authentic_too):
            continue
        datasets.add(sample.dataset)
        if sample.label == 0:
            authentic += 1
            continue
        annotations[taught.annotation] += 1
        if taught.annotation in ("pseudo", "box"):
            origins[sample.box_origin] += 1
    return Taught(annotations, origins, authentic, tuple(sorted(datasets)))


def read_audit(manifest: Path) -> Audit | None:
    """What summary.json beside a manifest says of its pseudo-masks; None without one.

    Raises:
        UserError: If the file is there, but no such summary.
    """
    path = manifest.parent / "summary.json"
    if not path.exists():
        return None
    try:
        summary = parse_json(path.read_text(encoding="utf-8"), str(path))
        found, status = summary.get("audit", {}), summary.get("status", {})
        teacher = str(summary["teacher"]["name"])
        facts = [("Teacher", teacher, "")]
        facts += [(f"Images: {name}", f"{count:,}", "") for name, count in status.items()]
        facts.append(("Audited images", f"{found.get('images', 0):,}", "Those with a known truth."))
        for key, name, meaning in (
            ("iou", "Mean IoU", "Overlap with the ground truth, unsure pixels left out."),
            ("f1", "Mean F1", "Likewise."),
        ):
            if key in found:
                facts.append((name, f"{found[key]:.3f}", meaning))
        if "unsure" in found:
            facts.append(("Unsure pixels", f"{100 * found['unsure']:.1f} %", "Mean share."))
        worst = tuple((str(row["id"]), float(row["iou"])) for row in found.get("worst", []))
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: is not what the pseudo-mask job writes: {error}") from error
    return Audit(str(path), teacher, tuple(facts), worst)


def student_words(config: Config) -> str:
    """The network in words: what it is and where its weights started."""
    settings = section(config, "model.init_args")
    name = str(config.get("model", {}).get("class_path", "")).rpartition(".")[2]
    inner = "student" if "student" in settings else "wcbnet"
    backbone = section(settings, inner).get("backbone", "an unknown backbone")
    kind = {"DistillTask": "student", "ImageLabelTask": "WCBnet (image labels only)"}
    start = settings.get("pretrained")
    weights = f"weights that started from {start}" if start else "weights that started at random"
    return f"A {kind.get(name, name or 'network')} on {backbone} with {weights}"


def training_words(
    config: Config, taught: Taught, teachers: Sequence[str], epochs: int, best: Best | None
) -> str:
    """What was trained on what, for how long, in plain sentences."""
    count = sum(taught.annotations.values())
    made = listing(sorted(set(teachers))) or "unnamed"
    how: dict[Annotation, str] = {
        "mask": "by ground-truth masks",
        "pseudo": f"by pseudo-masks of the {made} teacher",
        "box": "by filled boxes",
        "label": "by their image label alone",
    }
    shares = [f"{taught.annotations[a]:,} {how[a]}" for a in how if taught.annotations[a]]
    if len(shares) == 1:
        shares = [how[next(iter(taught.annotations))]]
    planned = section(config, "trainer").get("max_epochs")
    length = amount(epochs, "epoch") if epochs else f"at most {planned} epochs"
    if epochs and planned not in (None, -1, epochs):
        length += f" of {planned}"
    text = (
        f"{student_words(config)} learnt for {length} from "
        f"{amount(count + taught.authentic, 'image')} of {data_sets(taught.datasets)}: "
        f"{count:,} manipulated, taught {listing(shares)}, and {taught.authentic:,} authentic."
    )
    if taught.origins:
        text += f" The boxes were {_origin_words(taught.origins)}."
    if best is not None:
        when = f"after epoch {best.epoch} (F1 {best.score:.3f})"
        text += (
            f" Validated once, {when}."
            if best.of == 1
            else (f" Best of {best.of} validations: {when}; best.ckpt is from then.")
        )
    return text


def data_sets(names: Sequence[str]) -> str:
    """Their names in a sentence."""
    quoted = [f"“{name}”" for name in names]
    return f"data {'set' if len(quoted) == 1 else 'sets'} {listing(quoted)}"


def _origin_words(origins: Counter[str | None]) -> str:
    if len(origins) == 1:
        return _ORIGINS[next(iter(origins))]
    return listing([f"{_ORIGINS[o]} ({origins[o]:,})" for o in _ORIGINS if origins[o]])


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
