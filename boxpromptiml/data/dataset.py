"""From manifest rows to tensors: the datasets of training and evaluation."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from boxpromptiml.data.cache import CachedImages
from boxpromptiml.data.supervision import Annotation, TrainingTarget, supervision_trimap
from boxpromptiml.data.transforms import TrainTransform
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.geometry import nearest
from boxpromptiml.manifests.sources import Source, ground_truth, stored_image
from boxpromptiml.models.inputs import NetworkInput, whole_image
from boxpromptiml.records import (
    MANIPULATED,
    UNSURE,
    Batch,
    ImageArray,
    Sample,
    Segmenter,
    Supervised,
    TrimapArray,
)
from boxpromptiml.synth.degradation import Degradation

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Index of an augmented training sample.

    Together with the run's seed it determines every random choice of the augmentation.

    Attributes:
        epoch: From 0.
        position: Number of the image among the training images.
    """

    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class DatasetItem:
    """One sample before it is collated into a `Batch`, which describes the fields."""

    image: torch.Tensor  # (C, h, w)
    label: float
    id: str
    size: tuple[int, int]
    target: torch.Tensor | None = None  # (1, h, w), in training
    valid: torch.Tensor | None = None  # (1, h, w), in training
    weight: float = 1.0
    supervision: Supervised | None = None  # in training
    lost: bool = False  # in training and prediction
    truth: torch.Tensor | None = None  # (H, W), in evaluation
    regions: torch.Tensor | None = None  # (H, W), in evaluation


class TrainDataset(Dataset[DatasetItem]):
    """Augmented training samples, indexed by (epoch, position).

    An image that cannot be read is named in a warning and has no effect on the loss (`valid` is
    False everywhere, the label unknown), so one bad file does not end a run of hours.

    Args:
        sources: The images to train on.
        target: Gives the training target of a sample.
        transform: Augments a sample and brings it to the network's size.
        seed: The run's seed.
        soft_unsure: Train pixels of value 127 towards 0.5 instead of ignoring them.
        cache: Images and supervision already resized; what it lacks is read from the files.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        target: Callable[[Sample], TrainingTarget | None],
        transform: TrainTransform,
        seed: int,
        soft_unsure: bool = False,
        cache: CachedImages | None = None,
    ) -> None:
        self.sources = sources
        self._training_target = target
        self._transform = transform
        self._seed = seed
        self._soft_unsure = soft_unsure
        self._cache = cache

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, key: Key | int) -> DatasetItem:
        # Lightning's overfit_batches replaces our sampler by one of plain positions
        epoch, position = key if isinstance(key, tuple) else Key(0, key)
        source = self.sources[position]
        training_target = self._training_target(source.sample)
        if training_target is None:
            raise UserError(f"sample {source.sample.id!r} has nothing to train on")
        label, soft, lost = _label(source.sample), self._soft_unsure, False
        try:
            image, trimap = self._pixels(position, source, training_target.annotation)
        except RejectedInput as error:
            log.warning("left out of training: %s", error)
            image = np.zeros((*source.sample.size, 3), np.uint8)
            trimap = np.full(source.sample.size, UNSURE, np.uint8)
            label, soft, lost = float("nan"), False, True
        seed = int(np.random.SeedSequence([self._seed, epoch, position]).generate_state(1)[0])
        shown = (trimap == MANIPULATED).any()
        tensor, trimap, inside = self._transform(image, trimap, seed)
        if shown and not (trimap[inside] == MANIPULATED).any():
            label = float("nan")  # the crop missed the manipulation
        known = inside & ((trimap != UNSURE) | soft)
        target = np.where(trimap == UNSURE, np.float32(0.5), trimap.astype(np.float32) / 255)
        return DatasetItem(
            image=tensor,
            target=torch.from_numpy(target)[None],
            valid=torch.from_numpy(known)[None],
            weight=training_target.weight,
            supervision="authentic" if source.sample.label == 0 else training_target.annotation,
            lost=lost,
            label=label,
            id=source.sample.id,
            size=source.sample.size,
        )

    def _pixels(
        self, position: int, source: Source, annotation: Annotation
    ) -> tuple[ImageArray, TrimapArray]:
        cached = self._cache.read(position) if self._cache else None
        return cached or (stored_image(source), supervision_trimap(source, annotation))


class EvalDataset(Dataset[DatasetItem]):
    """Whole images with their ground truth at the stored size.

    A file that cannot be read raises `RejectedInput`, since scores of the others would not be those
    of the dataset; without ground truth it is named in a warning, `lost`, and black instead.

    Args:
        sources: The images to evaluate on.
        network_input: How an image becomes the network's input.
        with_truth: Whether to read the ground truth (`validate` and `test`) or not (`predict`).
        segmenter: Divides an image into regions; None for no regions.
        degrade: Applied to the stored image after its file was checked. Size, ground truth and
            regions of the item remain those of the stored image.
        seed: Seed of the noise that `degrade` may add.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        network_input: NetworkInput,
        with_truth: bool,
        segmenter: Segmenter | None = None,
        degrade: Degradation = Degradation(),
        seed: int = 0,
    ) -> None:
        self.sources = sources
        self._input = network_input
        self._with_truth = with_truth
        self._segmenter = segmenter
        self._degrade = degrade
        self._seed = seed

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> DatasetItem:
        source = self.sources[index]
        lost = False
        try:
            image = self._degrade(stored_image(source), self._seed, source.sample.id)
        except RejectedInput as error:
            if self._with_truth:
                raise
            log.warning("left out: %s", error)
            image, lost = np.zeros((*source.sample.size, 3), np.uint8), True
        regions = None
        if self._segmenter is not None:
            found = self._segmenter.regions(image)
            regions = torch.from_numpy(nearest(found, source.sample.size))
        return DatasetItem(
            image=torch.from_numpy(whole_image(image, self._input)),
            label=_label(source.sample),
            id=source.sample.id,
            size=source.sample.size,
            lost=lost,
            truth=self._truth(source),
            regions=regions,
        )

    def _truth(self, source: Source) -> torch.Tensor | None:
        unknown = source.sample.label != 0 and source.sample.mask is None
        if not self._with_truth or unknown:
            return None
        return torch.from_numpy(ground_truth(source))


def _label(sample: Sample) -> float:
    return float("nan") if sample.label is None else float(sample.label)


def collate(items: list[DatasetItem]) -> Batch:
    """Collate items into a batch, padding smaller images on the right and below (`extent`)."""
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
        lost=[item.lost for item in items],
        truth=[item.truth for item in items],
    )
    targets = [item.target for item in items if item.target is not None]
    valids = [item.valid for item in items if item.valid is not None]
    if len(targets) == len(valids) == len(items):
        batch["target"], batch["valid"] = stack(targets), stack(valids)
        batch["supervision"] = [item.supervision for item in items if item.supervision]
        batch["weight"] = torch.tensor([item.weight for item in items], dtype=torch.float32)
    regions = [item.regions for item in items if item.regions is not None]
    if len(regions) == len(items):
        batch["regions"] = regions
    return batch
