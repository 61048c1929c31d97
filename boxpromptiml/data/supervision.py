"""The supervision of a training image: which of its annotations is used, and its loss weight.

Nothing else in training opens ground truth, and this only for modes that ask for it: weakly
supervised training works without the masks.
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

log = logging.getLogger(__name__)

Annotation = Literal["mask", "pseudo", "box", "label"]
Supervision = Literal["mask", "pseudo", "box", "label", "mixed"]


class TrainingTarget(NamedTuple):
    """The annotation that supervises a sample, and the sample's weight in the loss, above 0."""

    annotation: Annotation
    weight: float  # above 0


@dataclass(frozen=True)
class SourceWeights:
    """Loss weights of images by their supervision, for `mixed` supervision.

    A manipulated image uses the first of its annotations, in the order below, whose weight is not
    0. The loss is the weighted mean over a batch, so only the ratios of the weights matter.

    Attributes:
        mask: Images with a ground-truth mask; with 0 no mask is ever opened.
        pseudo: Images with the teacher's pseudo-mask for a box that a person drew or that was
            simulated from a mask.
        cam: Images with the teacher's pseudo-mask for a box from a class activation map.
        box: Images with a person's box, which is filled.
        label: Images with an image label alone (needs `model.image_weight`).
        authentic: Confirmed authentic images.

    Raises:
        UserError: If a weight is negative or not finite.
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
    """The training target of a sample; None if the sample cannot be trained on.

    Args:
        sample: Any row of a manifest. Authentic images are supervised by their label in all modes.
        supervision: The annotation to use, or `mixed` for the best one available.
        weights: Used by `mixed` only; otherwise every weight is 1.
    """
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
    """The supervision of a sample's pixels at the stored size, a trimap (H, W).

    Only `mask` opens the ground truth. Confirmed authentic images are all 0 in every mode; with
    `label`, all pixels of a manipulated image are 127, unknown.

    Raises:
        RejectedInput: If a mask or pseudo-mask cannot be read or has another size than the image.
        UserError: If the manifest lists no pseudo-mask for the sample.
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
    trimap = images.read_trimap(path)
    check_size(trimap.shape, sample, str(path))
    return trimap


def _as_trimap(mask: MaskArray) -> TrimapArray:
    return np.where(mask, np.uint8(MANIPULATED), np.uint8(0))


_HINTS = {
    "pseudo": ": run `python -m data_prep pseudo-masks` and train on its manifest.jsonl",
    "box": ": import boxes first",
    "mask": ": try --data.supervision=pseudo or box",
    "mixed": ": see --data.weights; a source of weight 0 is not used",
}


class Chosen(NamedTuple):
    """What `Selection.choose` keeps.

    Attributes:
        sources: The images to train on.
        datasets: Sorted names of their datasets.
        manipulated: Number of manipulated images among them.
    """

    sources: Sources
    datasets: tuple[str, ...]
    manipulated: int


@dataclass(frozen=True)
class Selection:
    """Which images are trained on; `LocalizationData` describes the fields."""

    supervision: Supervision
    weights: SourceWeights
    include_authentic: bool = True
    fraction: float = 1.0
    seed: int = 0

    def target(self, sample: Sample) -> TrainingTarget | None:
        """The training target of a sample; None if it cannot be trained on."""
        return training_target(sample, self.supervision, self.weights)

    def choose(self, sources: Sources) -> Chosen:
        """The sources to train on; logs how many are left out and why.

        Raises:
            UserError: If no manipulated image is left.
        """
        flags = np.zeros(len(sources := self._subset(sources)), bool)
        left_out: Counter[str] = Counter()
        datasets: set[str] = set()
        manipulated = 0
        for place, (_, sample) in enumerate(sources):
            if sample.label == 0 and not self.include_authentic:
                left_out["authentic (include_authentic is false)"] += 1
            elif self.target(sample) is None:
                left_out[f"without what `{self.supervision}` supervision needs"] += 1
            else:
                flags[place] = True
                datasets.add(sample.dataset)
                manipulated += sample.label == 1
        for reason, count in left_out.items():
            log.warning("%d training images left out: %s", count, reason)
        if not manipulated:
            raise UserError(
                f"no manipulated training image has what `{self.supervision}` supervision needs"
                + _HINTS.get(self.supervision, "")
            )
        return Chosen(sources.where(flags), tuple(sorted(datasets)), manipulated)

    def _subset(self, sources: Sources) -> Sources:
        """The same fraction of the images of every label."""
        if self.fraction == 1:
            return sources
        ids: set[str] = set()
        for label in (0, 1, None):
            some = (sample.id for _, sample in sources if sample.label == label)
            ids |= nested_fraction(some, self.fraction, self.seed)
        return sources.where(sample.id in ids for _, sample in sources)

    def with_pseudo_masks(self, sources: Iterable[Source]) -> Iterable[Source]:
        """The sources whose supervision is a pseudo-mask."""
        if self.supervision in ("pseudo", "mixed"):
            for source in sources:
                target = self.target(source.sample)
                if target is not None and target.annotation == "pseudo":
                    yield source

    def warn_of_crops(self, sources: Iterable[Source], network_input: NetworkInput) -> None:
        """Warn if images supervised by their label alone are cropped or padded.

        The label is about the whole image: a crop may miss the manipulation, padding dilutes it.
        """
        if network_input.mode == "resize" or self.supervision not in ("label", "mixed"):
            return
        odd = sum(
            sample.size != network_input.size and target.annotation == "label"
            for _, sample in sources
            if sample.label and (target := self.target(sample))
        )
        if odd:
            log.warning(
                "%d images are supervised by their label alone, but are cropped or padded to "
                "data.input.size=%s; a crop may miss the manipulation: use data.input.mode=resize",
                odd, network_input.size,
            )  # fmt: skip
