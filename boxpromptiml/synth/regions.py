"""Regions worth forging: irregular blobs, and regions that follow the objects of a photograph."""

import cv2
import numpy as np
import numpy.typing as npt
from skimage.segmentation import slic

from boxpromptiml.geometry import resize_trimap, shrink
from boxpromptiml.records import AUTHENTIC, MANIPULATED, ImageArray, MaskArray

_SEGMENTS = 150  # superpixels an image: about 0.7 % of its area each
_SEGMENT_SIDE = 320  # superpixels are found in a copy of at most this side, for speed
_COMPACTNESS = 10.0  # distance from a region's seed, weighed in units of Lab colour difference


def random_region(
    size: tuple[int, int], rng: np.random.Generator, area: tuple[float, float] = (0.02, 0.2)
) -> MaskArray:
    """Draw a smooth irregular blob in an image of `size` (H, W).

    The blob holds the pixels nearest to a random centre, in a distance that varies smoothly with
    the direction. It is star-shaped, so connected.

    Args:
        size: (H, W), at least 8 x 8.
        rng: Decides shape, place and area.
        area: Smallest and largest fraction of the image it covers, exact to the pixel.

    Returns:
        (H, W), not empty.
    """
    height, width = size
    cy, cx = rng.uniform(0.25, 0.75, 2) * (height, width)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    angle = np.arctan2(y - cy, x - cx)
    waves = np.arange(1, 6)[:, None, None]
    strength = rng.normal(0, 0.25, (5, 1, 1)) / waves
    log_radius = (strength * np.sin(waves * angle + rng.uniform(0, 2 * np.pi, (5, 1, 1)))).sum(0)
    distance = np.hypot(y - cy, x - cx) * np.exp(-log_radius)
    count = max(1, round(rng.uniform(*area) * height * width))
    region = np.zeros(height * width, dtype=bool)
    region[np.argsort(distance, axis=None, kind="stable")[:count]] = True
    return largest_part(region.reshape(size))


def object_region(
    image: ImageArray, rng: np.random.Generator, area: tuple[float, float] = (0.02, 0.2)
) -> MaskArray:
    """Find a compact region that follows the edges of an image, as forged objects do.

    Starting from a superpixel whose colour differs from the image's border, neighbours of similar
    colour are added, nearest first. Superpixels at the border are left out, since an object that
    the frame cuts makes a poor forgery. If no region of the wanted area is found, the result is a
    `random_region`.

    Args:
        image: (H, W, 3) RGB.
        rng: Decides place and area.
        area: Smallest and largest fraction of the image that the region covers.

    Returns:
        (H, W), one connected part, not empty.
    """
    size = image.shape[0], image.shape[1]
    small = shrink(image, _SEGMENT_SIDE)
    labels = slic(small, n_segments=_SEGMENTS, compactness=10, sigma=1, start_label=0)
    chosen = _grow(labels, _features(small, labels), rng.uniform(*area) * labels.size, rng)
    region = _filled(np.isin(labels, chosen)).astype(np.float32)
    smooth = cv2.GaussianBlur(region, (0, 0), 0.01 * max(labels.shape) + 0.1)
    whole = largest_part(cv2.resize(smooth, size[::-1]) > 0.5)
    return whole if area[0] <= whole.mean() <= area[1] else random_region(size, rng, area)


def _features(image: ImageArray, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(S, 5): mean L a b of every superpixel, and its centre y x in pixels."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    values = np.concatenate([lab, np.moveaxis(np.indices(labels.shape), 0, 2)], axis=2)
    flat = labels.ravel()
    sums = [np.bincount(flat, weights=value) for value in values.reshape(-1, 5).T]
    return np.stack(sums, axis=1) / np.maximum(np.bincount(flat), 1)[:, None]


def _grow(
    labels: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    target: float,
    rng: np.random.Generator,
) -> list[int]:
    """Choose superpixels of about `target` pixels in all; none if all of them touch the border.

    Args:
        labels: (H, W) superpixel numbers, from 0.
        features: (S, 5) as from `_features`.
        target: Wanted area in pixels.
        rng: Decides the first superpixel.
    """
    counts, neighbours = np.bincount(labels.ravel()), _neighbours(labels)
    colours, centres = features[:, :3], features[:, 3:]
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inside = np.setdiff1d(labels, border)
    if not len(inside):
        return []
    contrast = np.linalg.norm(colours[inside, None] - colours[border], axis=2).min(axis=1) + 1
    seed = int(rng.choice(inside, p=contrast**2 / np.sum(contrast**2)))
    far = ((centres - centres[seed]) ** 2).sum(axis=1) * np.pi / target  # 1 at a disc's edge
    chosen = [seed]
    while counts[chosen].sum() < target:
        around = np.intersect1d(np.flatnonzero(neighbours[chosen].any(axis=0)), inside)
        around = np.setdiff1d(around, chosen)
        if not len(around):
            break
        difference = np.linalg.norm(colours[around] - colours[chosen].mean(axis=0), axis=1)
        chosen.append(int(around[(difference + _COMPACTNESS * far[around]).argmin()]))
    return chosen


def _neighbours(labels: npt.NDArray[np.int64]) -> MaskArray:
    """(S, S) adjacency of superpixels (H, W): True where two share an edge."""
    touch = np.zeros((labels.max() + 1,) * 2, dtype=bool)
    touch[labels[:, 1:], labels[:, :-1]] = True
    touch[labels[1:], labels[:-1]] = True
    return touch | touch.T


def _filled(region: MaskArray) -> MaskArray:
    """A region (H, W) with everything it encloses."""
    outlines, _ = cv2.findContours(
        region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    canvas = np.zeros(region.shape, dtype=np.uint8)
    return np.asarray(cv2.drawContours(canvas, outlines, -1, 1, cv2.FILLED) > 0)


def largest_part(region: MaskArray) -> MaskArray:
    """The largest of the `connected_parts` of a region (H, W); an empty region as it is."""
    parts = connected_parts(region)
    return max(parts, key=np.count_nonzero) if parts else region


def connected_parts(region: MaskArray) -> list[MaskArray]:
    """Masks (H, W) of the connected parts (8 neighbours) of a region, in a fixed order."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    return [labels == number for number in range(1, count)]


def resized_region(region: MaskArray, size: tuple[int, int]) -> MaskArray:
    """A region at another size (H, W): the pixels that it covers by half or more.

    Each of its parts keeps at least one pixel, so that what is not empty never becomes empty.
    """
    trimap = np.where(region, np.uint8(MANIPULATED), np.uint8(AUTHENTIC))
    return np.asarray(resize_trimap(trimap, size) == MANIPULATED)


def simple_shape(
    size: tuple[int, int], rng: np.random.Generator, area: tuple[float, float] = (0.02, 0.2)
) -> MaskArray:
    """Draw a circle, rectangle or triangle at a random place inside an image of `size` (H, W).

    CASIA v1 (Dong, Wang and Tan 2013) has such copies within textures.

    Args:
        size: (H, W), at least 16 x 16.
        rng: Decides shape, place and area.
        area: Smallest and largest fraction of the image that it covers, roughly.
    """
    wanted = rng.uniform(*area) * size[0] * size[1]
    shape = int(rng.integers(3))
    stretch = 1.0 if shape == 0 else float(np.exp(rng.uniform(-0.5, 0.5)))
    full = (np.pi / 4, 1.0, 0.5)[shape]  # of the bounding box
    side = np.sqrt(wanted / full)
    height, width = (
        int(np.clip(round(extent), 4, limit))
        for extent, limit in zip((side * stretch, side / stretch), size, strict=True)
    )
    row, column = (int(rng.integers(s - o + 1)) for s, o in zip(size, (height, width), strict=True))
    canvas = np.zeros(size, dtype=np.uint8)
    if shape == 0:
        radius = (min(height, width) - 1) // 2
        cv2.circle(canvas, (column + radius, row + radius), radius, 1, cv2.FILLED)
    elif shape == 1:
        canvas[row : row + height, column : column + width] = 1
    else:
        tip = column + int(rng.integers(width))
        base = row + height - 1
        corners = np.array([[tip, row], [column, base], [column + width - 1, base]])
        cv2.fillPoly(canvas, [corners.astype(np.int32)], 1)
    return np.asarray(canvas > 0)
