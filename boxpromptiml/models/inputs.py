"""How a stored image becomes a network's input, and how the network's map comes back.

There is at most one resampling on the way in: forensic traces do not survive two.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray


@dataclass(frozen=True)
class NetworkInput:
    """What the network is fed.

    Attributes:
        fit: `resize` stretches the image to `size` (the paper); `native` keeps the stored pixels:
            training takes crops of `size`, evaluation the whole image.
        size: (h, w) in pixels.
    """

    fit: Literal["resize", "native"] = "resize"
    size: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 32:
            raise UserError(
                f"input size must be two numbers (h, w) of at least 32, got {self.size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a checkpoint."""
        return {"fit": self.fit, "size": list(self.size)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "NetworkInput":
        """Inverse of `to_dict`; raises UserError for unknown or missing keys."""
        if set(values) != {"fit", "size"} or values["fit"] not in ("resize", "native"):
            raise UserError(f"not a network input: {values}")
        height, width = (int(v) for v in values["size"])
        return cls(values["fit"], (height, width))


def fit_image(image: ImageArray, network_input: NetworkInput) -> ImageArray:
    """The whole image (H, W, 3) as the network sees it in evaluation, (h, w, 3) uint8."""
    if network_input.fit == "native":
        return image
    height, width = network_input.size
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, dtype=np.uint8)


def to_tensor(image: ImageArray) -> torch.Tensor:
    """(h, w, 3) uint8 [0, 255] to (3, h, w) float32 [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    return tensor.to(torch.float32).div_(255)


def to_stored_size(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A map of logits (h, w) to probabilities (H, W) float32 at the stored size, on the CPU.

    The sigmoid comes after the (bilinear) resampling, so that sharp maps keep their edges.
    """
    logits = logits[None, None].float()
    if logits.shape[-2:] != size:
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return logits.sigmoid()[0, 0].cpu()
