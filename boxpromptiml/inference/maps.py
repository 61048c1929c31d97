"""From network and images to maps at the stored size, alike in training, tests and use."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.models.inputs import MAX_WHOLE_PIXELS, FloatArray, sigmoid, to_stored_size
from boxpromptiml.records import ProbArray

Precision = Literal["fp32", "bf16"]

_MULTIPLE = 32  # of the sides of tiles: no student has to pad them


class NetworkOutput(NamedTuple):
    """Output of a network for a batch, before the sigmoid."""

    logits: FloatArray  # (B, 1, h, w)
    image_logit: FloatArray  # (B,)


class Network(Protocol):
    """Runs a student or a WCBnet: `inference.checkpoint`, `inference.onnx_networks`."""

    def __call__(self, image: FloatArray, /) -> NetworkOutput:
        """Map and score of inputs (B, C, h, w)."""
        ...


class FlipMean:
    """A network whose logits are the mean over an image and its two mirror images.

    Averaging over views of an image is test-time augmentation (Krizhevsky et al. 2012); these views
    are ours, docs/decisions/045-flips.md. Three times the work.

    Args:
        network: Student or WCBnet.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, image: FloatArray, /) -> NetworkOutput:
        """Map and score of inputs (B, C, h, w); mirrored left to right and top to bottom too."""
        logits, image_logit = self._network(image)
        for axis in (3, 2):
            mirrored = self._network(np.flip(image, axis).copy())
            logits = logits + np.flip(mirrored.logits, axis)
            image_logit = image_logit + mirrored.image_logit
        return NetworkOutput(logits / np.float32(3), image_logit / np.float32(3))


def probability_maps(
    network: Network,
    images: Sequence[FloatArray],
    sizes: Sequence[tuple[int, int]],
    finite: bool = True,
) -> tuple[list[ProbArray], FloatArray]:
    """Localize a batch; images of one shape go through the network together, unless they are large.

    No image is padded to another's size, so its map does not depend on its neighbours.

    Args:
        network: Student or WCBnet.
        images: (C, h, w) each, see `inputs.to_planes`.
        sizes: Stored (H, W) of each.
        finite: Refuse output that is not finite; False leaves it to the caller.

    Returns:
        Probabilities (H, W), one an image; image logits (B,).

    Raises:
        UserError: The network's output is of another shape than its input, or not finite.
    """
    maps = [np.empty((0, 0), np.float32)] * len(images)
    image_logits = np.zeros(len(images), np.float32)
    shapes = [image.shape for image in images]
    for shape in sorted(set(shapes)):
        alike = [i for i, other in enumerate(shapes) if other == shape]
        together = max(1, MAX_WHOLE_PIXELS // (shape[1] * shape[2]))
        for start in range(0, len(alike), together):
            members = alike[start : start + together]
            batch = np.stack([images[i] for i in members])
            logits, image_logits[members] = _output(network, batch, finite)
            for i, logit_map in zip(members, logits[:, 0], strict=True):
                maps[i] = to_stored_size(logit_map, sizes[i])
    return maps, image_logits


def tiled_map(
    network: Network,
    planes: Callable[[slice, slice], FloatArray],
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: int,
    whole: FloatArray | None = None,
) -> tuple[ProbArray, FloatArray]:
    """Localize an image of any size in overlapping tiles at its stored resolution.

    The logits of neighbouring tiles are averaged where they overlap, with weights that fall off
    towards a tile's border, where it lacks context. Beside the map, and a second one with `whole`,
    it takes only a tile's memory.

    Args:
        network: Student or WCBnet.
        planes: Gives the part (C, h, w) of the image at some rows and columns; see
            `inputs.to_planes`.
        size: (H, W) of the image.
        tile: (h, w) of a tile.
        overlap: Pixels that neighbouring tiles share; half a tile if that is less.
        whole: The whole image shrunk to the network's input (C, h, w). The map is then the mean of
            its logits, enlarged, and those of the tiles.

    Returns:
        Probabilities (H, W), and the image logit of every tile.

    Raises:
        UserError: As `probability_maps`.
    """
    height, width = size
    tile_h, tile_w = min(tile[0], height), min(tile[1], width)
    tops, lefts = _starts(height, tile_h, overlap), _starts(width, tile_w, overlap)
    # Its buffers, the largest ones, are made first, so that the tiles' fit where they were.
    coarse = None if whole is None else _output(network, whole[None]).logits[0, 0]
    weight = np.outer(_falloff(tile_h), _falloff(tile_w))
    total = np.zeros(size, np.float32)
    image_logits = []
    for top in tops:
        for left in lefts:
            rows, columns = slice(top, top + tile_h), slice(left, left + tile_w)
            logits, image_logit = _output(network, planes(rows, columns)[None])
            total[rows, columns] += logits[0, 0] * weight
            image_logits.append(image_logit[0])
    across, down = _coverage(width, lefts, tile_w), _coverage(height, tops, tile_h)
    seen_whole = None
    if coarse is not None:
        seen_whole = np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR))
    for i, row in enumerate(total):
        logits = row / (down[i] * across)
        row[:] = sigmoid(logits if seen_whole is None else (logits + seen_whole[i]) / np.float32(2))
    return total, np.array(image_logits, np.float32)


def _output(network: Network, batch: FloatArray, finite: bool = True) -> NetworkOutput:
    """A network's output for a batch (B, C, h, w), if it can be meant."""
    logits, image_logit = network(batch)
    wanted = (len(batch), 1, *batch.shape[2:])
    if logits.shape != wanted or image_logit.shape != wanted[:1]:
        raise UserError(f"the network gives a map of shape {logits.shape}, not {wanted}")
    if finite and not (np.isfinite(logits).all() and np.isfinite(image_logit).all()):
        raise UserError(
            "the network gives values that are not finite: its file is damaged, or its training "
            "diverged"
        )
    return NetworkOutput(logits, image_logit)


def even_tile(length: int, max_side: int, overlap: int) -> int:
    """Side of the tiles that cover `length` pixels in as few as possible.

    Of tiles of the full side the last would repeat most of what its neighbour has seen.

    Args:
        length: Height or width of the image.
        max_side: A multiple of 32.
        overlap: Pixels that neighbouring tiles share at least, less than `max_side`.

    Example:
        >>> even_tile(4000, 1024, 64)
        864
    """
    count = max(math.ceil((length - overlap) / (max_side - overlap)), 1)
    return math.ceil((length + (count - 1) * overlap) / count / _MULTIPLE) * _MULTIPLE


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of the tiles, which overlap and cover `length`."""
    step = max(tile - overlap, tile // 2, 1)
    return [*range(0, length - tile, step), length - tile]


def _coverage(length: int, starts: Sequence[int], tile: int) -> FloatArray:
    """Sum (length,) of the tiles' weights along one axis."""
    total = np.zeros(length, np.float32)
    for start in starts:
        total[start : start + tile] += _falloff(tile)
    return total


def _falloff(length: int) -> FloatArray:
    """Weights (length,) that fall linearly from the middle to the borders, nowhere 0."""
    position = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(length)
    return np.asarray(np.float32(1.02) - np.abs(2 * position - 1))
