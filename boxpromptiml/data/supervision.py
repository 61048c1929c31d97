"""What a training image teaches: which of its annotations is used, and how much it counts.

The only place that opens ground truth, and only for modes that say so (invariant 1 of the design).
"""

from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.sources import Source, check_size, ground_truth
from boxpromptiml.records import MANIPULATED, UNSURE, LevelArray, MaskArray, Sample

Annotation = Literal["mask", "pseudo", "box", "label"]
Supervision = Literal["mask", "pseudo", "box", "label", "mixed"]


class Lesson(NamedTuple):
    """What a sample teaches with, and its weight in the loss."""

    annotation: Annotation
    weight: float


@dataclass(frozen=True)
class SourceWeights:
    """Weight in the loss of an image by what it teaches with, for `mixed` supervision.

    A manipulated image uses the first of its annotations, in this order, whose weight is not 0.
    The loss is the weighted mean of a batch: weights count against the others in it.

    Attributes:
        mask: Ground-truth mask; 0 keeps the masks closed.
        pseudo: The teacher's pseudo-mask for a box of a person, or simulated from a mask.
        cam: The teacher's pseudo-mask for a box from an activation map.
        box: A person's box, filled.
        label: The image label alone (needs `model.image_weight`).
        authentic: Confirmed authentic images.
    """

    mask: float = 0.0
    pseudo: float = 1.0
    cam: float = 0.5
    box: float = 0.0
    label: float = 0.0
    authentic: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < float("inf"):
                raise UserError(f"weights.{name} must be 0 or more, got {value}")


def lesson(sample: Sample, supervision: Supervision, weights: SourceWeights) -> Lesson | None:
    """What a sample teaches, None if nothing; the weights count for `mixed` only."""
    mixed = supervision == "mixed"
    if sample.label is None:
        return None
    if sample.label == 0:
        weight = weights.authentic if mixed else 1.0
        return Lesson("label", weight) if weight else None
    from_cam = sample.box_origin == "cam"
    offers: dict[Annotation, tuple[bool, float]] = {
        "mask": (sample.mask is not None, weights.mask),
        "pseudo": (sample.pseudo_mask is not None, weights.cam if from_cam else weights.pseudo),
        "box": (bool(sample.boxes), 0.0 if from_cam else weights.box),
        "label": (True, weights.label),
    }
    for annotation, (has, weight) in offers.items():
        if has and (weight if mixed else annotation == supervision):
            return Lesson(annotation, weight if mixed else 1.0)
    return None


def supervision_levels(source: Source, annotation: Annotation) -> LevelArray:
    """The (H, W) training target of a sample: 0 authentic, 127 to ignore, 255 manipulated.

    Only `mask` opens the ground truth (invariant 1 of the design). Confirmed authentic images are
    all 0 in every mode. With `label`, a manipulated image has no pixel that is known.
    """
    manifest, sample = source
    if sample.label == 0:
        return np.zeros(sample.size, np.uint8)
    if annotation == "label":
        return np.full(sample.size, UNSURE, np.uint8)
    if annotation == "box":
        boxes = geometry.as_array(sample.boxes or ())
        return _as_levels(geometry.union_mask(boxes, sample.size))
    if annotation == "mask":
        return _as_levels(ground_truth(source))
    path = manifest.pseudo_mask_path(sample)
    if path is None:
        raise UserError(f"{manifest.path}: sample {sample.id!r} has no pseudo-mask")
    levels = images.read_levels(path)
    check_size(levels.shape, sample, str(path))
    return levels


def _as_levels(mask: MaskArray) -> LevelArray:
    return np.where(mask, np.uint8(MANIPULATED), np.uint8(0))
