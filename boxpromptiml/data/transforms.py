"""Augmentation by albumentations 2.0.8 (the last MIT release); no other module uses it.

Every sample has its own seed, so batches do not depend on the number of workers.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.geometry import resize_by_area, resize_trimap
from boxpromptiml.models.error_levels import scaled_error_levels
from boxpromptiml.models.inputs import NetworkInput, to_planes
from boxpromptiml.records import MANIPULATED, ImageArray, MaskArray, TrimapArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else a network call at import
import albumentations as A

cv2.setNumThreads(0)  # OpenCV's thread pool hangs in a forked worker; the workers are the threads


@dataclass(frozen=True)
class Augmentation:
    """Training augmentation; the defaults leave every pixel value as stored.

    Attributes:
        horizontal_flip: Probability.
        vertical_flip: Probability.
        rotate90: Probability of a rotation by 90, 180 or 270 degrees (square sizes only).
        min_scale: For `resize` inputs: smallest fraction of the image's area that a crop keeps; the
            crop and the resize are one resampling. 1 keeps the whole image.
        jpeg: Probability of recompression at a quality of 60 to 98.
        blur: Probability of a Gaussian blur of 3 to 5 pixels.
        noise: Probability of Gaussian noise of standard deviation 0.01 to 0.04 (of 1).

    Raises:
        UserError: If a value is outside [0, 1].
    """

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rotate90: float = 0.0
    min_scale: float = 1.0
    jpeg: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"augmentation.{name} must be in [0, 1], got {value}")


class Augmented(NamedTuple):
    """One training sample at network size."""

    image: torch.Tensor  # (C, h, w) float32, see `to_planes`
    trimap: TrimapArray  # (h, w) supervision
    inside: MaskArray  # (h, w), False in the padding


class Resize:
    """The resampling step of `TrainTransform` alone, to be done in advance.

    Args:
        size: (h, w) of the network's input.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._step = A.Compose([_resize(size)])

    def __call__(self, image: ImageArray, trimap: TrimapArray) -> tuple[ImageArray, TrimapArray]:
        """Bring an image (H, W, 3) and its supervision (H, W) to the network's size."""
        out = self._step(image=image, mask=trimap)
        return out["image"], out["mask"]


class TrainTransform:
    """Augments stored pixels and supervision and brings them to the network's size.

    Degradations come first, at the stored size, as they would have happened to the file; then
    error levels, which need the stored pixel grid; then the only resampling or crop; then flips.

    Args:
        network_input: How an image becomes the network's input.
        augmentation: Random changes; equal seeds give equal results.

    Raises:
        UserError: If the augmentation does not fit the input.
    """

    def __init__(self, network_input: NetworkInput, augmentation: Augmentation) -> None:
        self._degrade = A.Compose(_degradation(augmentation))
        self._place = A.Compose(
            _placement(network_input, augmentation),
            additional_targets={"valid": "mask", "errors": "image"},
        )
        self._qualities = network_input.error_levels

    def __call__(self, image: ImageArray, trimap: TrimapArray, seed: int) -> Augmented:
        """Augment one sample.

        Args:
            image: (H, W, 3) RGB.
            trimap: (H, W) supervision: 0, 127 or 255.
            seed: Determines every random choice.
        """
        for step in (self._degrade, self._place):
            step.set_random_seed(seed)
        image = self._degrade(image=image)["image"]
        placed: dict[str, npt.NDArray[Any]] = {
            "image": image,
            "mask": trimap,
            "valid": np.full(trimap.shape, MANIPULATED, np.uint8),  # resized like the trimap
        }
        if self._qualities:  # albumentations refuses an image without channels
            placed["errors"] = scaled_error_levels(image, self._qualities)
        out = self._place(**placed)
        no_errors = np.empty((*out["mask"].shape, 0), np.float32)
        planes = to_planes(out["image"], out.get("errors", no_errors))
        return Augmented(torch.from_numpy(planes), out["mask"], out["valid"].astype(bool))


def _placement(network_input: NetworkInput, augmentation: Augmentation) -> list[A.BasicTransform]:
    height, width = network_input.size
    steps: list[A.BasicTransform] = []
    if network_input.mode == "native":
        if augmentation.min_scale < 1:
            raise UserError("augmentation.min_scale resamples; it needs data.input.mode=resize")
        pad = A.PadIfNeeded(height, width, border_mode=cv2.BORDER_CONSTANT, position="random")
        steps += [pad, A.RandomCrop(height, width)]
    elif augmentation.min_scale < 1:
        steps.append(
            _CropByArea((height, width), scale=(augmentation.min_scale, 1.0), ratio=(0.75, 4 / 3))
        )
    else:
        steps.append(_resize(network_input.size))
    if augmentation.horizontal_flip:
        steps.append(A.HorizontalFlip(p=augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(A.VerticalFlip(p=augmentation.vertical_flip))
    if augmentation.rotate90:
        if height != width:
            raise UserError(f"augmentation.rotate90 needs a square input, not {height} x {width}")
        steps.append(A.RandomRotate90(p=augmentation.rotate90))
    return steps


def _resize(size: tuple[int, int]) -> A.BasicTransform:
    return _ResizeByArea(*size)


class _ResizeByArea(A.Resize):  # type: ignore[misc] # albumentations is untyped
    """Resizes image and trimap by the areas that pixels cover: neither is shifted."""

    def apply(self, img: npt.NDArray[Any], **params: Any) -> npt.NDArray[Any]:
        return resize_by_area(img, (self.height, self.width))

    def apply_to_mask(self, mask: TrimapArray, **params: Any) -> TrimapArray:
        return resize_trimap(mask, (self.height, self.width))


class _CropByArea(A.RandomResizedCrop):  # type: ignore[misc] # as above
    """Crops, then resizes as `_ResizeByArea` does."""

    def apply(
        self, img: npt.NDArray[Any], crop_coords: tuple[int, int, int, int], **params: Any
    ) -> npt.NDArray[Any]:
        left, top, right, bottom = crop_coords
        return resize_by_area(img[top:bottom, left:right], self.size)

    def apply_to_mask(
        self, mask: TrimapArray, crop_coords: tuple[int, int, int, int], **params: Any
    ) -> TrimapArray:
        left, top, right, bottom = crop_coords
        return resize_trimap(mask[top:bottom, left:right], self.size)


def _degradation(augmentation: Augmentation) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if augmentation.blur:
        steps.append(A.GaussianBlur(blur_limit=(3, 5), p=augmentation.blur))
    if augmentation.noise:
        steps.append(A.GaussNoise(std_range=(0.01, 0.04), p=augmentation.noise))
    if augmentation.jpeg:
        steps.append(A.ImageCompression("jpeg", (60, 98), p=augmentation.jpeg))
    return steps
