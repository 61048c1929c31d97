"""Score probability maps of any method against manifests, in Python or by `evaluate`."""

import platform
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.matching import PredictionFile, have_scores, match_predictions
from boxpromptiml.evaluation.scores import Curves, DatasetScores, region_size
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.map_files import StoredMap, quantise, read_map
from boxpromptiml.io.options import Seed
from boxpromptiml.io.outputs import EVALUATED
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.sources import (
    Source,
    check_size,
    ground_truth,
    of_split,
    read_sources,
    require_truth,
)
from boxpromptiml.metrics.bootstrap import LEVEL, RESAMPLES
from boxpromptiml.metrics.presets import (
    PRESET_NAMES,
    PRESETS,
    PixelScores,
    PresetName,
    at_network_size,
    score_pixels,
)
from boxpromptiml.metrics.results import (
    SCHEMA_VERSION,
    Evaluation,
    ImageRow,
    score_table,
    write_evaluation,
)
from boxpromptiml.records import MaskArray, Split

SCORED = "scored.json"  # in a run's evaluation: what it was made from

_FEW_LEVELS = 16
_MAX_SIDE = 4096  # pixels of a network's input
_PACKAGES = ("boxpromptiml", "numpy", "pillow", "opencv-python-headless")


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of an evaluation.

    Attributes:
        preset: See `boxpromptiml.metrics.presets`.
        threshold: A pixel, or an image by its score, is flagged strictly above it.
        split: Split to score; None for all rows.
        size: The network's (H, W); required by `benco-resize`, not allowed for other presets.
        resamples: Number of bootstrap draws.
        seed: Seed of the bootstrap.

    Raises:
        UserError: If a value is out of range, or `size` does not fit the preset.
    """

    preset: PresetName = "default"
    threshold: float = 0.5
    split: Split | None = "test"
    size: tuple[int, int] | None = None
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UserError(f"no preset {self.preset!r}; there are {', '.join(PRESET_NAMES)}")
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold must be in [0, 1], got {self.threshold}")
        if self.resamples < 1:
            raise UserError(f"resamples must be 1 or more, got {self.resamples}")
        if (self.size is not None) != PRESETS[self.preset].resizes:
            raise UserError("give size, the network's [H, W], with preset benco-resize, only there")
        if self.size is not None and not all(0 < side <= _MAX_SIDE for side in self.size):
            raise UserError(f"size must be from 1 to {_MAX_SIDE}, got {list(self.size)}")


def evaluate(
    predictions: Path,
    manifest: list[Path],
    out: Path,
    preset: PresetName = "default",
    threshold: float = 0.5,
    split: Split | None = "test",
    size: tuple[int, int] | None = None,
    resamples: int = RESAMPLES,
    seed: Seed = 0,
) -> int:
    """Score the probability maps or masks of any method against the ground truth of a manifest.

    Writes metrics.json (scores with 95 % intervals, also by dataset, forgery kind and region size,
    and curves) and per_image.csv, and prints a table. Every row of the split needs a map of its
    stored size, and every map needs a row; otherwise nothing is written.

    Args:
        predictions: Output of `localize` or `predict`, or a folder of maps, in subfolders or not,
            named by the manifest's ids or image paths (x.png or x.jpg.png for x.jpg): grey PNG or
            TIFF of 8 or 16 bits (the largest level is 1), probabilities as float TIFF, .npy, or
            .npz (TruFor's `map`).
        manifest: One or more manifests.
        out: Folder to write.
        preset: default: manipulated images at their stored size. lab-minmax: every map stretched
            first. benco-resize: at --size, authentic images count as 0. trufor-permuted: better of
            map and inverse, no region borders. mvss: image F1 of sensitivity and specificity.
        threshold: A pixel is flagged strictly above it, and so is an image by its score.
        split: Split to score; null for all rows.
        size: The network's [H, W], for benco-resize.
        resamples: Number of bootstrap draws.
        seed: Seed of the bootstrap.

    Raises:
        UserError: If an option is out of range, a manifest cannot be read, or maps and rows do not
            match.
    """
    settings = EvaluateSettings(preset, threshold, split, size, resamples, seed)
    if (out / SCORED).exists():
        raise UserError(f"--out {out}: holds the scores of a run, for `report`; name another one")
    EVALUATED.require(out)
    evaluation = evaluate_predictions(predictions, manifest, settings)
    EVALUATED.mark(out)
    write_evaluation(out, evaluation)
    sys.stdout.write(score_table(evaluation.metrics))
    return 0


def evaluate_predictions(
    predictions: Path, manifests: Sequence[Path], settings: EvaluateSettings
) -> Evaluation:
    """Score a folder of maps, reading one image at a time and keeping only its scores.

    Args:
        predictions: Folder of the maps, named by the ids of the manifests, or what `localize` or
            `predict` wrote; image scores in its predictions.jsonl are used.
        manifests: Manifests with ground truth.
        settings: The scoring protocol, and which rows are scored.

    Returns:
        What metrics.json and per_image.csv hold, images in the order of the manifests.

    Raises:
        UserError: If a row has no or several maps, a map no row, a row no ground truth, an id is in
            two manifests, or a file cannot be used.
    """
    names = ", ".join(str(path) for path in manifests)
    known = read_sources(manifests)
    wanted = of_split(known, settings.split, names)
    require_truth(wanted, names)
    files = match_predictions(predictions, known, wanted)
    given = have_scores(predictions, files) and not PRESETS[settings.preset].image_score_is_maximum
    rows: list[ImageRow] = []
    curves = Curves()
    for number, (row, pixel_scores) in enumerate(_scored(wanted, files, settings, given)):
        rows.append(row)
        curves.add(number, pixel_scores)
    preset = PRESETS[settings.preset]
    numbers = (settings.threshold, settings.resamples, settings.seed, LEVEL)
    scores = DatasetScores(rows, curves, preset, *numbers)
    head = _head(predictions, manifests, settings, given)
    labels = Counter(row.label for row in rows)
    counts = {"manipulated": labels[1], "authentic": labels[0], "unknown": labels[None]}
    metrics = head | {
        "images": counts,
        "scores": scores.scores(),
        "groups": scores.groups(),
        "curves": curves.as_points(),
    }
    return Evaluation(metrics, tuple(rows))


def _scored(
    wanted: Sequence[Source],
    files: Sequence[PredictionFile],
    settings: EvaluateSettings,
    given: bool,
) -> Iterator[tuple[ImageRow, PixelScores]]:
    """Yield row and scores of every image; finally check the levels of all maps."""
    highest, few = 0.0, []
    console = Console(stderr=True)
    pairs = zip(wanted, files, strict=True)
    for source, file in track(pairs, "scoring", len(files)):
        stored = read_map(file.path)
        top = float(stored.values[stored.levels.max()])
        highest = max(highest, top)
        if _uses_few_levels(stored):
            few.append(file.path)
        yield _score(source, file, stored, settings, given)
    if highest == 1 / 255:
        raise UserError(
            f"{files[0].path.parent}: all {len(files)} maps have levels 0 and 1 only, which are "
            "the probabilities 0 and 1/255: save masks as 0 and 255"
        )
    if few:
        console.print(
            f"warning: {len(few)} of {len(files)} maps use at most {_FEW_LEVELS} levels, such as "
            f"{few[0]}: all pixels of one level count as tied in AUC and curves; save maps of 16 "
            "bits, or as float32 in .npy",
            markup=False,
            soft_wrap=True,
        )


def _uses_few_levels(stored: StoredMap) -> bool:
    """Whether a map has few levels but more than the two of a mask."""
    used = np.unique(stored.levels)
    is_mask = len(used) <= 2 and stored.values[used[-1]] in (0, 1)
    return len(used) <= _FEW_LEVELS and not is_mask


def _score(
    source: Source, file: PredictionFile, stored: StoredMap, settings: EvaluateSettings, given: bool
) -> tuple[ImageRow, PixelScores]:
    sample, truth = source.sample, ground_truth(source)
    region = float(truth.mean())
    if stored.levels.shape != settings.size:
        check_size(stored.levels.shape, sample, str(file.path))
    highest = float(stored.values[stored.levels.max()])
    if settings.size is not None:
        stored, truth = _resized(stored, truth, settings.size)
    preset = PRESETS[settings.preset]
    scores = score_pixels(preset, stored.levels, truth, settings.threshold, stored.values)
    row = ImageRow(
        id=sample.id,
        dataset=sample.dataset,
        kind=sample.kind or "",
        group=sample.group,
        label=int(region > 0) if sample.label is None else sample.label,
        height=sample.size[0],
        width=sample.size[1],
        image_score=float(file.score) if given and file.score is not None else highest,
        f1=scores.f1,
        iou=scores.iou,
        auc=scores.auc,
        precision=scores.precision,
        recall=scores.recall,
        flagged=scores.flagged,
        region=region,
        region_size=region_size(region),
        name=file.stored_name,
    )
    return row, scores


def _resized(
    stored: StoredMap, truth: MaskArray, size: tuple[int, int]
) -> tuple[StoredMap, MaskArray]:
    """Map and mask at a network's (H, W); 8-bit levels stay 8-bit, as in IMDLBenCo."""
    if stored.levels.dtype == np.uint8:
        levels, mask = at_network_size(stored.levels, truth, size)
        return StoredMap(levels, stored.values), mask
    prob, mask = at_network_size(stored.prob, truth, size)
    return quantise(prob.clip(0, 1)), mask


def _head(
    predictions: Path, manifests: Sequence[Path], settings: EvaluateSettings, given: bool
) -> dict[str, Any]:
    """The part of metrics.json that records the settings and inputs."""
    sums = {str(path): sha256_file(path) for path in manifests}
    return {
        "schema_version": SCHEMA_VERSION,
        "preset": settings.preset,
        "threshold": settings.threshold,
        "size": settings.size,
        "split": settings.split,
        "manifests": [{"path": path, "sha256": value} for path, value in sums.items()],
        "predictions": str(predictions),
        "image_score": "predictions" if given else "maximum",
        "bootstrap": {
            "resamples": settings.resamples,
            "seed": settings.seed,
            "level": LEVEL,
            "unit": "group",
        },
        "versions": {"python": platform.python_version()} | {n: version(n) for n in _PACKAGES},
    }
