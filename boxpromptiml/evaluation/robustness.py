"""`boxpromptiml robustness`: scores of a checkpoint on images degraded after the forgery.

Like `test --data.degrade.…`, but for many degradations in one run and with intervals.
"""

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from boxpromptiml.errors import EXIT_OK, UserError
from boxpromptiml.evaluation.degraded import SCORES, DegradedTest
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.shipped import weights_file
from boxpromptiml.io.files import sha256_file, write_json, write_text
from boxpromptiml.io.options import AtLeastOne, Seed
from boxpromptiml.io.outputs import ROBUSTNESS
from boxpromptiml.io.processes import keep_freed_memory
from boxpromptiml.io.strict_json import read_as, read_json
from boxpromptiml.manifests.sources import Source, read_sources, require_truth
from boxpromptiml.metrics.bootstrap import Interval, difference_interval
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.synth.degradation import PLATFORMS, Degradation, expand, severity
from boxpromptiml.visualization.plots import Condition, robustness_figure, save_figure

SCHEMA_VERSION = 1
_SETTINGS = ("checkpoint", "manifests", "split", "threshold", "seed", "segmenter")

Robustness = dict[str, Any]  # the content of robustness.json


def robustness(
    manifest: list[Path],
    out: Path,
    checkpoint: Path | None = None,
    split: Literal["test", "val"] = "test",
    conditions: list[str] = ["full"],  # noqa: B006 (never changed)
    threshold: float | None = None,
    batch_size: AtLeastOne = 8,
    device: str = "auto",
    seed: Seed = 0,
    segmenter: SegmenterConfig | None = None,
) -> int:
    """Score a checkpoint on degraded images: JPEG, blur, noise, rescaling, social networks.

    Writes robustness.json, robustness.csv, robustness.png and robustness.svg: mean pixel F1, IoU,
    AUC and pixel FPR, each with a 95 % interval, under every condition and for the stored images,
    and the paired change of F1 from the latter. The JSON file is rewritten after every condition,
    and conditions already in it are not computed again, so an interrupted run resumes and
    conditions can be added later.

    Args:
        manifest: Manifests with ground truth.
        out: Folder to write, such as RUN/robustness.
        checkpoint: A checkpoint of `boxpromptiml fit`, a .safetensors or .onnx file of `export`, or
            a folder of `save_pretrained`. Default: the student that ships with the package.
        split: Split of the manifests to score.
        conditions: `full` (29), `quick` (14), `jpeg`, `blur`, `noise`, `rescale`, `platforms`, or
            single ones such as `jpeg:70 noise:5 weibo`.
        threshold: A pixel is flagged strictly above it; the checkpoint's by default.
        batch_size: Images per forward pass.
        device: cpu or cuda; auto: a GPU if there is one.
        seed: Seed of the noise.
        segmenter: Refine the maps with these regions instead of the checkpoint's own.

    Raises:
        UserError: If an option is out of range, no image is manipulated, or `out` belongs to other
            settings.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold must be in [0, 1], got {threshold}")
    wanted = expand(conditions)
    ROBUSTNESS.require(out)
    weights = weights_file(checkpoint)
    keep_freed_memory()
    localizer = Localizer.load(weights, device, segmenter, isolate=True)
    sources = read_sources(manifest, split)
    require_truth(sources, "--manifest")
    _require_manipulated(sources)
    limit = localizer.spec.threshold if threshold is None else threshold
    test = DegradedTest(localizer, sources, limit, seed, batch_size)
    path = out / "robustness.json"
    found = _resume(path, _fresh(test, weights, manifest, split))
    known = {_degradation(row) for row in found["conditions"]}
    todo = [condition for condition in wanted if condition not in known]
    ROBUSTNESS.mark(out)
    try:
        for number, condition in enumerate(todo, 1):
            _add(found, condition, test, f"({number} of {len(todo)})")
            write_json(path, found)
    finally:  # of an interrupted run too, so that all files say the same
        if found["conditions"]:
            write_text(out / "robustness.csv", _csv(found["conditions"]))
            save_figure(robustness_figure(*plotted(found)), out / "robustness")
    sys.stdout.write(_table(found["conditions"]))
    return EXIT_OK


def _require_manipulated(sources: Sequence[Source]) -> None:
    if all(source.sample.label == 0 for source in sources):
        raise UserError("--manifest has no manipulated image, so F1, IoU and AUC are undefined")


def _fresh(
    test: DegradedTest, checkpoint: Path, manifests: Sequence[Path], split: str
) -> Robustness:
    """The content of robustness.json before any condition is scored."""
    segmenter = test.localizer.segmenter
    return {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": _file(checkpoint),
        "manifests": [_file(path) for path in manifests],
        "split": split,
        "threshold": test.threshold,
        "seed": test.seed,
        "segmenter": segmenter.settings if segmenter else None,
        "clean_f1": None,
        "conditions": [],
    }


def _add(found: Robustness, condition: Degradation, test: DegradedTest, progress: str) -> None:
    """Score a condition and insert its row in order; `none` also keeps the F1 of every image."""
    scored = test.score(condition, progress)
    row: Robustness = {"name": condition.name, "level": condition.level}
    row |= {name: mean.to_json() for name, mean in scored.means.items()}
    if condition.name in PLATFORMS:
        row["resized"] = {"value": scored.resized, "count": len(test.sources)}
    if condition == Degradation():
        found["clean_f1"] = [None if math.isnan(value) else value for value in scored.f1.tolist()]
    elif found["clean_f1"] is not None:
        clean = np.array(found["clean_f1"], np.float64)  # None becomes nan
        row["difference"] = difference_interval(scored.f1, clean, test.groups).to_json()
    found["conditions"].append(row)
    found["conditions"].sort(key=lambda row: severity(_degradation(row)))


def _file(path: Path) -> dict[str, str]:
    return {"path": str(path), "sha256": sha256_file(path)}


def _resume(path: Path, fresh: Robustness) -> Robustness:
    """The results of an earlier run, or `fresh`; UserError if their settings differ."""
    if not path.exists():
        return fresh
    earlier = read_robustness(path)
    for name in _SETTINGS:
        if _identity(earlier[name]) != _identity(fresh[name]):
            raise UserError(
                f"{path} was made with another {name.removesuffix('s')}: give another --out, or "
                "delete it to start over"
            )
    clean = earlier.get("clean_f1")  # not in the files of old versions
    return fresh | {"clean_f1": clean, "conditions": earlier["conditions"]}


def _identity(setting: Any) -> Any:
    """A setting without paths: a file that was moved is still the same file."""
    if isinstance(setting, list):
        return [_identity(one) for one in setting]
    return setting["sha256"] if isinstance(setting, dict) and "path" in setting else setting


@dataclass(frozen=True)
class _Mean:
    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class _Row:
    """A condition of robustness.json; it has more fields, which not every version writes."""

    name: str
    level: float | None
    pixel_f1: _Mean
    iou: _Mean
    auc: _Mean
    false_alarm_pixels: _Mean
    difference: _Mean | None = None

    def __post_init__(self) -> None:
        _degradation({"name": self.name, "level": self.level})


@dataclass(frozen=True)
class _Content:
    schema_version: Literal[1]
    checkpoint: dict[str, str] | None
    manifests: list[dict[str, str]] | None
    split: str
    threshold: float | None
    seed: int | None
    segmenter: dict[str, Any] | None
    conditions: list[_Row]
    clean_f1: list[float | None] | None = None


_CONTENT = TypeAdapter(_Content)


def read_robustness(path: Path) -> Robustness:
    """The content of a robustness.json.

    Raises:
        UserError: If it is not one, or of another version.
    """
    try:
        read_as(_CONTENT, path, strict=True)
        found: Robustness = read_json(path)
    except UserError as error:
        raise UserError(f"{error}: not a robustness.json; delete it") from error
    return found


def plotted(
    found: Mapping[str, Any], score: str = "pixel_f1"
) -> tuple[list[Condition], float | None]:
    """The arguments of `robustness_figure`: the conditions, and the score of the stored images."""
    rows = [(row, Interval.from_json(row[score])) for row in found["conditions"]]
    conditions = [Condition(row["name"], row["level"], *interval[:3]) for row, interval in rows]
    clean = [c.value for c in conditions if c.name == "none" and not math.isnan(c.value)]
    return conditions, clean[0] if clean else None


def _degradation(row: Mapping[str, Any]) -> Degradation:
    return Degradation(row["name"], row["level"])


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The results as CSV, one line per condition; an empty cell is an undefined score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("value", "low", "high", "count")
    names = (*SCORES, "difference")
    writer.writerow(["name", "level", *(f"{name}_{part}" for name in names for part in parts)])
    for row in rows:
        cells = [row.get(name, {}).get(part) for name in names for part in parts]
        writer.writerow([row["name"], row["level"], *cells])
    return text.getvalue()


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [
        f"{'condition':<14}{'F1':>7}  {'95 % interval':<16}{'change':>7}  {'95 % interval':<18}"
        f"{'IoU':>7}{'AUC':>7}{'pixel FPR':>11}"
    ]
    same = []
    for row in rows:
        f1, iou, auc, fpr = (Interval.from_json(row[name]) for name in SCORES)
        bounds, change = f"[{f1.low:.3f}, {f1.high:.3f}]", f"{'-':>7}  {'':<18}"
        if row.get("difference"):
            drop = Interval.from_json(row["difference"])
            change = f"{drop.value:>+7.3f}  {f'[{drop.low:+.3f}, {drop.high:+.3f}]':<18}"
        if row.get("resized", {}).get("value") == 0:
            same.append(row["name"])
        lines.append(
            f"{_degradation(row)!s:<14}{f1.value:>7.3f}  {bounds:<16}{change}"
            f"{iou.value:>7.3f}{auc.value:>7.3f}{fpr.value:>11.4f}"
        )
    lines.append("change: paired change of F1 from the stored images")
    lines.append("flagged: pixel FPR on authentic images")
    if same:
        lines.append(
            f"{', '.join(same)}: no image was large enough to be resized: these are JPEG qualities "
            "only"
        )
    return "\n".join([*lines, ""])
