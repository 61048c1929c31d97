"""Synthetic forgeries of photographs, with exact masks.

Pure functions: the same arrays and the same state of the generator give the same bytes, and no
input is changed. The three kinds and their parameters follow common practice (splice, copy-move,
removal by inpainting); they serve demos, tests and pre-training, not as a benchmark.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.degradation import rescale
from boxpromptiml.synth.patches import Alteration, Parameters, Patch, cut, paste
from boxpromptiml.synth.regions import resized_region

ForgeryKind = Literal["splice", "copymove", "removal"]
KINDS: tuple[ForgeryKind, ...] = ("splice", "copymove", "removal")


@dataclass(frozen=True)
class ForgeryStyle:
    """Ranges of what a forger does to a region; every draw is uniform.

    Attributes:
        kind_fractions: Fractions of splices, copy-moves and removals among the forgeries, sum 1.
        splice_scale: Range of the factor a spliced region is scaled by, relative to the sizes of
            host and donor.
        copy_scale: Range of the factor a copied region is scaled by.
        rotation: A pasted region is rotated by at most this many degrees, either way; 0 to 180.
        exposure: Half of the splices are made darker or brighter by up to this fraction.
        feather: Range of the softness of a pasted edge in pixels, 0 (sharp) to 16.

    Raises:
        UserError: If a field is out of range; the message names it.
    """

    kind_fractions: tuple[float, float, float] = (0.60, 0.25, 0.15)
    splice_scale: tuple[float, float] = (0.6, 1.4)
    copy_scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 15.0
    exposure: float = 0.15
    feather: tuple[int, int] = (0, 2)

    def __post_init__(self) -> None:
        kinds = self.kind_fractions
        for field, right, need in (
            ("kind_fractions", min(kinds) >= 0 and abs(sum(kinds) - 1) < 1e-6, "sum to 1"),
            ("splice_scale", _rises(self.splice_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("copy_scale", _rises(self.copy_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("rotation", 0 <= self.rotation <= 180, "be 0 to 180"),
            ("exposure", 0 <= self.exposure < 1, "be 0 to 1"),
            ("feather", _rises(self.feather, 0, 16), "rise, within 0 to 16"),
        ):
            if not right:
                raise UserError(f"style.{field} must {need}, got {getattr(self, field)}")


def _rises(pair: tuple[float, float], low: float, high: float) -> bool:
    return low <= pair[0] <= pair[1] <= high


DEFAULT_STYLE = ForgeryStyle()

# Smallest and largest fraction of an image that the region of a forgery covers.
REGION_AREAS: Mapping[ForgeryKind, tuple[float, float]] = MappingProxyType(
    {"splice": (0.02, 0.2), "copymove": (0.02, 0.12), "removal": (0.02, 0.1)}
)
_MAX_OVERLAP = 0.25  # fraction of the source that a copy may cover


@dataclass(frozen=True, slots=True)
class Forgery:
    """A forged image and how it was made.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W), True where the image was manipulated.
        kind: Splice, copy-move or removal.
        parameters: What was drawn at random. Pasted regions: `scale`, `degrees`, `flipped`,
            `feather`, `exposure` (some splices), and `row` and `column` of the pasted window.
            Removals: `radius` and `method` of the inpainting.
    """

    image: ImageArray
    mask: MaskArray
    kind: ForgeryKind
    parameters: Parameters


def splice(
    host: ImageArray,
    donor: ImageArray,
    region: MaskArray,
    rng: np.random.Generator,
    style: ForgeryStyle = DEFAULT_STYLE,
) -> Forgery:
    """Paste a region of a donor into a host, at a random place.

    The region is scaled relative to the sizes of the two images (less where it would not fit),
    rotated, flipped half the time, and in half of the cases made darker or brighter. Its edge is
    sharp or soft.

    Args:
        host: (H, W, 3) RGB.
        donor: (h, w, 3) RGB.
        region: (h, w), the object in the donor, not empty.
        rng: Decides everything else.
        style: The ranges it draws from.
    """
    scale = rng.uniform(*style.splice_scale)
    relative = float(np.sqrt(host[..., 0].size / donor[..., 0].size))
    if relative < 1:  # areas are averaged, so that a large donor brings no aliasing
        donor = rescale(donor, relative)
        region = resized_region(region, _size(donor))
    else:
        scale *= relative
    patch = _cut(donor, region, scale, _size(host), rng, style)
    if rng.random() < 0.5:
        exposure = rng.uniform(1 - style.exposure, 1 + style.exposure)
        patch = patch._replace(
            colour=np.clip(patch.colour * exposure, 0, 255),
            parameters=patch.parameters | {"exposure": exposure},
        )
    rows, columns = (s - p for s, p in zip(host.shape[:2], patch.alpha.shape, strict=True))
    corner = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
    return _pasted(host, patch, corner, "splice")


def copy_move(
    image: ImageArray,
    region: MaskArray,
    rng: np.random.Generator,
    style: ForgeryStyle = DEFAULT_STYLE,
    source: ImageArray | None = None,
) -> Forgery:
    """Paste a region of an image elsewhere into it; the mask is the copy, not its source.

    The copy is scaled, rotated and flipped as in `splice`. It covers less than a quarter of its
    source: a copy that finds no such place is made smaller.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), the source, not empty.
        rng: Decides everything else.
        style: The ranges it draws from.
        source: (H, W, 3) to cut the copy from, if it has another history than the image.

    Raises:
        ValueError: If the image is too small to hold a copy beside its source.
    """
    scale = rng.uniform(*style.copy_scale)
    source = image if source is None else source
    allowed = max(_MAX_OVERLAP * np.count_nonzero(region), 1)
    for shrink in 0.8 ** np.arange(10):
        patch = _cut(source, region, scale * shrink, _size(image), rng, style)
        copied = (patch.alpha > 0.5).astype(np.float32)
        overlap = cv2.matchTemplate(region.astype(np.float32), copied, cv2.TM_CCORR)
        corners = np.argwhere(overlap < allowed - 0.5)  # 0.5: the sums come from an FFT
        if len(corners):
            row, column = rng.choice(corners)
            return _pasted(image, patch, (int(row), int(column)), "copymove")
    raise ValueError(f"no place for a copy of {np.count_nonzero(region)} pixels in {_size(image)}")


def removal(image: ImageArray, region: MaskArray, rng: np.random.Generator) -> Forgery:
    """Inpaint a region of an image from its surroundings, by Telea's or the Navier-Stokes method.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), what is removed; it becomes the mask.
        rng: Decides method and radius (3 to 5 pixels).
    """
    telea = bool(rng.random() < 0.5)
    radius = int(rng.integers(3, 6))
    method = cv2.INPAINT_TELEA if telea else cv2.INPAINT_NS
    filled = cv2.inpaint(image, region.astype(np.uint8), radius, method)
    parameters: Parameters = {"radius": radius, "method": "telea" if telea else "navier-stokes"}
    return Forgery(np.asarray(filled, dtype=np.uint8), region.copy(), "removal", parameters)


def _size(image: ImageArray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _cut(
    image: ImageArray,
    region: MaskArray,
    scale: float,
    limit: tuple[int, int],
    rng: np.random.Generator,
    style: ForgeryStyle,
) -> Patch:
    """Cut a region out as a forger of this style would."""
    degrees, flip = rng.uniform(-style.rotation, style.rotation), rng.choice([-1.0, 1.0])
    feather = int(rng.integers(style.feather[0], style.feather[1] + 1))
    return cut(image, region, Alteration(scale, degrees, flip, feather), limit, style.feather[1])


def _pasted(host: ImageArray, patch: Patch, corner: tuple[int, int], kind: ForgeryKind) -> Forgery:
    row, column = corner
    image, mask = paste(host, patch, corner)
    return Forgery(image, mask, kind, patch.parameters | {"row": row, "column": column})
