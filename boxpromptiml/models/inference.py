"""From a student and images to maps at the stored size, the same in training, test and use."""

from collections.abc import Sequence
from typing import Protocol

import torch

from boxpromptiml.models.inputs import to_stored_size
from boxpromptiml.records import LocalizerOutput


class Network(Protocol):
    """A student, a WCBnet, or what runs one of them (`models.runtimes`)."""

    def __call__(self, image: torch.Tensor, /) -> LocalizerOutput:
        """Map and score of inputs (B, C, h, w)."""
        ...


def probability_maps(
    student: Network, images: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Localize a batch; images of one shape go through the network together.

    No image is padded to another's size, so its map does not depend on its neighbours.

    Args:
        student: The network.
        images: (3, h, w) each, float32 in [0, 1].
        sizes: Stored (H, W) of each.

    Returns:
        Probabilities (H, W) float32 on the CPU, one an image; image scores (B,) in [0, 1].
    """
    maps = [torch.empty(0)] * len(images)
    scores = torch.zeros(len(images))
    shapes = [tuple(image.shape) for image in images]
    for shape in sorted(set(shapes)):
        members = [i for i, other in enumerate(shapes) if other == shape]
        batch = torch.stack([images[i] for i in members])
        logits, image_logit = student(batch.contiguous(memory_format=torch.channels_last))
        for i, logit_map, logit in zip(members, logits[:, 0], image_logit, strict=True):
            maps[i] = to_stored_size(logit_map, sizes[i])
            scores[i] = logit.float().sigmoid()
    return maps, scores


def tiled_map(
    student: Network, image: torch.Tensor, tile: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Localize an image of any size in overlapping tiles at its stored resolution.

    Neighbouring tiles overlap by half; their logits are averaged with weights that fall off towards
    a tile's border, where it lacks context.

    Args:
        student: The network.
        image: (3, H, W) float32 in [0, 1].
        tile: (h, w) of a tile.

    Returns:
        Probabilities (H, W) on the CPU, and the image score, the highest of the tiles.
    """
    height, width = image.shape[-2:]
    tile_h, tile_w = min(tile[0], height), min(tile[1], width)
    weight = torch.outer(_falloff(tile_h), _falloff(tile_w)).to(image.device)
    total = image.new_zeros(height, width)
    weights = image.new_zeros(height, width)
    score = torch.tensor(0.0)
    for top in _starts(height, tile_h):
        for left in _starts(width, tile_w):
            rows, columns = slice(top, top + tile_h), slice(left, left + tile_w)
            part = image[None, :, rows, columns].contiguous(memory_format=torch.channels_last)
            logits, image_logit = student(part)
            total[rows, columns] += logits[0, 0].float() * weight
            weights[rows, columns] += weight
            score = torch.maximum(score, image_logit[0].float().sigmoid().cpu())
    return to_stored_size(total / weights, (height, width)), score


def _starts(length: int, tile: int) -> list[int]:
    """First pixels of tiles that overlap by half and cover `length`."""
    step = max(tile // 2, 1)
    return [*range(0, length - tile, step), length - tile]


def _falloff(length: int) -> torch.Tensor:
    """A triangle from the middle to the borders, nowhere 0."""
    position = (torch.arange(length) + 0.5) / length
    return 1.02 - (2 * position - 1).abs()
