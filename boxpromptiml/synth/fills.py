"""Removals: a region of an image filled from the rest of it, by several methods."""

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.patches import soft_edge

FillName = Literal["telea", "navier-stokes", "patch", "blur"]
FILLS: tuple[FillName, ...] = get_args(FillName)

_RING = 8  # pixels around a region that a patch is compared on
_COARSE = 4  # the blurred fill is computed at a fraction of this of the size


def filled(
    image: ImageArray, region: MaskArray, method: FillName, rng: np.random.Generator
) -> tuple[ImageArray, FillName]:
    """Fill a region of an image.

    Args:
        image: (H, W, 3) RGB.
        region: (H, W), not empty.
        method: How; a patch that finds no place becomes Telea's method.
        rng: Decides radius and noise.

    Returns:
        The image (H, W, 3), changed inside the region alone, and the method that was used.
    """
    if method == "patch":
        patched = _patched(image, region)
        if patched is not None:
            return patched, method
        method = "telea"
    if method == "blur":
        return _blurred(image, region, rng), method
    flag = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    radius = int(rng.integers(3, 8))
    painted = cv2.inpaint(image, region.astype(np.uint8), radius, flag)
    return np.asarray(painted, dtype=np.uint8), method


def _patched(image: ImageArray, region: MaskArray) -> ImageArray | None:
    """Copy the region's pixels from where the pixels around it look most alike; None if nowhere."""
    near = cv2.dilate(region.astype(np.uint8), np.ones((2 * _RING + 1,) * 2, np.uint8)) > 0
    window = np.s_[_extent(near, 1), _extent(near, 0)]
    inside = region[window]
    ring = near[window] & ~inside
    weights = np.repeat(ring[..., None], 3, axis=2).astype(np.float32)
    scores = cv2.matchTemplate(
        image.astype(np.float32), image[window].astype(np.float32), cv2.TM_SQDIFF, mask=weights
    )
    scores[_overlapping(region, inside)] = np.inf
    if not np.isfinite(scores).any():
        return None
    row, column = np.unravel_index(int(scores.argmin()), scores.shape)
    rows, columns = inside.shape
    patch = image[row : row + rows, column : column + columns].astype(np.float32)
    alpha = (soft_edge(inside, 2) * inside)[..., None]
    alpha[inside & (alpha[..., 0] == 0)] = 1  # parts apart from the largest
    result = image.copy()
    result[window] = np.rint(alpha * patch + (1 - alpha) * image[window]).astype(np.uint8)
    return result


def _extent(mask: MaskArray, axis: int) -> slice:
    """From the first to the last row (axis 1) or column (axis 0) that holds a True."""
    places = np.flatnonzero(mask.any(axis=axis))
    return slice(int(places[0]), int(places[-1]) + 1)


def _overlapping(region: MaskArray, inside: MaskArray) -> MaskArray:
    """Corners (row, column) at which a copy of the region's window would touch the region."""
    hit = cv2.matchTemplate(region.astype(np.float32), inside.astype(np.float32), cv2.TM_CCORR)
    return np.asarray(hit > 0.02 * np.count_nonzero(inside) + 0.5)


def _blurred(image: ImageArray, region: MaskArray, rng: np.random.Generator) -> ImageArray:
    """Fill a region with a wide average of what is around it, and the noise of the image."""
    height, width = region.shape
    small = max(1, width // _COARSE), max(1, height // _COARSE)
    known = cv2.resize((~region).astype(np.float32), small, interpolation=cv2.INTER_AREA)
    visible = image.astype(np.float32) * ~region[..., None]
    colour = cv2.resize(visible, small, interpolation=cv2.INTER_AREA)
    deviation = max(2.0, float(np.sqrt(np.count_nonzero(region)) / _COARSE / 3))
    near, far = (
        np.dstack([cv2.GaussianBlur(one, (0, 0), deviation * factor) for one in (colour, known)])
        for factor in (1, 3)  # the wider one reaches the middle of the region
    )
    total = near + 1e-3 * far
    wide = cv2.resize(total[..., :3] / np.maximum(total[..., 3:], 1e-9), (width, height))
    fill = wide + rng.normal(0, _noise_of(image), (height, width, 1))
    result = image.copy()
    result[region] = np.clip(np.rint(fill[region]), 0, 255).astype(np.uint8)
    return result


def _noise_of(image: ImageArray) -> float:
    """Deviation of an image's noise in grey levels, by the median of its fine detail."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail: npt.NDArray[np.float32] = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    return float(np.median(np.abs(detail)) / 0.6745)
