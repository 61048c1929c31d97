"""From a stored image to the network's input, and from the network's map to the stored size.

The image is resampled at most once, since forensic traces do not survive more. Inputs and outputs
are NumPy arrays, so that an exported network needs no PyTorch.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le, MaxLen
from pydantic import ConfigDict

from boxpromptiml.geometry import resize_by_area
from boxpromptiml.io.strict_json import check_fields
from boxpromptiml.models.configs import STRICT
from boxpromptiml.models.error_levels import scaled_error_levels
from boxpromptiml.records import ImageArray, ProbArray

FloatArray = npt.NDArray[np.float32]
MAX_WHOLE_PIXELS = 4_000_000  # that go through a network at once, but for one image of `size`
Side = Annotated[int, Ge(32), Le(2048)]  # pixels
Quality = Annotated[int, Ge(1), Le(100)]  # of a JPEG encoder


@dataclass(frozen=True)
class NetworkInput:
    """How an image becomes the network's input.

    Attributes:
        mode: `resize` stretches the image to `size` (the paper); `native` keeps the stored pixels:
            training takes crops of `size`, evaluation the whole image.
        size: (h, w) in pixels.
        error_levels: JPEG qualities; each adds three channels of signed error levels, computed on
            the stored pixels before any resize.

    Raises:
        UserError: A value is of another type or outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    mode: Literal["resize", "native"] = "resize"
    size: tuple[Side, Side] = (224, 224)
    error_levels: Annotated[tuple[Quality, ...], MaxLen(16)] = ()

    def __post_init__(self) -> None:
        check_fields(self, "input")

    @property
    def extra_channels(self) -> int:
        """Number of channels after RGB."""
        return 3 * len(self.error_levels)


def whole_image(image: ImageArray, network_input: NetworkInput) -> FloatArray:
    """The whole stored image (H, W, 3) as the network sees it in evaluation, (C, h, w)."""
    levels = scaled_error_levels(image, network_input.error_levels)
    if network_input.mode == "resize":
        image = resize_by_area(image, network_input.size)
        levels = resize_by_area(levels, network_input.size)
    return to_planes(image, levels)


def to_planes(image: ImageArray, levels: FloatArray) -> FloatArray:
    """One network input (3 + L, h, w): RGB in [0, 1], then error levels in [-1, 1].

    Args:
        image: (h, w, 3).
        levels: (h, w, L), L = 0 for none.
    """
    rgb = image.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(np.concatenate([rgb, levels], axis=2).transpose(2, 0, 1))


def to_stored_size(logits: FloatArray, size: tuple[int, int]) -> ProbArray:
    """A map of logits (h, w) to probabilities (H, W) at the stored size.

    The sigmoid comes after the (bilinear) resampling, so that sharp maps keep their edges.
    """
    if logits.shape != size:
        logits = np.asarray(cv2.resize(logits, size[::-1], interpolation=cv2.INTER_LINEAR))
    return sigmoid(logits)


def sigmoid(logits: FloatArray) -> ProbArray:
    """Probabilities of logits of any shape; very small ones do not become 0."""
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: the probability is 0
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
