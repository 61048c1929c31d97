"""Made-up forgeries of photographs, with exact masks, and the coarse boxes a person would draw.

Pure functions: the same arrays and the same state of the generator give the same bytes, and no
input is changed. The three kinds and their parameters follow common practice (splice, copy-move,
removal by inpainting); they serve demos, tests and pre-training, not as a benchmark.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import Box, BoxArray, ImageArray, MaskArray
from boxpromptiml.synth.degradation import rescale
from boxpromptiml.synth.regions import connected_parts, largest_part, object_region

Kind = Literal["splice", "copymove", "removal"]
KINDS: tuple[Kind, ...] = ("splice", "copymove", "removal")


@dataclass(frozen=True)
class ForgeryStyle:
    """Ranges of what a forger does to a region; every draw is uniform.

    Attributes:
        shares: How often a forgery is a splice, a copy-move, a removal; they sum to 1.
        splice_scale: Factor of a splice, relative to the sizes of host and donor.
        copy_scale: Factor of a copy-move.
        rotation: A pasted region is turned by up to so many degrees either way, at most 180.
        exposure: Half of the splices are made darker or brighter by up to this fraction.
        feather: Softness of a pasted edge in pixels, 0 is a sharp one; at most 16.
    """

    shares: tuple[float, float, float] = (0.60, 0.25, 0.15)
    splice_scale: tuple[float, float] = (0.6, 1.4)
    copy_scale: tuple[float, float] = (0.8, 1.2)
    rotation: float = 15.0
    exposure: float = 0.15
    feather: tuple[int, int] = (0, 2)

    def __post_init__(self) -> None:
        """Refuse what no forgery can be made with.

        Raises:
            UserError: Naming the field.
        """
        for field, right, need in (
            ("shares", min(self.shares) >= 0 and abs(sum(self.shares) - 1) < 1e-6, "sum to 1"),
            ("splice_scale", _range(self.splice_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("copy_scale", _range(self.copy_scale, 0.05, 20), "rise, within 0.05 to 20"),
            ("rotation", 0 <= self.rotation <= 180, "be 0 to 180"),
            ("exposure", 0 <= self.exposure < 1, "be 0 to 1"),
            ("feather", _range(self.feather, 0, 16), "rise, within 0 to 16"),
        ):
            if not right:
                raise UserError(f"style.{field} must {need}, got {getattr(self, field)}")


def _range(pair: tuple[float, float], least: float, most: float) -> bool:
    return least <= pair[0] <= pair[1] <= most


DEFAULT_STYLE = ForgeryStyle()


# Least and greatest share of an image that the region of a forgery covers.
REGION_AREAS: Mapping[Kind, tuple[float, float]] = MappingProxyType(
    {"splice": (0.02, 0.2), "copymove": (0.02, 0.12), "removal": (0.02, 0.1)}
)
Drawn = dict[str, float | int | str]  # what a generator decided
_MAX_OVERLAP = 0.25  # of the source of a copy-move


@dataclass(frozen=True, slots=True)
class Forgery:
    """A forged image (H, W, 3), its exact mask (H, W) and how it was made.

    `drawn` names what was decided at random: scale, degrees, flipped, feather, exposure, and the
    row and column of the pasted window; radius and method of a removal.
    """

    image: ImageArray
    mask: MaskArray
    kind: Kind
    drawn: Drawn


class _Patch(NamedTuple):
    """A cut-out: `colour` (h, w, 3) float32 in [0, 255], `alpha` (h, w) float32 in [0, 1]."""

    colour: npt.NDArray[np.float32]
    alpha: npt.NDArray[np.float32]
    drawn: Drawn


def splice(
    host: ImageArray,
    donor: ImageArray,
    region: MaskArray,
    rng: np.random.Generator,
    style: ForgeryStyle = DEFAULT_STYLE,
) -> Forgery:
    """Paste a region of a donor into a host, at a random place.

    The object is scaled relative to the sizes of the two images (less where it would not fit),
    turned, flipped half the time, and in half of the cases made darker or brighter. Its edge is
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
        region = cv2.resize(region.astype(np.float32), _size(donor)[::-1]) > 0.5
    else:
        scale *= relative
    patch = _cut(donor, region, scale, _size(host), rng, style)
    if rng.random() < 0.5:
        exposure = rng.uniform(1 - style.exposure, 1 + style.exposure)
        drawn = patch.drawn | {"exposure": exposure}
        patch = patch._replace(colour=np.clip(patch.colour * exposure, 0, 255), drawn=drawn)
    rows, columns = (s - p for s, p in zip(host.shape[:2], patch.alpha.shape, strict=True))
    corner = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
    return _paste(host, patch, corner, "splice")


def copy_move(
    image: ImageArray,
    region: MaskArray,
    rng: np.random.Generator,
    style: ForgeryStyle = DEFAULT_STYLE,
    source: ImageArray | None = None,
) -> Forgery:
    """Paste a region of an image elsewhere into it; the mask is the copy, not its source.

    The copy is scaled, turned and flipped as in `splice`, and covers less than a quarter of its
    source: a copy that finds no such place is made smaller.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), the source, not empty.
        rng: Decides everything else.
        style: The ranges it draws from.
        source: (H, W, 3) to cut the copy from, if it has another history than the image.

    Raises:
        ValueError: The image has only a few pixels.
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
            return _paste(image, patch, (int(row), int(column)), "copymove")
    raise ValueError(f"no place for a copy of {np.count_nonzero(region)} pixels in {_size(image)}")


def removal(image: ImageArray, region: MaskArray, rng: np.random.Generator) -> Forgery:
    """Inpaint a region (H, W) of an image from its surroundings, by Telea or Navier-Stokes."""
    telea = bool(rng.random() < 0.5)
    radius = int(rng.integers(3, 6))
    method = cv2.INPAINT_TELEA if telea else cv2.INPAINT_NS
    filled = cv2.inpaint(image, region.astype(np.uint8), radius, method)
    drawn: Drawn = {"radius": radius, "method": "telea" if telea else "navier-stokes"}
    return Forgery(np.asarray(filled, dtype=np.uint8), region.copy(), "removal", drawn)


def forge(
    host: ImageArray,
    donor: ImageArray,
    rng: np.random.Generator,
    kind: Kind | None = None,
    style: ForgeryStyle = DEFAULT_STYLE,
) -> Forgery:
    """Forge a host, with a donor for splices; None draws the kind by the shares of the style."""
    if kind is None:
        kind = KINDS[int(rng.choice(len(KINDS), p=style.shares))]
    area = REGION_AREAS[kind]
    if kind == "splice":
        return splice(host, donor, object_region(donor, rng, area), rng, style)
    if kind == "copymove":
        return copy_move(host, object_region(host, rng, area), rng, style)
    return removal(host, object_region(host, rng, area), rng)


def _size(image: ImageArray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def _cut(
    image: ImageArray,
    region: MaskArray,
    scale: float,
    limit: tuple[int, int],
    rng: np.random.Generator,
    style: ForgeryStyle,
) -> _Patch:
    """Cut a region out, turn it, maybe flip it, scale it (to at most `limit` (H, W)), soften it."""
    y, x = np.nonzero(region)
    degrees, flip = rng.uniform(-style.rotation, style.rotation), rng.choice([-1.0, 1.0])
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([flip, 1.0])
    corners = turn @ np.stack([x, y])
    low, extent = corners.min(axis=1), np.ptp(corners, axis=1) + 1
    reach = style.feather[1]
    margin = 2 * reach
    scale = min(scale, *((np.array(limit[::-1]) - margin) / extent))
    width, height = (int(side) for side in np.ceil(extent * scale - 1e-6) + margin)
    shift = reach + (0.5 - low) * scale
    matrix = np.column_stack([turn * scale, shift])
    frame = (width, height)
    colour = cv2.warpAffine(image, matrix, frame, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(region.astype(np.float32), matrix, frame)
    cut = alpha > min(0.5, alpha.max() / 2)  # the smaller: a pixel or two may not reach 0.5
    feather = int(rng.integers(style.feather[0], style.feather[1] + 1))
    drawn: Drawn = {"scale": scale, "degrees": degrees, "flipped": int(flip < 0)}
    return _Patch(colour.astype(np.float32), _soft_edge(cut, feather), drawn | {"feather": feather})


def _soft_edge(region: MaskArray, feather: int) -> npt.NDArray[np.float32]:
    """Alpha of a region, softened over `feather` pixels, 0 farther than that from alpha > 0.5."""
    hard = largest_part(region).astype(np.float32)
    window = (2 * feather + 1, 2 * feather + 1)
    soft = cv2.GaussianBlur(hard, window, 0)
    core = largest_part(soft > 0.5)
    if not core.any():  # too small a region for this feather
        return hard
    near = cv2.dilate(core.astype(np.float32), np.ones(window, dtype=np.uint8))
    return np.asarray(soft * near, dtype=np.float32)


def _paste(host: ImageArray, patch: _Patch, corner: tuple[int, int], kind: Kind) -> Forgery:
    row, column = corner
    height, width = patch.alpha.shape
    window = np.s_[row : row + height, column : column + width]
    image, mask = host.copy(), np.zeros(host.shape[:2], dtype=bool)
    alpha = patch.alpha[..., None]
    image[window] = np.rint(alpha * patch.colour + (1 - alpha) * host[window]).astype(np.uint8)
    mask[window] = patch.alpha > 0.5
    return Forgery(image, mask, kind, patch.drawn | {"row": row, "column": column})


def coarse_box(
    mask: MaskArray, rng: np.random.Generator, looseness: float = 0.15, tight: float = 0.02
) -> list[Box]:
    """One box around every connected region of a mask, as a person draws it in a few seconds.

    Every side lies outside the region by up to `looseness` of the region's extent, or cuts it by
    up to `tight`. Sides do not cut where the box would hold less than 90 % of the region.

    Args:
        mask: (H, W); an empty one gives no box. The boxes lie inside.
        rng: Draws the sides, uniformly in [-tight, looseness].
        looseness: Fraction of the region's width or height.
        tight: Fraction as well, below 0.5.
    """
    boxes = []
    for part in connected_parts(mask):
        tight_box = np.array(geometry.from_mask(part), dtype=np.float32)
        out = rng.uniform(-tight, looseness, 4)
        box = _loosened(tight_box, out, part.shape)
        if part[geometry.pixel_slices(box, part.shape)].sum() < 0.9 * part.sum():
            box = _loosened(tight_box, np.maximum(out, 0), part.shape)
        boxes.append(Box(*(float(side) for side in box)))
    return boxes


def _loosened(box: BoxArray, out: npt.NDArray[np.float64], size: tuple[int, int]) -> BoxArray:
    """Move the sides of a box (4,) outwards by fractions `out` (4,) of its extent."""
    extent = np.tile(box[2:] - box[:2], 2)
    moved = box + out * extent * [-1, -1, 1, 1]
    return geometry.clip(moved.astype(np.float32), size)
