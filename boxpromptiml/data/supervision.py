"""What a training image teaches: which of its annotations is used, and how much it counts.

The only place that opens ground truth, and only for modes that say so (invariant 1 of the design).
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.sources import Source, Sources, check_size, ground_truth
from boxpromptiml.manifests.splits import nested_fraction
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import MANIPULATED, UNSURE, MaskArray, Sample, TrimapArray

Annotation = Literal["mask", "pseudo", "box", "label"]
Supervision = Literal["mask", "pseudo", "box", "label", "mixed"]


class TrainingTarget(NamedTuple):
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


def training_target(
    sample: Sample, supervision: Supervision, weights: SourceWeights
) -> TrainingTarget | None:
    """What a sample teaches, None if nothing; the weights count for `mixed` only."""
    mixed = supervision == "mixed"
    if sample.label is None:
        return None
    if sample.label == 0:
        weight = weights.authentic if mixed else 1.0
        return TrainingTarget("label", weight) if weight else None
    from_cam = sample.box_origin == "cam"
    offers: dict[Annotation, tuple[bool, float]] = {
        "mask": (sample.mask is not None, weights.mask),
        "pseudo": (sample.pseudo_mask is not None, weights.cam if from_cam else weights.pseudo),
        "box": (bool(sample.boxes), 0.0 if from_cam else weights.box),
        "label": (True, weights.label),
    }
    for annotation, (has, weight) in offers.items():
        if has and (weight if mixed else annotation == supervision):
            return TrainingTarget(annotation, weight if mixed else 1.0)
    return None


def supervision_trimap(source: Source, annotation: Annotation) -> TrimapArray:
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
        return _as_trimap(geometry.union_mask(boxes, sample.size))
    if annotation == "mask":
        return _as_trimap(ground_truth(source))
    path = manifest.pseudo_mask_path(sample)
    if path is None:
        raise UserError(f"{manifest.path}: sample {sample.id!r} has no pseudo-mask")
    levels = images.read_grey(path)
    check_size(levels.shape, sample, str(path))
    return levels


def _as_trimap(mask: MaskArray) -> TrimapArray:
    return np.where(mask, np.uint8(MANIPULATED), np.uint8(0))


log = logging.getLogger(__name__)

_HINTS = {
    "pseudo": ": run `python -m data_prep pseudo-masks` and train on its manifest.jsonl",
    "box": ": import boxes first",
    "mask": ": try --data.supervision=pseudo or box",
    "mixed": ": see --data.weights; a source of weight 0 is not used",
}


class Chosen(NamedTuple):
    """What `Selection.choose` keeps: the sources, and the sorted names of their data sets."""

    sources: Sources
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """What is trained on; see `LocalizationData` for the meaning of the fields."""

    supervision: Supervision
    weights: SourceWeights
    include_authentic: bool = True
    share: float = 1.0
    seed: int = 0

    def target(self, sample: Sample) -> TrainingTarget | None:
        """What a sample teaches, None if nothing."""
        return training_target(sample, self.supervision, self.weights)

    def choose(self, sources: Sources) -> Chosen:
        """The sources to train on; says how many are left out and why.

        Raises:
            UserError: If no manipulated one is left.
        """
        flags = np.zeros(len(sources := self._shared(sources)), bool)
        left_out: Counter[str] = Counter()
        datasets: set[str] = set()
        manipulated = False
        for place, (_, sample) in enumerate(sources):
            if sample.label == 0 and not self.include_authentic:
                left_out["authentic (include_authentic is false)"] += 1
            elif self.target(sample) is None:
                left_out[f"without what `{self.supervision}` supervision needs"] += 1
            else:
                flags[place] = True
                datasets.add(sample.dataset)
                manipulated |= sample.label == 1
        for reason, count in left_out.items():
            log.warning("%d training images left out: %s", count, reason)
        if not manipulated:
            raise UserError(
                f"no manipulated training image has what `{self.supervision}` supervision needs"
                + _HINTS.get(self.supervision, "")
            )
        return Chosen(sources.where(flags), tuple(sorted(datasets)))

    def _shared(self, sources: Sources) -> Sources:
        """The share to train on, of every label."""
        if self.share == 1:
            return sources
        ids: set[str] = set()
        for label in (0, 1, None):
            some = (sample.id for _, sample in sources if sample.label == label)
            ids |= nested_fraction(some, self.share, self.seed)
        return sources.where(sample.id in ids for _, sample in sources)

    def taught_by_teacher(self, sources: Iterable[Source]) -> Iterable[Source]:
        """Those that teach with a pseudo-mask."""
        if self.supervision in ("pseudo", "mixed"):
            for source in sources:
                taught = self.target(source.sample)
                if taught is not None and taught.annotation == "pseudo":
                    yield source

    def warn_of_crops(self, sources: Iterable[Source], network_input: NetworkInput) -> None:
        """A crop may miss what its image's label speaks of; padding thins it out."""
        if network_input.mode == "resize" or self.supervision not in ("label", "mixed"):
            return
        odd = sum(
            sample.size != network_input.size and taught.annotation == "label"
            for _, sample in sources
            if sample.label and (taught := self.target(sample))
        )
        if odd:
            log.warning(
                "%d images teach with their label alone, but are cropped or padded to data.input"
                ".size=%s, and a crop may miss the manipulation: use data.input.mode=resize",
                odd, network_input.size,
            )  # fmt: skip
