"""Memory-guided gated fusion of BoxPromptIML (arXiv 2511.20359, AAAI 2026), with switches.

Symbols are the paper's. For feature maps F_i of several strides:

    F'_i    = resize(project_i(F_i))                    common width, size of the finest map
    G_i     = sigmoid(conv_i(F'_i))                     gate of map i
    F_fused = sum_i G_i * F'_i
    A_base  = sigmoid(conv(F_fused))
    G_avg   = mean_i G_i
    A_mem   = sigmoid(read(sum_k w_k P_k))              recalled from K prototypes P_k
    A_final = alpha (A_base * G_avg) + (1 - alpha) A_mem

The paper calls its result A_refined, a map in [0, 1] that is compared with the teacher's mask, and
does not say how it follows from A_final. `FusionConfig.output` chooses between our readings of it:

    residual    map = head(F_fused * (1 + A_final))     ours, the default
    multiply    map = head(F_fused * A_final)           ours: the attention can remove features
    attention   map = mean_c A_final                    the paper's A_refined without any head; the
                                                        mean over the channels of the gates is ours

The paper does not say how large the memory is and how it is updated either. Here w =
softmax_k(cos(F_fused, P_k) / 0.1), which is ours; `learnable` prototypes are trained by gradient,
`ema` ones follow the mean of their nearest features, as in the codebook of van den Oord et al.,
"Neural Discrete Representation Learning" (arXiv 1711.00937), appendix A.1.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from boxpromptiml.models.configs import FusionConfig

_TEMPERATURE = 0.1
_DEAD = 0.01  # fraction of an equal part of the features, below which a prototype is re-initialised


class Fused(NamedTuple):
    """What the fusion computes, at the size (h, w) of the finest map.

    Attributes:
        features: F_fused (B, width, h, w).
        refined: Features for the head (B, width, h, w); with `output: attention` F_fused.
        base: A_base before its sigmoid (B, 1, h, w).
        memory: A_mem before its sigmoid (B, 1, h, w); None without a memory.
        final: A_final (B, width, h, w) in (0, 1), (B, 1, h, w) without gates.
    """

    features: torch.Tensor
    refined: torch.Tensor
    base: torch.Tensor
    memory: torch.Tensor | None
    final: torch.Tensor


class PrototypeMemory(nn.Module):
    """A_mem: an attention map recalled from K prototypes.

    In training mode every batch moves `ema` prototypes, deterministically and without gradient:
    each towards the mean of the (unit-length) features nearest to it. Prototypes nearest to less
    than 1 % of an equal part of the features (all of them at first) are re-initialised one by one
    at the feature that the others match worst (Gonzalez, "Clustering to Minimize the Maximum
    Intercluster Distance", 1985). Under DDP the first process's prototypes are broadcast, as the
    statistics of BatchNorm are.

    Args:
        width: Channels of a feature.
        prototypes: K, their number.
        ema_decay: Decay of the moving average; None for prototypes that are trained by gradient.
    """

    prototypes: torch.Tensor
    usage: torch.Tensor

    def __init__(self, width: int, prototypes: int, ema_decay: float | None) -> None:
        super().__init__()
        self.ema_decay = ema_decay
        if ema_decay is None:
            self.prototypes = nn.Parameter(torch.randn(prototypes, width) / math.sqrt(width))
        else:
            self.register_buffer("prototypes", torch.zeros(prototypes, width))
            self.register_buffer("usage", torch.zeros(prototypes))
        self.read = nn.Linear(width, 1)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """A_mem before its sigmoid (B, 1, h, w), from F_fused (B, C, h, w)."""
        if self.training and self.ema_decay is not None:
            self._update(fused.detach(), self.ema_decay)
        bank = self.prototypes.clone()  # the buffer may move again before the backward pass
        weights = _weights(fused, bank)
        # read(sum_k w_k P_k) = sum_k w_k (read P_k): one number a prototype instead of C.
        values = F.linear(bank, self.read.weight)  # (K, 1)
        return F.conv2d(weights, values.t()[:, :, None, None], self.read.bias)

    def weights(self, fused: torch.Tensor) -> torch.Tensor:
        """How much each prototype responds to each cell: w (B, K, h, w), which sums to 1 over K."""
        return _weights(fused, self.prototypes)

    @torch.no_grad()
    def _update(self, fused: torch.Tensor, decay: float) -> None:
        with torch.autocast(fused.device.type, enabled=False):
            count = len(self.prototypes)
            features = _unit(fused.float().permute(0, 2, 3, 1).flatten(0, 2))  # (N, C)
            self._plant(features, self.usage < _DEAD / count)
            nearest = (features @ _unit(self.prototypes).t()).argmax(dim=1)
            served = F.one_hot(nearest, count).float()  # a product is deterministic, index_add not
            hits = served.sum(dim=0)
            means = served.t() @ features / hits.clamp(min=1)[:, None]
            moved = decay * self.prototypes + (1 - decay) * means
            self.prototypes.copy_(torch.where(hits[:, None] > 0, moved, self.prototypes))
            self.usage.mul_(decay).add_((1 - decay) * hits / len(features))

    def _plant(self, features: torch.Tensor, dead: torch.Tensor) -> None:
        """Re-initialise each dead prototype at the feature that all others match worst so far."""
        places: list[int] = dead.nonzero().flatten().tolist()
        if not places:
            return
        similar = features @ _unit(self.prototypes).t()
        closest = similar.masked_fill(dead, -1).amax(dim=1)
        for place in places:
            chosen = features[closest.argmin()]
            self.prototypes[place] = chosen
            closest = torch.maximum(closest, features @ chosen)
        self.usage.masked_fill_(dead, 1 / len(dead))


class GatedFusion(nn.Module):
    """Fuses maps of several strides into one, refined by an attention map (module docstring).

    A_base and A_mem have one channel, gates as many as F'_i; products broadcast.

    Args:
        channels: Channels of each map, finest first.
        config: The switches.
    """

    alpha_logit: torch.Tensor

    def __init__(self, channels: tuple[int, ...], config: FusionConfig) -> None:
        super().__init__()
        width = config.width
        self.project = nn.ModuleList(_projection(c, width) for c in channels)
        self.gate = (
            nn.ModuleList(nn.Conv2d(width, width, 1) for _ in channels) if config.gates else None
        )
        self.output = config.output
        self.base = nn.Conv2d(width, 1, 3, padding=1)
        self.memory: PrototypeMemory | None = None
        if config.memory != "none":
            decay = config.ema_decay if config.memory == "ema" else None
            self.memory = PrototypeMemory(width, config.prototypes, decay)
            logit = torch.tensor(config.alpha).logit()
            if config.learn_alpha:
                self.alpha_logit = nn.Parameter(logit)
            else:
                self.register_buffer("alpha_logit", logit, persistent=False)

    def forward(self, maps: list[torch.Tensor]) -> Fused:
        """Features and attention of maps (B, channels[i], h_i, w_i), finest first."""
        fused, average = self.fuse(maps)
        base = self.base(fused)
        recalled = None if self.memory is None else self.memory(fused)
        final = torch.sigmoid(base.float())
        if average is not None:
            final = final * average
        if recalled is not None:
            alpha = torch.sigmoid(self.alpha_logit)
            final = alpha * final + (1 - alpha) * torch.sigmoid(recalled.float())
        refined = fused
        if self.output != "attention":
            refined = fused * (final if self.output == "multiply" else 1 + final)
            refined = refined.to(fused.dtype)  # of the layers that follow, also in bf16-true
        return Fused(fused, refined, base, recalled, final)

    def fuse(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Fuse feature maps of the backbone, finest first, at the size (h, w) of the finest.

        Returns:
            F_fused and G_avg, both (B, width, h, w); G_avg is None without gates.
        """
        size = maps[0].shape[-2:]
        projected = [
            _resize(project(m), size) for project, m in zip(self.project, maps, strict=True)
        ]
        if self.gate is None:
            return sum(projected[1:], projected[0]), None
        gates = [torch.sigmoid(conv(f)) for conv, f in zip(self.gate, projected, strict=True)]
        gated = [g * f for g, f in zip(gates, projected, strict=True)]
        return sum(gated[1:], gated[0]), sum(gates[1:], gates[0]) / len(gates)


def _projection(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU(inplace=True)
    )


def _resize(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows (N, C) scaled to length 1; a floor of 0.01 keeps the gradient of a zero row finite."""
    return rows * torch.rsqrt(rows.square().sum(dim=1, keepdim=True) + 1e-4)


def _weights(fused: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
    """Softmax over K of the cosines of features (B, C, h, w) with prototypes (K, C)."""
    products = F.conv2d(fused, _unit(bank)[:, :, None, None])
    cosines = products * torch.rsqrt(fused.square().sum(dim=1, keepdim=True) + 1e-4)
    return (cosines / _TEMPERATURE).softmax(dim=1)
