"""The student: a timm backbone, the gated fusion and a small head, from image to logits."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from boxpromptiml.models.backbone import Backbone, rgb_planes, with_normalization
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.fusion import Fused, GatedFusion
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.residuals import SrmResiduals
from boxpromptiml.records import LocalizerOutput

_PRIOR_LOGIT = -2.0  # most pixels are authentic: a map of 0.12 at the start, not of 0.5
_MARGIN = 1e-4  # keeps the logit of an attention finite, and its gradient alive


class Student(nn.Module):
    """Localizer of manipulated pixels (BoxPromptIML, arXiv 2511.20359, figure 2).

    Args:
        config: Architecture of the network.
        error_levels: Number of JPEG qualities whose signed error levels follow RGB in the input.
        pretrained: Weights of the backbone, see `Backbone`; None for random ones.

    Raises:
        UserError: As `Backbone`.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, config: StudentConfig, error_levels: int = 0, pretrained: Pretrained | None = None
    ) -> None:
        super().__init__()
        self.config = config = with_normalization(config)
        self.residuals = SrmResiduals(config.truncation) if config.residuals == "srm" else None
        in_chans = 3 + 3 * error_levels
        in_chans += self.residuals.channels if self.residuals is not None else 0
        self.backbone = Backbone(config.backbone, in_chans, pretrained, config.stages)
        self.fusion = GatedFusion(self.backbone.channels, config.fusion)
        self.head: nn.Module | None = None
        if config.fusion.output == "attention":
            _start_low(self.fusion)
        else:
            self.head = _head(config.fusion.width)
        deepest = self.backbone.channels[-1]
        self.image_head = ImageHead(deepest) if config.image_head else None
        self.register_buffer("mean", rgb_planes(config.rgb_mean or ()), persistent=False)
        self.register_buffer("std", rgb_planes(config.rgb_std or ()), persistent=False)

    def forward(self, image: torch.Tensor) -> LocalizerOutput:
        """Map and score of inputs (B, 3 + 3 Q, h, w), any h and w.

        The image is padded on the right and below, by repeating the border, to a multiple of the
        backbone's stride; the padding is cut off again. `logits` has the input's size.
        `image_logit` is the mean of the map's top 1 % of cells: a maximum would follow one noisy
        cell, a mean would hide a small forgery, and log-sum-exp would depend on the image's size.
        With `config.image_head` a trained correction is added to it, see `ImageHead`.
        """
        return self.attend(image)[0]

    def attend(self, image: torch.Tensor) -> tuple[LocalizerOutput, Fused]:
        """As `forward`, of inputs (B, C, h, w), with the attention that led to the map as well."""
        height, width = image.shape[-2:]
        stride = max(self.backbone.strides)
        padded = image
        if height % stride or width % stride:
            right, below = (_cells(n, stride) * stride - n for n in (width, height))
            padded = F.pad(image, (0, right, 0, below), mode="replicate")
        rgb, levels = padded[:, :3], padded[:, 3:]
        parts = [(rgb - self.mean) / self.std, levels]
        if self.residuals is not None:
            parts.append(self.residuals(rgb))
        x = torch.cat(parts, dim=1)
        maps = self.backbone(x)
        fused: Fused = self.fusion(maps)
        if self.head is None:
            coarse = _logits(fused.final.mean(dim=1, keepdim=True))
        else:
            coarse = self.head(fused.refined).float()
        cell = self.backbone.strides[0]
        inside = coarse[:, 0, : _cells(height, cell), : _cells(width, cell)]
        image_logit = _top_percent(inside)
        if self.image_head is not None:
            rows, columns = _cells(height, stride), _cells(width, stride)
            pooled = F.avg_pool2d(coarse, stride // cell)
            deep, where = (m[..., :rows, :columns] for m in (maps[-1], pooled))
            image_logit = image_logit + self.image_head(deep, where)
        return LocalizerOutput(self.enlarged(coarse, height, width), image_logit), fused

    def enlarged(self, coarse: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """A map of the fusion (B, 1, h, w) at the size of the input (B, 1, height, width)."""
        cell = self.backbone.strides[0]
        size = [cell * n for n in coarse.shape[-2:]]
        enlarged = F.interpolate(coarse.float(), size=size, mode="bilinear", align_corners=False)
        return enlarged[..., :height, :width]


class ImageHead(nn.Module):
    """Correction of the image logit from features of the whole image and of its suspicious part.

    Ours. The features are averaged over the image and, a second time, weighted by the map's
    probability (attention pooling); two layers then compare the two. The last layer starts at
    zero, so that an untrained head corrects nothing. The loss of the image score does not reach
    the map through the weights of the average.

    Args:
        channels: Channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Linear(64, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(2 * channels + 2, 64), nn.SiLU(inplace=True), last)

    def forward(self, features: torch.Tensor, map_logits: torch.Tensor) -> torch.Tensor:
        """Corrections (B,) from features (B, C, h, w) and map logits (B, 1, h, w)."""
        features, logits = features.float().flatten(2), map_logits.detach().flatten(2)
        weight = logits.sigmoid()
        total = weight.sum(dim=2)
        suspicious = (features * weight).sum(dim=2) / total.clamp_min(1e-6)
        extent = torch.cat([logits.mean(dim=2), logits.amax(dim=2)], dim=1)
        pooled = torch.cat([features.mean(dim=2), suspicious, extent], dim=1)
        correction: torch.Tensor = self.layers(pooled)
        return correction[:, 0]


def _cells(length: int, size: int) -> int:
    """Number of cells that cover a length; no negative numbers, which ONNX rounds otherwise."""
    return (length + size - 1) // size


def _head(width: int) -> nn.Sequential:
    last = nn.Conv2d(width, 1, 1)
    nn.init.constant_(cast(nn.Parameter, last.bias), _PRIOR_LOGIT)
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(inplace=True),
        last,
    )


def _start_low(fusion: GatedFusion) -> None:
    """Let A_base and A_mem, which will be the map, start as low as the head's map does."""
    readers = [fusion.base] if fusion.memory is None else [fusion.base, fusion.memory.read]
    for reader in readers:
        nn.init.constant_(cast(nn.Parameter, reader.bias), _PRIOR_LOGIT)


def _logits(prob: torch.Tensor) -> torch.Tensor:
    """Logits of probabilities in [0, 1], which are first brought into [1e-4, 1 - 1e-4]."""
    return (_MARGIN + (1 - 2 * _MARGIN) * prob).logit()


def _top_percent(cells: torch.Tensor) -> torch.Tensor:
    """Mean (B,) of the highest 1 % (at least one) of cells (B, h, w)."""
    flat = cells.flatten(1)
    return flat.topk((flat.shape[1] + 99) // 100, dim=1).values.mean(dim=1)
