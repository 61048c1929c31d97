from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth import regions

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(24, 90), st.integers(24, 90))


def picture(size: tuple[int, int], seed: int) -> ImageArray:
    """Discs and bars over a gradient: edges that superpixels can follow."""
    rng = np.random.default_rng(seed)
    image = np.linspace(40, 200, size[0] * size[1] * 3).reshape(*size, 3).astype(np.uint8)
    for _ in range(6):
        centre = tuple(int(v) for v in rng.integers(0, size[::-1]))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        cv2.circle(image, centre, int(rng.integers(3, max(size) // 3)), colour, -1)
    return image


def parts(mask: MaskArray) -> npt.NDArray[Any]:
    return measure.label(mask, connectivity=2)


@settings(max_examples=150, deadline=None)
@given(SIZES, SEEDS)
def test_a_random_region_is_one_part_of_the_wanted_area(size: Any, seed: Any) -> None:
    region = regions.random_region(size, np.random.default_rng(seed), (0.05, 0.1))
    assert region.shape == size
    assert region.dtype == bool
    assert parts(region).max() == 1
    assert 0.05 - 1 / region.size <= region.mean() <= 0.1 + 1 / region.size


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS)
def test_an_object_region_is_one_part_of_the_wanted_area(size: Any, seed: Any) -> None:
    region = regions.object_region(picture(size, seed), np.random.default_rng(seed), (0.03, 0.15))
    assert region.shape == size
    assert parts(region).max() == 1
    assert 0.03 - 1 / region.size <= region.mean() <= 0.15 + 1 / region.size


def test_an_object_region_follows_edges() -> None:
    image = np.full((100, 100, 3), 30, np.uint8)
    disc = cv2.circle(np.zeros((100, 100), np.uint8), (50, 50), 22, 1, -1) > 0  # 15 %
    image[disc] = (220, 60, 60)
    overlaps = []
    for seed in range(9):
        region = regions.object_region(image, np.random.default_rng(seed), (0.12, 0.18))
        overlaps.append((region & disc).sum() / (region | disc).sum())
    assert np.median(overlaps) > 0.8  # one or two may be random regions


def test_an_image_of_one_colour_still_has_a_region() -> None:
    flat = np.full((40, 50, 3), 9, np.uint8)
    assert regions.object_region(flat, np.random.default_rng(0)).any()
