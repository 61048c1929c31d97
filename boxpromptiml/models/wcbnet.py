"""WCBnet: an image classifier that weights its blocks and shows the evidence of each.

Weighted cross-block network (MMSP 2023; arXiv 2505.23586): the feature maps F_b of all blocks of a
convolutional backbone are pooled, self-attention over the pooled features gives every block a
weight a_b, and the weighted features are concatenated and classified by one linear layer:

    image_logit = mean_b a_b v_b . pool(F_b) + bias        with mean_b a_b = 1

Since the classifier is linear, the same weights give the contribution of each position
(`models/cam.py`).
"""

import torch
import torch.nn.functional as F
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.models.backbone import Backbone, rgb_planes, with_normalization
from boxpromptiml.models.cam import (
    evidence_logits,
    fuse_views,
    views_from_classifier,
    views_from_gradients,
)
from boxpromptiml.models.configs import CamConfig, WCBConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.records import LocalizerOutput

DENSE_SCALES = (1, 2, 4, 8)  # cells a side
_TOKEN = 16  # width of a block's token; wider ones cost more than 3 % of a small backbone


class CrossBlockAttention(nn.Module):
    """Weights (B, L) of L blocks from their mean-pooled features; every row sums to L.

    Args:
        channels: Number of channels of each block.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.token = nn.ModuleList(nn.Linear(c, _TOKEN) for c in channels)
        self.norm = nn.LayerNorm(_TOKEN)
        self.attention = nn.MultiheadAttention(_TOKEN, 1, batch_first=True)
        self.score = nn.Linear(_TOKEN, 1)
        nn.init.zeros_(self.score.weight)  # equal weights at the start

    def forward(self, pooled: list[torch.Tensor]) -> torch.Tensor:
        """Weights (B, L), above 0, from the pooled features of the L blocks, each (B, C_b)."""
        tokens = [layer(p) for layer, p in zip(self.token, pooled, strict=True)]
        stacked = self.norm(torch.stack(tokens, dim=1))
        mixed, _ = self.attention(stacked, stacked, stacked, need_weights=False)
        scores: torch.Tensor = self.score(stacked + mixed).squeeze(2)
        return scores.softmax(dim=1) * len(pooled)


class WCBNet(nn.Module):
    """Classifier of manipulated images, with a map of where the evidence lies.

    Args:
        config: Architecture of the network.
        error_levels: Number of JPEG qualities in the input; at least one unless `inputs` is rgb.
        pretrained: Weights of the backbone, see `Backbone`; None for random ones.
        cam: How the coarse map is computed.

    Raises:
        UserError: As `Backbone`, and if error levels are missing or `cam.view` does not exist.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        config: WCBConfig,
        error_levels: int = 0,
        pretrained: Pretrained | None = None,
        cam: CamConfig = CamConfig(),
    ) -> None:
        super().__init__()
        if config.inputs != "rgb" and not error_levels:
            raise UserError(
                f"wcbnet.inputs={config.inputs} needs error levels: set --data.input.error_levels"
            )
        if config.inputs == "sel" and pretrained is not None:
            raise UserError("pretrained weights see photographs; with wcbnet.inputs=sel use none")
        if cam.view is not None and cam.view >= len(config.stages):
            raise UserError(f"cam.view {cam.view}: wcbnet.stages {config.stages} has no such index")
        self.config = config = with_normalization(config)
        self.cam = cam
        channels = {"rgb": 3, "sel": 3 * error_levels, "both": 3 + 3 * error_levels}
        self.backbone = Backbone(
            config.backbone, channels[config.inputs], pretrained, config.stages
        )
        self.taps = nn.ModuleList(nn.Identity() for _ in config.stages)  # where Grad-CAM hooks in
        width = len(DENSE_SCALES) if config.pooling == "dense" else 1
        self.weighting = CrossBlockAttention(self.backbone.channels) if config.weighting else None
        self.classifier = nn.ModuleList(
            nn.Linear(width * c, 1, bias=False) for c in self.backbone.channels
        )
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", rgb_planes(config.rgb_mean or ()), persistent=False)
        self.register_buffer("std", rgb_planes(config.rgb_std or ()), persistent=False)

    def forward(self, image: torch.Tensor) -> LocalizerOutput:
        """Coarse map (at the input's size) and score of inputs (B, 3 + 3 Q, h, w)."""
        logit, maps, weights = self.classify(image)
        if self.cam.method == "classifier":
            views = views_from_classifier(maps, self.vectors())
        else:
            taps = list(self.taps)
            views = views_from_gradients(_ImageLogit(self), taps, image, self.cam.method)
        if self.cam.view is not None:
            views, weights = [views[self.cam.view]], torch.ones_like(weights[:, :1])
        fused = fuse_views(views, weights, (image.shape[2], image.shape[3]))
        return LocalizerOutput(evidence_logits(fused, logit), logit)

    def classify(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Classify inputs (B, C, h, w) and keep what activation maps are made of.

        Returns:
            Image logits (B,), the feature maps of the L blocks, finest first, and the weight of
            each block (B, L).
        """
        maps = [tap(m) for tap, m in zip(self.taps, self.backbone(self._input(image)), strict=True)]
        pooled = [self._pool(m) for m in maps]
        if self.weighting is None:
            weights = torch.ones(len(image), len(maps), device=image.device)
        else:
            means = [p[:, : m.shape[1]] for p, m in zip(pooled, maps, strict=True)]
            weights = self.weighting(means)
        parts = [layer(p) for layer, p in zip(self.classifier, pooled, strict=True)]
        logit = (torch.cat(parts, dim=1) * weights).mean(dim=1) + self.bias
        return logit, maps, weights

    def _input(self, image: torch.Tensor) -> torch.Tensor:
        rgb, levels = (image[:, :3] - self.mean) / self.std, image[:, 3:]
        if self.config.inputs == "sel":
            return levels
        return rgb if self.config.inputs == "rgb" else torch.cat([rgb, levels], dim=1)

    def _pool(self, features: torch.Tensor) -> torch.Tensor:
        """Pool features (B, C, h, w): means (B, C), or (B, 4 C) with each grid's strongest cell."""
        if self.config.pooling == "mean":
            return features.mean(dim=(2, 3))
        grids = [_grid_means(features, scale) for scale in DENSE_SCALES]
        return torch.cat([grid.amax(dim=(2, 3)) for grid in grids], dim=1)

    def vectors(self) -> list[torch.Tensor]:
        """The classifier's weights (C_b,) of each block, summed over scales.

        A constant map pools to itself at every scale, so this is what a position would add to the
        logit if the whole image looked like it.
        """
        return [layer.weight.view(-1, c).sum(dim=0) for layer, c in self._linear()]

    def _linear(self) -> list[tuple[nn.Linear, int]]:
        return list(zip(self.classifier, self.backbone.channels, strict=True))  # type: ignore[arg-type]


def _grid_means(features: torch.Tensor, scale: int) -> torch.Tensor:
    """Means (B, C, scale, scale) over the cells of a grid that may overlap by one."""
    if not torch.compiler.is_exporting():
        return F.adaptive_avg_pool2d(features, scale)
    # ONNX has no such operator, and PyTorch's way around it holds for the traced size alone.
    rows, columns = (_averages(n, scale, features) for n in features.shape[2:])
    return rows @ features @ columns.t()


def _averages(length: int, scale: int, like: torch.Tensor) -> torch.Tensor:
    """Matrix (scale, length) of the means that `adaptive_avg_pool2d` takes along one side."""
    number = torch.arange(scale, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)[None]
    first = number * length // scale
    last = ((number + 1) * length + scale - 1) // scale
    return ((place >= first) & (place < last)).to(like.dtype) / (last - first)


class _ImageLogit(nn.Module):
    """A WCBnet as a plain classifier, logits (B, 1)."""

    def __init__(self, network: WCBNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network.classify(image)[0][:, None]
