"""Varied forgeries: pasted and removed regions as `Variety` describes them.

Pure functions, as in `forge`: the same arrays, settings and state of the generator give the same
bytes.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.degradation import rescale
from boxpromptiml.synth.fills import FILLS, filled
from boxpromptiml.synth.finishing import sharpened
from boxpromptiml.synth.forge import Forgery, ForgeryKind
from boxpromptiml.synth.patches import Alteration, Parameters, Patch, cut, paste
from boxpromptiml.synth.regions import resized_region
from boxpromptiml.synth.variety import Variety, drawn

FloatImage = npt.NDArray[np.float32]

_PLACES = 24  # that a copy within a texture is tried at
_BAND = 2  # pixels on both sides of a border that is blurred or sharpened


def varied_splice(
    host: ImageArray,
    donor: ImageArray,
    region: MaskArray,
    variety: Variety,
    rng: np.random.Generator,
) -> Forgery:
    """Paste a region of a donor at a random place of a host.

    Args:
        host: (H, W, 3) RGB.
        donor: (h, w, 3) RGB.
        region: (h, w), not empty.
        variety: The ranges of everything that is drawn.
        rng: Draws it.
    """
    patch = _cut(donor, region, host.shape[:2], variety, rng)
    corner = _anywhere(patch, host.shape[:2], rng)
    return _pasted(host, patch, corner, "splice", variety, rng)


def varied_copy(
    image: ImageArray,
    region: MaskArray,
    variety: Variety,
    rng: np.random.Generator,
    source: ImageArray,
    textured: bool,
) -> Forgery:
    """Paste a region of an image elsewhere into it, near or far; it may overlap its source.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), not empty.
        variety: The ranges of everything that is drawn.
        rng: Draws it.
        source: (H, W, 3) to cut the copy from: the image, maybe of another history.
        textured: Whether the copy goes where the image looks most like it.
    """
    size = image.shape[:2]
    patch = _cut(source, region, size, variety, rng)
    near = drawn(variety.near, rng)
    if textured:
        corners = [_anywhere(patch, size, rng) for _ in range(_PLACES)]
        corner = min(corners, key=lambda corner: _difference(image, patch, corner))
    elif near is not None:
        corner = _moved(region, patch, near, rng)
    else:
        corner = _anywhere(patch, size, rng)
    return _pasted(image, patch, corner, "copymove", variety, rng)


def varied_removal(
    image: ImageArray, region: MaskArray, variety: Variety, rng: np.random.Generator
) -> Forgery:
    """Fill a region of an image (H, W, 3) by one of several methods; the region is the mask."""
    method = FILLS[int(rng.choice(len(FILLS), p=variety.removal_by))]
    image, method = filled(image, region, method, rng)
    parameters: Parameters = {"method": method}
    image = _treated_border(image, region, parameters, variety, rng)
    return Forgery(image, region.copy(), "removal", parameters)


def _cut(
    source: ImageArray,
    region: MaskArray,
    size: tuple[int, ...],
    variety: Variety,
    rng: np.random.Generator,
) -> Patch:
    """Cut a region out, changed by chance, so that it covers a permitted area of a host (H, W)."""
    scale, degrees = drawn(variety.scale, rng) or 1.0, drawn(variety.rotation, rng) or 0.0
    flip, sign = rng.choice([-1.0, 1.0], 2)
    if rng.random() < variety.unaltered:
        scale, degrees, flip = 1.0, 0.0, 1.0
    fraction = np.count_nonzero(region) / (size[0] * size[1])
    low, high = (float(np.sqrt(area / fraction)) for area in variety.area)
    scale = min(max(scale, 1.2 * low), 0.8 * high)  # off the limits, for crops and soft edges
    if scale < 0.7:  # areas are averaged, so that shrinking brings no aliasing
        source, scale = rescale(source, scale), 1.0
        region = resized_region(region, source.shape[:2])
    feather = round(drawn(variety.feather, rng) or 0.0)
    how = Alteration(scale, float(sign * degrees), float(flip), feather)
    return cut(source, region, how, (size[0], size[1]), feather)


def _anywhere(patch: Patch, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
    rows, columns = (side - own for side, own in zip(size, patch.alpha.shape, strict=False))
    return int(rng.integers(rows + 1)), int(rng.integers(columns + 1))


def _moved(
    region: MaskArray, patch: Patch, fraction: float, rng: np.random.Generator
) -> tuple[int, int]:
    """The corner of a copy that is moved by a fraction of its extent, in a random direction."""
    pixels = np.argwhere(region)
    middle = (pixels.min(axis=0) + pixels.max(axis=0) + 1) / 2
    angle = rng.uniform(0, 2 * np.pi)
    own = np.array(patch.alpha.shape)
    step = fraction * own * [np.sin(angle), np.cos(angle)]
    corner = np.clip(np.rint(middle + step - own / 2), 0, np.array(region.shape) - own)
    return int(corner[0]), int(corner[1])


def _window(patch: Patch, corner: tuple[int, int]) -> tuple[slice, slice]:
    rows, columns = patch.alpha.shape
    return slice(corner[0], corner[0] + rows), slice(corner[1], corner[1] + columns)


def _difference(image: ImageArray, patch: Patch, corner: tuple[int, int]) -> float:
    """How much the colours of a patch differ from what it would cover, by mean and deviation."""
    inside = patch.alpha > 0.5
    there, own = image[_window(patch, corner)][inside], patch.colour[inside]
    mean = np.abs(there.mean(axis=0) - own.mean(axis=0)).sum()
    return float(mean + np.abs(there.std(axis=0) - own.std(axis=0)).sum())


def _pasted(
    host: ImageArray,
    patch: Patch,
    corner: tuple[int, int],
    kind: ForgeryKind,
    variety: Variety,
    rng: np.random.Generator,
) -> Forgery:
    """Fit a patch to its surroundings by chance, paste it, and treat the border."""
    parameters = dict(patch.parameters)
    colour: npt.NDArray[Any] = patch.colour
    strengths = {
        "match": drawn(variety.match, rng),
        "exposure": drawn(variety.exposure, rng),
        "region_blur": drawn(variety.region_blur, rng),
        "region_noise": drawn(variety.region_noise, rng),
    }
    parameters |= {name: value for name, value in strengths.items() if value is not None}
    inside = patch.alpha > 0.5
    if strengths["match"] is not None and inside.any():
        around = host[_window(patch, corner)].astype(np.float32)
        colour = _matched(colour, inside, around, strengths["match"])
    if strengths["exposure"] is not None:
        colour = colour * (1 + strengths["exposure"] * rng.choice([-1.0, 1.0]))
    if strengths["region_blur"] is not None:
        colour = cv2.GaussianBlur(colour, (0, 0), strengths["region_blur"])
    if strengths["region_noise"] is not None:
        colour = colour + rng.normal(0, strengths["region_noise"], colour.shape)
    colour = np.clip(colour, 0, 255).astype(np.float32)
    image, mask = paste(host, patch._replace(colour=colour), corner)
    parameters |= {"row": corner[0], "column": corner[1]}
    image = _treated_border(image, mask, parameters, variety, rng)
    return Forgery(image, mask, kind, parameters)


def _matched(
    colour: FloatImage, inside: MaskArray, around: FloatImage, strength: float
) -> FloatImage:
    """Move the colours (h, w, 3) of a patch to the mean and deviation of its surroundings, in Lab.

    Reinhard et al. 2001, with a bound on how much the contrast changes.
    """
    lab, target = (cv2.cvtColor(one / 255, cv2.COLOR_RGB2LAB) for one in (colour, around))
    own, other = lab[inside], target.reshape(-1, 3)
    gain = np.clip(other.std(axis=0) / np.maximum(own.std(axis=0), 1), 0.6, 1.5)
    moved = (lab - own.mean(axis=0)) * gain + other.mean(axis=0)
    mixed = (lab + strength * (moved - lab)).astype(np.float32)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB) * 255, dtype=np.float32)


def _treated_border(
    image: ImageArray,
    mask: MaskArray,
    parameters: Parameters,
    variety: Variety,
    rng: np.random.Generator,
) -> ImageArray:
    """Blur or sharpen an image (H, W, 3) along the border of a mask, by chance."""
    blur, sharpen = drawn(variety.border_blur, rng), drawn(variety.border_sharpen, rng)
    if blur is not None:
        changed = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), dtype=np.uint8)
        parameters["border_blur"] = blur
    elif sharpen is not None:
        changed = sharpened(image, sharpen)
        parameters["border_sharpen"] = sharpen
    else:
        return image
    square = np.ones((2 * _BAND + 1,) * 2, np.uint8)
    band = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, square) > 0
    return np.where(band[..., None], changed, image)
