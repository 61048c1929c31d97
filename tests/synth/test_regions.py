import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import measure

from boxpromptiml.records import MaskArray
from boxpromptiml.synth import regions
from tests.helpers.pictures import picture

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(24, 90), st.integers(24, 90))


def count_parts(mask: MaskArray) -> int:
    return int(measure.label(mask, connectivity=2).max())


@settings(max_examples=150, deadline=None)
@given(SIZES, SEEDS)
def test_a_random_region_is_one_part_of_the_wanted_area(size: tuple[int, int], seed: int) -> None:
    region = regions.random_region(size, np.random.default_rng(seed), (0.05, 0.1))
    assert region.shape == size
    assert region.dtype == bool
    assert count_parts(region) == 1
    assert 0.05 - 1 / region.size <= region.mean() <= 0.1 + 1 / region.size


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS)
def test_an_object_region_is_one_part_of_the_wanted_area(size: tuple[int, int], seed: int) -> None:
    region = regions.object_region(picture(size, seed), np.random.default_rng(seed), (0.03, 0.15))
    assert region.shape == size
    assert count_parts(region) == 1
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


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_connected_parts_are_those_of_scikit_image(mask: MaskArray) -> None:
    parts = regions.connected_parts(mask)
    assert len(parts) == count_parts(mask)
    np.testing.assert_array_equal(np.any([np.zeros_like(mask), *parts], axis=0), mask)
    assert np.count_nonzero(regions.largest_part(mask)) == max(
        map(np.count_nonzero, parts), default=0
    )


@given(st.integers(1, 7), st.integers(1, 7), SEEDS)
def test_a_shrunk_region_holds_the_pixels_it_covers_by_half_or_more(
    rows: int, columns: int, seed: int
) -> None:
    region = np.random.default_rng(seed).random((6 * rows, 6 * columns)) < 0.5
    covered = region.reshape(6, rows, 6, columns).mean(axis=(1, 3))
    small = regions.resized_region(region, (6, 6))
    assert small[covered >= 0.5].all()
    lost = count_parts(region)  # each of which may keep a pixel
    assert small[covered < 0.5].sum() <= lost


def test_a_resized_region_is_not_shifted_and_never_lost() -> None:
    region = np.zeros((100, 100), bool)
    region[20:60, 40:80] = True
    for size in ((50, 50), (73, 73), (250, 250)):
        y, x = np.nonzero(regions.resized_region(region, size))
        assert (y.mean() + 0.5) / size[0] == pytest.approx(0.4, abs=0.5 / size[0])
        assert (x.mean() + 0.5) / size[1] == pytest.approx(0.6, abs=0.5 / size[1])
    line = np.zeros((100, 100), bool)
    line[:, 51] = True
    assert regions.resized_region(line, (10, 10)).any()
    assert not regions.resized_region(np.zeros((100, 100), bool), (10, 10)).any()


@given(SIZES, st.integers(0, 2**32 - 1), st.floats(0.02, 0.3))
def test_a_simple_shape_is_one_part_of_about_its_area(
    size: tuple[int, int], seed: int, area: float
) -> None:
    shape = regions.simple_shape(size, np.random.default_rng(seed), (area, area))
    assert shape.shape == size
    assert len(regions.connected_parts(shape)) == 1
    assert shape.sum() <= 1.3 * area * size[0] * size[1] + 40
