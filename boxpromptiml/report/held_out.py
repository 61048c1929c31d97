"""A checkpoint on the images of one split: scores, what trivial maps score, and a gallery."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from boxpromptiml import geometry
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.metrics.pixel import LocalizationMetrics, f1, iou, pixel_counts
from boxpromptiml.records import MANIPULATED, ImageArray, MaskArray, ProbArray, Sample, Split
from boxpromptiml.report.gallery import Entry, Gallery, make_gallery
from boxpromptiml.report.panels import Panel, Views, draw_panels


class HeldOut(NamedTuple):
    """What `score_split` finds.

    Attributes:
        scores: `pixel_f1`, `iou`, `auc`, `false_alarm_pixels`, and `empty_f1` and `full_f1`, the
            pixel F1 of maps that are 0 or 1 everywhere.
        curve: Threshold and mean F1 there.
        gallery: The images.
    """

    scores: dict[str, float]
    curve: tuple[tuple[float, float], ...]
    gallery: Gallery


def score_split(manifest: Manifest, checkpoint: Path, split: Split) -> HeldOut:
    """Localize the images of a split from their files, as a user would, and score the maps."""
    localizer = Localizer.load(checkpoint)
    threshold = localizer.spec.threshold
    student, empty, full = (LocalizationMetrics(threshold) for _ in range(3))
    entries: list[Entry] = []
    drawn: dict[str, Sequence[Panel]] = {}
    for sample in (s for s in manifest.samples if s.split == split):
        image, _ = images.read_image(manifest.image_path(sample))
        prob, score = localizer.localize([image])[0]
        truth = ground_truth(Source(manifest, sample))
        _add(student, prob, truth, score)
        _add(empty, np.zeros_like(prob), truth, 0.0)
        _add(full, np.ones_like(prob), truth, 1.0)
        entries.append(_entry(sample, prob, truth, threshold))
        drawn[sample.id] = draw_panels(_views(manifest, sample, image, prob, truth))
    found = {name: float(value) for name, value in student.compute().items()}
    scores = {name: found[name] for name in ("pixel_f1", "iou", "auc", "false_alarm_pixels")}
    scores["empty_f1"] = float(empty.compute()["pixel_f1"])
    scores["full_f1"] = float(full.compute()["pixel_f1"])
    thresholds, curve = student.f1_curve()
    points = tuple(zip(thresholds.tolist(), curve.tolist(), strict=True))
    return HeldOut(scores, points, make_gallery(entries, lambda entry, *_: drawn[entry.id]))


def _add(metrics: LocalizationMetrics, prob: ProbArray, truth: MaskArray, score: float) -> None:
    label = torch.tensor([float(truth.any())])
    metrics.update(
        [torch.from_numpy(prob)], [torch.from_numpy(truth)], label, torch.tensor([score])
    )


def _entry(sample: Sample, prob: ProbArray, truth: MaskArray, threshold: float) -> Entry:
    counts = pixel_counts(prob, truth, threshold)
    scores = (f1(counts), iou(counts)) if sample.label else (math.nan, math.nan)
    flagged = (counts.tp + counts.fp) / truth.size
    return Entry(sample.id, sample.kind or "", bool(sample.label), *scores, flagged)


def _views(
    manifest: Manifest, sample: Sample, image: ImageArray, prob: ProbArray, truth: MaskArray
) -> Views:
    path = manifest.pseudo_mask_path(sample) if sample.label else None
    levels = images.read_trimap(path) if path else None
    return Views(image, sample.boxes or (), levels, prob, truth if sample.label else None)


def supervision_scores(manifest: Manifest, split: Split) -> dict[str, float]:
    """Mean IoU with the truth of pseudo-masks (`pseudo_iou`) and of filled boxes (`box_iou`).

    Over the images of the split that have a pseudo-mask.
    Pixels that a pseudo-mask is unsure of count as not flagged.
    """
    pseudo, filled = [], []
    for sample in manifest.samples:
        path = manifest.pseudo_mask_path(sample)
        if sample.split != split or path is None:
            continue
        truth = ground_truth(Source(manifest, sample))
        boxed = geometry.union_mask(geometry.as_array(sample.boxes or ()), sample.size)
        flagged = images.read_trimap(path) == MANIPULATED
        pseudo.append(iou(pixel_counts(flagged.astype(np.float32), truth)))
        filled.append(iou(pixel_counts(boxed.astype(np.float32), truth)))
    return {"pseudo_iou": float(np.mean(pseudo)), "box_iou": float(np.mean(filled))}
