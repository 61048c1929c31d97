"""The one simulated annotator: the coarse boxes that a person would draw around known regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from skimage.measure import regionprops

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import Box, MaskArray

AnnotatorName = Literal["tight", "7-second", "sloppy"]


@dataclass(frozen=True, slots=True)
class Annotator:
    """How somebody draws boxes.

    Every side of a box is drawn uniformly between `tightness` inside its region and `looseness`
    outside, both as fractions of the region's width or height.

    Attributes:
        looseness: How far a side may lie outside its region, 0 to 10.
        tightness: How far a side may cut into its region, 0 to 0.49. Where the box would hold less
            than nine tenths of the region, its sides do not cut.
        merge: Regions with a gap of up to this fraction of the image's longer side share a box.
        overlook_area: Regions smaller than this fraction of the image may be missed, never the
            largest one.
        overlook_chance: Probability of missing such a region.
        per_image: Draw one box around everything, instead of one per region.

    Raises:
        UserError: If a number is out of range; the message names it.
    """

    looseness: float
    tightness: float
    merge: float
    overlook_area: float
    overlook_chance: float
    per_image: bool = False

    def __post_init__(self) -> None:
        limits = {"looseness": 10.0, "tightness": 0.49, "merge": 1.0, "overlook_area": 1.0}
        for name, limit in {**limits, "overlook_chance": 1.0}.items():
            if not 0 <= getattr(self, name) <= limit:
                raise UserError(f"{name} must be in [0, {limit}], got {getattr(self, name)}")


# 7-second is fitted to the boxes of 1,000 synthetic forgeries, themselves simulated: 4,321 sides
# were uniform in [-2 %, +15 %] of their region; fragments of a region (up to 0.06 % of the image,
# within 0.8 % of the longer side) shared its box; the smallest region with a box of its own had
# 0.77 %. The filled boxes have a mean IoU of 0.464 with the masks, those of the data 0.467 (tight
# 0.55, sloppy 0.38).
# tight: careful work, every region. sloppy: some 2.7 times as loose, neighbours in one box, half of
# the small regions missed.
ANNOTATORS: Mapping[AnnotatorName, Annotator] = MappingProxyType(
    {
        "tight": Annotator(0.02, 0.0, 0.01, 0.0, 0.0),
        "7-second": Annotator(0.15, 0.02, 0.01, 0.0006, 1.0),
        "sloppy": Annotator(0.4, 0.1, 0.05, 0.01, 0.5),
    }
)


def draw(mask: MaskArray, annotator: Annotator, rng: np.random.Generator) -> tuple[Box, ...]:
    """Draw boxes around the regions of a mask.

    Args:
        mask: (H, W), not empty.
        annotator: How the boxes are drawn.
        rng: Decides everything random.

    Returns:
        One box or more, x0 y0 x1 y1 in pixels, inside the image, rounded to a hundredth of a pixel.

    Raises:
        ValueError: If the mask is empty.
    """
    if not mask.any():
        raise ValueError("no box can be drawn around an empty mask")
    groups = _groups(mask, annotator)
    regions = regionprops(groups)  # type: ignore[no-untyped-call]
    largest = max(region.area for region in regions)
    drawn: list[Box] = []
    for region in regions:
        out = rng.uniform(-annotator.tightness, annotator.looseness, 4)
        missed = rng.random() < annotator.overlook_chance
        if missed and region.area < min(annotator.overlook_area * mask.size, largest):
            continue
        box = _loosened(region.bbox, out, mask.shape)
        held = np.count_nonzero(groups[geometry.pixel_slices(box, mask.shape)] == region.label)
        if held < 0.9 * region.area:
            box = _loosened(region.bbox, np.maximum(out, 0), mask.shape)
        drawn.append(box)
    return tuple(drawn)


def _groups(mask: MaskArray, annotator: Annotator) -> npt.NDArray[np.int32]:
    """(H, W): which box a pixel of the mask belongs to, numbered from 1; 0 outside the mask."""
    if annotator.per_image:
        return mask.astype(np.int32)
    reach = round(annotator.merge * max(mask.shape)) + 1  # squares of this side touch or overlap
    near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), dtype=np.uint8))
    _, groups = cv2.connectedComponents(near, connectivity=8)
    return np.where(mask, groups, 0).astype(np.int32)


def _loosened(
    bbox: tuple[int, int, int, int], out: npt.NDArray[np.float64], size: tuple[int, ...]
) -> Box:
    """Move the sides of a region's box outwards by fractions `out` (x0 y0 x1 y1) of its extent."""
    top, left, bottom, right = bbox
    width, height = right - left, bottom - top
    x0, y0, x1, y1 = out * [width, height, width, height]
    return Box(
        round(max(left - x0, 0.0), 2),
        round(max(top - y0, 0.0), 2),
        round(min(right + x1, float(size[1])), 2),
        round(min(bottom + y1, float(size[0])), 2),
    )
