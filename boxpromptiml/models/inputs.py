"""How a stored image becomes a network's input, and how the network's map comes back.

There is at most one resampling on the way in: forensic traces do not survive two. Arrays go in and
come out, so that an exported network needs no PyTorch.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.geometry import resize_by_area
from boxpromptiml.models.error_levels import scaled_error_levels
from boxpromptiml.records import ImageArray, ProbArray

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkInput:
    """What the network is fed.

    Attributes:
        mode: `resize` stretches the image to `size` (the paper); `native` keeps the stored pixels:
            training takes crops of `size`, evaluation the whole image.
        size: (h, w) in pixels.
        error_levels: JPEG qualities; each adds three channels of signed error levels, computed on
            the stored pixels before any resize.
    """

    mode: Literal["resize", "native"] = "resize"
    size: tuple[int, int] = (224, 224)
    error_levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 32:
            raise UserError(
                f"input size must be two numbers (h, w) of at least 32, got {self.size}"
            )
        if not all(1 <= quality <= 100 for quality in self.error_levels):
            raise UserError(f"input error_levels must be from 1 to 100, got {self.error_levels}")

    @property
    def extra_channels(self) -> int:
        """Channels after RGB."""
        return 3 * len(self.error_levels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a checkpoint."""
        return {
            "mode": self.mode,
            "size": list(self.size),
            "error_levels": list(self.error_levels),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkInput":
        """Inverse of `to_dict`; raises UserError for unknown or missing keys."""
        values = {"mode" if key == "fit" else key: value for key, value in values.items()}
        keys = set(values) - {"error_levels"}  # older checkpoints have none, and say `fit`
        if keys != {"mode", "size"} or values["mode"] not in ("resize", "native"):
            raise UserError(f"not a network input: {values}")
        height, width = (int(v) for v in values["size"])
        qualities = tuple(int(v) for v in values.get("error_levels", ()))
        return cls(values["mode"], (height, width), qualities)


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
    """Probabilities of logits, of any shape; tiny ones stay apart from 0."""
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: the probability is 0
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float32)
