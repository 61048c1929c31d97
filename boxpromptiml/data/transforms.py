"""Augmentation, by albumentations 2.0.8 (its last MIT release), in this one module.

Every sample has its own seed, so batches do not depend on the number of workers.
"""

import os
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import ImageArray, LevelArray, MaskArray

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
        min_scale: For `resize` inputs: smallest share of the image's area that a crop keeps; the
            crop and the resize are one resampling. 1 keeps the whole image.
        jpeg: Probability of recompression at a quality of 60 to 98.
        blur: Probability of a Gaussian blur of 3 to 5 pixels.
        noise: Probability of Gaussian noise of standard deviation 0.01 to 0.04 (of 1).
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


class TrainTransform:
    """Image and levels to network size, augmented; the same seed gives the same result."""

    def __init__(self, network_input: NetworkInput, augmentation: Augmentation) -> None:
        self._compose = A.Compose(
            [*_placement(network_input, augmentation), *_degradation(augmentation)],
            additional_targets={"valid": "mask"},
        )

    def __call__(
        self, image: ImageArray, levels: LevelArray, seed: int
    ) -> tuple[ImageArray, LevelArray, MaskArray]:
        """Augment one sample.

        Args:
            image: (H, W, 3).
            levels: (H, W) supervision.
            seed: Decides every random choice.

        Returns:
            Image (h, w, 3), levels (h, w), and (h, w) where there is image and no padding.
        """
        self._compose.set_random_seed(seed)
        out = self._compose(image=image, mask=levels, valid=np.ones(levels.shape, np.uint8))
        return out["image"], out["mask"], out["valid"].astype(bool)


def _placement(network_input: NetworkInput, augmentation: Augmentation) -> list[A.BasicTransform]:
    height, width = network_input.size
    steps: list[A.BasicTransform] = []
    if network_input.fit == "native":
        if augmentation.min_scale < 1:
            raise UserError("augmentation.min_scale resamples; it needs data.input.fit=resize")
        pad = A.PadIfNeeded(height, width, border_mode=cv2.BORDER_CONSTANT, position="random")
        steps += [pad, A.RandomCrop(height, width)]
    elif augmentation.min_scale < 1:
        steps.append(
            A.RandomResizedCrop(
                (height, width),
                scale=(augmentation.min_scale, 1.0),
                ratio=(0.75, 4 / 3),
                interpolation=cv2.INTER_AREA,
                mask_interpolation=cv2.INTER_NEAREST,
            )
        )
    else:
        steps.append(
            A.Resize(
                height,
                width,
                interpolation=cv2.INTER_AREA,
                mask_interpolation=cv2.INTER_NEAREST,
            )
        )
    if augmentation.horizontal_flip:
        steps.append(A.HorizontalFlip(p=augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(A.VerticalFlip(p=augmentation.vertical_flip))
    if augmentation.rotate90:
        if height != width:
            raise UserError(f"augmentation.rotate90 needs a square input, not {height} x {width}")
        steps.append(A.RandomRotate90(p=augmentation.rotate90))
    return steps


def _degradation(augmentation: Augmentation) -> list[A.BasicTransform]:
    steps: list[A.BasicTransform] = []
    if augmentation.blur:
        steps.append(A.GaussianBlur(blur_limit=(3, 5), p=augmentation.blur))
    if augmentation.noise:
        steps.append(A.GaussNoise(std_range=(0.01, 0.04), p=augmentation.noise))
    if augmentation.jpeg:
        steps.append(A.ImageCompression("jpeg", (60, 98), p=augmentation.jpeg))
    return steps
