"""Manifest rows to tensors. The only part of training that opens files."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from boxpromptiml import geometry, images
from boxpromptiml.data.transforms import TrainTransform
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifest import Manifest
from boxpromptiml.models.inputs import NetworkInput, fit_image, to_tensor
from boxpromptiml.records import (
    MANIPULATED,
    UNSURE,
    Batch,
    ImageArray,
    LevelArray,
    MaskArray,
    Sample,
)

log = logging.getLogger(__name__)

Supervision = Literal["mask", "pseudo", "box", "label"]


class Source(NamedTuple):
    """A sample and the manifest that knows where its files are."""

    manifest: Manifest
    sample: Sample


class Key(NamedTuple):
    """What a training sampler asks for: together with the run's seed it fixes the augmentation."""

    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class Item:
    """One sample on its way into a `Batch`; see there for the meaning of the fields."""

    image: torch.Tensor  # (3, h, w)
    label: float
    id: str
    size: tuple[int, int]
    target: torch.Tensor | None = None  # (1, h, w), in training
    valid: torch.Tensor | None = None  # (1, h, w), in training
    truth: torch.Tensor | None = None  # (H, W), in evaluation


def supervision_levels(source: Source, supervision: Supervision) -> LevelArray:
    """The (H, W) training target of a sample: 0 authentic, 127 to ignore, 255 manipulated.

    Only `mask` opens the ground truth (invariant 1 of the design). Confirmed authentic images are
    all 0 in every mode. With `label`, a manipulated image has no pixel that is known.
    """
    manifest, sample = source
    if sample.label == 0:
        return np.zeros(sample.size, np.uint8)
    if supervision == "label":
        return np.full(sample.size, UNSURE, np.uint8)
    if supervision == "box":
        boxes = geometry.as_array(sample.boxes or ())
        return _as_levels(geometry.union_mask(boxes, sample.size))
    if supervision == "mask":
        return _as_levels(ground_truth(source))
    path = manifest.pseudo_mask_path(sample)
    if path is None:
        raise UserError(f"{manifest.path}: sample {sample.id!r} has no pseudo-mask")
    levels = images.read_levels(path)
    _check_size(levels.shape, sample, str(path))
    return levels


def has_supervision(sample: Sample, supervision: Supervision) -> bool:
    """Whether a sample can be trained on in this mode."""
    if sample.label == 0:
        return True
    if sample.label is None:
        return False
    available = {
        "mask": sample.mask is not None,
        "pseudo": sample.pseudo_mask is not None,
        "box": bool(sample.boxes),
        "label": True,
    }
    return available[supervision]


def ground_truth(source: Source) -> MaskArray:
    """The true mask (H, W); all False for an authentic image.

    Raises:
        UserError: If the image is manipulated or unknown and has no mask.
        RejectedInput: If the mask is damaged, not binary, of another size than the image, or empty
            although the image is manipulated.
    """
    manifest, sample = source
    if sample.label == 0:
        return np.zeros(sample.size, bool)
    path = manifest.mask_path(sample)
    if path is None:
        raise UserError(f"{manifest.path}: sample {sample.id!r} has no ground-truth mask")
    mask = images.read_mask(path, sample.mask_threshold)
    _check_size(mask.shape, sample, str(path))
    if sample.label == 1 and not mask.any():
        raise RejectedInput(path, "empty_mask", f"{sample.id!r} is manipulated, its mask is empty")
    return mask


def stored_image(source: Source) -> ImageArray:
    """The image (H, W, 3) of a sample, checked against the manifest."""
    path = source.manifest.image_path(source.sample)
    image, info = images.read_image(path)
    _check_size(image.shape[:2], source.sample, str(path))
    if source.sample.image_sha256 not in (None, info.sha256):
        raise RejectedInput(path, "changed", "the file's SHA-256 is not the manifest's")
    return image


def _as_levels(mask: MaskArray) -> LevelArray:
    return np.where(mask, np.uint8(MANIPULATED), np.uint8(0))


def _check_size(found: tuple[int, ...], sample: Sample, path: str) -> None:
    if tuple(found) != tuple(sample.size):
        raise RejectedInput(
            path,
            "size_mismatch",
            f"is {found[1]} x {found[0]}, the manifest says {sample.size[1]} x {sample.size[0]}",
        )


class TrainDataset(Dataset[Item]):
    """Augmented training samples, indexed by (epoch, position).

    An image that cannot be read is named in a warning and counts for nothing (`valid` all False):
    one bad file does not end a run of hours.

    Args:
        sources: What to train on.
        supervision: Where the target comes from.
        transform: To network size.
        seed: Of the run.
        soft_unsure: Train pixels at level 127 towards 0.5 instead of ignoring them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        supervision: Supervision,
        transform: TrainTransform,
        seed: int,
        soft_unsure: bool = False,
    ) -> None:
        self.sources = list(sources)
        self._supervision: Supervision = supervision
        self._transform = transform
        self._seed = seed
        self._soft_unsure = soft_unsure

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, key: Key) -> Item:
        epoch, position = key
        source = self.sources[position]
        label, soft = _label(source.sample), self._soft_unsure
        try:
            image = stored_image(source)
            levels = supervision_levels(source, self._supervision)
        except RejectedInput as error:
            log.warning("left out of training: %s", error)
            image = np.zeros((*source.sample.size, 3), np.uint8)
            levels = np.full(source.sample.size, UNSURE, np.uint8)
            label, soft = float("nan"), False
        seed = int(np.random.SeedSequence([self._seed, epoch, position]).generate_state(1)[0])
        image, levels, inside = self._transform(image, levels, seed)
        known = inside & ((levels != UNSURE) | soft)
        target = np.where(levels == UNSURE, np.float32(0.5), levels.astype(np.float32) / 255)
        return Item(
            image=to_tensor(image),
            target=torch.from_numpy(target)[None],
            valid=torch.from_numpy(known)[None],
            label=label,
            id=source.sample.id,
            size=source.sample.size,
        )


class EvalDataset(Dataset[Item]):
    """Whole images with their truth at the stored size; a bad file is an error here.

    Args:
        sources: What to evaluate on.
        network_input: What the network is fed.
        with_truth: Read the ground truth (`validate` and `test`), or not (`predict`).
    """

    def __init__(
        self, sources: Sequence[Source], network_input: NetworkInput, with_truth: bool
    ) -> None:
        self.sources = list(sources)
        self._input = network_input
        self._with_truth = with_truth

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Item:
        source = self.sources[index]
        image = fit_image(stored_image(source), self._input)
        truth = torch.from_numpy(ground_truth(source)) if self._with_truth else None
        return Item(
            image=to_tensor(image),
            label=_label(source.sample),
            id=source.sample.id,
            size=source.sample.size,
            truth=truth,
        )


def _label(sample: Sample) -> float:
    return float("nan") if sample.label is None else float(sample.label)


def collate(items: list[Item]) -> Batch:
    """Items to a batch; smaller images are padded right and below, see `Batch.extent`."""
    height = max(item.image.shape[1] for item in items)
    width = max(item.image.shape[2] for item in items)

    def stack(tensors: list[torch.Tensor]) -> torch.Tensor:
        canvas = tensors[0].new_zeros(len(tensors), tensors[0].shape[0], height, width)
        for place, tensor in zip(canvas, tensors, strict=True):
            place[:, : tensor.shape[1], : tensor.shape[2]] = tensor
        return canvas

    batch = Batch(
        image=stack([item.image for item in items]),
        label=torch.tensor([item.label for item in items], dtype=torch.float32),
        id=[item.id for item in items],
        extent=[(item.image.shape[1], item.image.shape[2]) for item in items],
        size=[item.size for item in items],
    )
    targets = [item.target for item in items if item.target is not None]
    valids = [item.valid for item in items if item.valid is not None]
    if len(targets) == len(valids) == len(items):
        batch["target"], batch["valid"] = stack(targets), stack(valids)
    truths = [item.truth for item in items if item.truth is not None]
    if len(truths) == len(items):
        batch["truth"] = truths
    return batch
