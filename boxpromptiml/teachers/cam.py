"""Boxes from a probability map: the bridge from image labels to box supervision.

An image with only an image label gets boxes where a network that was trained on image labels sees
the manipulation; these boxes prompt a teacher like boxes drawn by a person.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import Box, Description, MaskArray, ProbArray

_VERSION = 1  # raise it when a box changes without a setting changing


class ScoredBox(NamedTuple):
    """A box in half-open pixels of the stored image, and how sure the map is of what is in it."""

    box: Box
    score: float  # mean of the map over the component inside, in [0, 1]


@dataclass(frozen=True)
class MapBoxes:
    """How a probability map becomes boxes.

    A component is a connected set of pixels (8 neighbours) above the threshold. Areas count its
    pixels, not those of its box.

    Attributes:
        threshold: Pixels strictly above it count, in [0, 1). 0.6 gave the best boxes of 0.3 to 0.7
            on 100 made forgeries (IoU with the tight boxes .66; at 0.5 .62).
        merge: Components with at most about this distance between them, as a share of the image's
            longer side, become one.
        min_area: Smaller components are dropped; share of the image.
        max_area: Larger components are dropped; share of the image.
        most: Boxes an image, those of the highest score x area.
        expand: Growth of a box on every side, as a fraction of its width and height.
        always: Where no component passes, the one around the highest probability is taken: its
            pixels are above this share of the maximum, and above so many others that they fit
            into `max_area`; `min_area` does not count. None: such an image has no box.
    """

    threshold: float = 0.6
    merge: float = 0.0
    min_area: float = 0.002
    max_area: float = 0.8
    most: int = 3
    expand: float = 0.0
    always: float | None = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.threshold < 1 and (self.always is None or 0 <= self.always < 1)):
            raise UserError("boxes: threshold and always must be in [0, 1)")
        if not 0 <= self.min_area <= self.max_area <= 1 or self.max_area == 0:
            raise UserError("boxes: need 0 <= min_area <= max_area <= 1 and max_area > 0")
        if not (0 <= self.merge < 1 and 0 <= self.expand <= 10 and self.most >= 1):
            raise UserError("boxes: need merge in [0, 1), expand in [0, 10] and most >= 1")

    @property
    def signature(self) -> Description:
        """Every setting that changes a box."""
        return {"name": "map-boxes", "settings": asdict(self) | {"version": _VERSION}}


class _Components(NamedTuple):
    """Connected parts of a map, N of them."""

    boxes: npt.NDArray[np.int64]  # (N, 4) x0 y0 x1 y1
    area: npt.NDArray[np.int64]  # (N,) pixels
    total: npt.NDArray[np.float64]  # (N,) sum of the probability
    top: MaskArray  # (N,) whether the highest probability of the map is in it


def boxes_from_map(prob: ProbArray, settings: MapBoxes) -> list[ScoredBox]:
    """Boxes around what a map (H, W) in [0, 1] shows of an image that is known to be manipulated.

    Returns:
        Highest score x area first. None of them for a map without any contrast, or where nothing
        passes and `always` is None.

    Raises:
        ValueError: The map is not (H, W), or a value is outside [0, 1] or nan.
    """
    if prob.ndim != 2 or not prob.size or not (prob.min() >= 0 and prob.max() <= 1):
        raise ValueError(f"prob must be (H, W) in [0, 1] and not nan, got shape {prob.shape}")
    found = _components(prob, prob > settings.threshold, settings.merge)
    share = found.area / prob.size
    kept = (share >= settings.min_area) & (share <= settings.max_area)
    if not kept.any() and settings.always is not None:
        found = _components(prob, prob > _level(prob, settings), settings.merge)
        kept = found.top
    chosen = np.flatnonzero(kept)
    order = np.lexsort((*found.boxes[chosen].T, -found.total[chosen]))  # ties by place
    best = chosen[order][: settings.most]
    tight, size = found.boxes[best].astype(np.float32), (prob.shape[0], prob.shape[1])
    return [
        ScoredBox(Box(*(float(v) for v in box)), float(score))
        for box, score in zip(
            geometry.expand(tight, settings.expand, size),
            found.total[best] / found.area[best],
            strict=True,
        )
    ]


def _level(prob: ProbArray, settings: MapBoxes) -> float:
    """The relative threshold of `always`, raised until what is above it fits into `max_area`."""
    place = max(prob.size - 1 - int(settings.max_area * prob.size), 0)
    fitting = np.partition(prob, place, axis=None)[place]
    return max((settings.always or 0.0) * float(prob.max()), float(fitting))


def _components(prob: ProbArray, mask: MaskArray, merge: float) -> _Components:
    """The connected parts of a mask (H, W), those near each other taken together."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    numbers = np.asarray(labels).ravel()
    total = np.bincount(numbers, prob.ravel(), count)[1:]  # 0 is the background
    top = np.zeros(count, dtype=bool)
    top[np.asarray(labels)[prob == prob.max()]] = True
    x0, y0, width, height, area = np.asarray(stats, dtype=np.int64)[1:].T
    found = _Components(
        np.stack([x0, y0, x0 + width, y0 + height], axis=1), area, total.astype(float), top[1:]
    )
    radius = round(merge * max(mask.shape) / 2)
    if not radius or count <= 2:
        return found
    distance = np.asarray(cv2.distanceTransform(_bytes(~mask), cv2.DIST_C, 3))
    groups, near = cv2.connectedComponents(_bytes(distance <= radius), connectivity=8)
    group = np.zeros(count, dtype=np.int64)
    group[numbers] = np.asarray(near).ravel() - 1
    return _grouped(found, group[1:], groups - 1)


def _grouped(parts: _Components, group: npt.NDArray[np.int64], count: int) -> _Components:
    """Components of one group as one; every group has at least one."""
    boxes = np.tile(parts.boxes.max(axis=0), (count, 1))
    boxes[:, 2:] = 0
    np.minimum.at(boxes[:, :2], group, parts.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], group, parts.boxes[:, 2:])
    area = np.bincount(group, parts.area, count).astype(np.int64)
    total = np.bincount(group, parts.total, count).astype(float)
    return _Components(boxes, area, total, np.bincount(group, parts.top, count) > 0)


def _bytes(mask: MaskArray) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)
