"""Fixed high-pass residuals: camera noise, which a forgery disturbs.

The three kernels are those of Zhou, Han, Morariu and Davis, "Learning Rich Features for Image
Manipulation Detection", CVPR 2018 (arXiv 1805.04953), figure 3; they come from the spatial rich
model of Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images", IEEE TIFS 2012,
section II. Like them we truncate residuals to [-T, T]: larger values are edges of the scene.
"""

import torch
import torch.nn.functional as F
from torch import nn

# Integers, divided afterwards: 8-bit images then stay exact even in TF32 convolutions.
_KERNELS = (
    ((0, 0, 0, 0, 0), (0, -1, 2, -1, 0), (0, 2, -4, 2, 0), (0, -1, 2, -1, 0), (0, 0, 0, 0, 0)),
    (
        (-1, 2, -2, 2, -1),
        (2, -6, 8, -6, 2),
        (-2, 8, -12, 8, -2),
        (2, -6, 8, -6, 2),
        (-1, 2, -2, 2, -1),
    ),
    ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 1, -2, 1, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
)
_DIVISORS = (4, 12, 2)


class SrmResiduals(nn.Module):
    """Three truncated residuals of the grey image: 3x3 second order, 5x5 "KV", 1-D second order.

    Grey is the mean of R, G and B. Zhou et al. sum the three channels, which is three times the
    residual of the grey image; with the mean, T keeps its unit, grey levels of an 8-bit image.

    Args:
        truncation: T > 0 in grey levels.
    """

    channels = 3
    kernels: torch.Tensor
    divisors: torch.Tensor

    def __init__(self, truncation: float = 3.0) -> None:
        super().__init__()
        self.truncation = truncation
        kernels = torch.tensor(_KERNELS, dtype=torch.float32)
        self.register_buffer("kernels", kernels[:, None], persistent=False)
        divisors = torch.tensor(_DIVISORS, dtype=torch.float32)
        self.register_buffer("divisors", divisors.view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Residuals (B, 3, h, w) in [-1, 1], float32, of images (B, 3, h, w) in [0, 1].

        Borders are reflected, so h and w must be at least 3. Autocast is disabled inside: bfloat16
        keeps 8 bits of a grey value, and the residuals are smaller than that.
        """
        with torch.autocast(image.device.type, enabled=False):
            grey = image.float().mul(255).mean(dim=1, keepdim=True)
            padded = F.pad(grey, (2, 2, 2, 2), mode="reflect")
            residuals = F.conv2d(padded, self.kernels.float()) / self.divisors.float()
            return residuals.clamp(-self.truncation, self.truncation) / self.truncation
