from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label

from boxpromptiml import geometry
from boxpromptiml.records import Box, MaskArray, TrimapArray

SIZE = (40, 60)
inside = st.builds(
    lambda x, y, w, h: Box(x, y, min(x + w, 60), min(y + h, 40)),
    st.floats(0, 55),
    st.floats(0, 35),
    st.floats(1, 60),
    st.floats(1, 40),
)


@given(st.lists(inside, max_size=5), st.floats(0, 0.49), st.integers(0, 2**32 - 1))
def test_jitter_stays_inside_and_keeps_a_pixel(
    boxes: list[Any], fraction: float, seed: int
) -> None:
    moved = geometry.jitter(geometry.as_array(boxes), fraction, SIZE, np.random.default_rng(seed))
    assert moved.shape == (len(boxes), 4)
    assert moved.dtype == np.float32
    assert (moved[:, :2] >= 0).all()
    assert (moved[:, 2:] <= [60, 40]).all()
    assert (moved[:, 2:] - moved[:, :2] > 0.999).all()


@given(inside, st.floats(0, 0.4), st.integers(0, 99))
def test_jitter_moves_no_side_further_than_its_fraction(
    box: Any, fraction: float, seed: int
) -> None:
    array = geometry.as_array([box])
    moved = geometry.jitter(array, fraction, SIZE, np.random.default_rng(seed))
    reach = fraction * (array[:, 2:] - array[:, :2])
    pixel = 1.0  # where the pixel's width had to be kept
    assert (np.abs(moved - array) <= np.tile(reach, 2) + pixel).all()


def test_jitter_refuses_to_cross_sides() -> None:
    with pytest.raises(ValueError, match="fraction"):
        geometry.jitter(geometry.as_array([]), 0.5, SIZE, np.random.default_rng(0))


@given(st.lists(inside, max_size=4))
def test_rescale_there_and_back(boxes: list[Any]) -> None:
    array = geometry.as_array(boxes)
    there = geometry.rescale(array, SIZE, (80, 30))
    np.testing.assert_allclose(geometry.rescale(there, (80, 30), SIZE), array, atol=1e-4)


@given(st.integers(0, 59), st.integers(0, 39))
def test_a_pixel_is_its_own_box(x: int, y: int) -> None:
    mask = np.zeros(SIZE, bool)
    mask[y, x] = True
    box = geometry.from_mask(mask)
    assert box is not None
    assert tuple(box) == (x, y, x + 1, y + 1)
    np.testing.assert_array_equal(geometry.union_mask(geometry.as_array([box]), SIZE), mask)


def test_union_is_the_or_of_single_boxes_and_empty_without_any() -> None:
    boxes = [Box(1, 1, 5.5, 6), Box(4, 4, 70, 50)]
    single = [geometry.union_mask(geometry.as_array([box]), SIZE) for box in boxes]
    both = geometry.union_mask(geometry.as_array(boxes), SIZE)
    np.testing.assert_array_equal(both, single[0] | single[1])
    assert both[0].sum() == 0
    assert not geometry.union_mask(geometry.as_array([]), SIZE).any()


@pytest.mark.parametrize("box", [Box(-9, 1, -5, 9), Box(1, -9, 5, -5), Box(70, 1, 80, 9)])
def test_a_box_beside_the_image_touches_no_pixel(box: Box) -> None:
    assert not geometry.union_mask(geometry.as_array([box]), SIZE).any()


def test_from_mask_of_an_empty_mask() -> None:
    assert geometry.from_mask(np.zeros(SIZE, bool)) is None


def test_expand_grows_both_sides_and_is_cut_at_the_border() -> None:
    grown = geometry.expand(geometry.as_array([Box(0, 10, 20, 20)]), 0.25, SIZE)
    assert grown.tolist() == [[0, 7.5, 25, 22.5]]


class_maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)


@given(class_maps, st.integers(1, 5), st.integers(1, 5))
def test_whole_multiples_repeat_every_pixel(
    classes: npt.NDArray[np.uint8], rows: int, columns: int
) -> None:
    labels = classes.astype(np.int32)
    size = labels.shape[0] * rows, labels.shape[1] * columns
    np.testing.assert_array_equal(
        geometry.nearest(labels, size), labels.repeat(rows, axis=0).repeat(columns, axis=1)
    )


@given(class_maps, st.integers(0, 9), st.integers(0, 9))
def test_enlarging_labels_loses_no_region(
    classes: npt.NDArray[np.uint8], rows: int, columns: int
) -> None:
    size = classes.shape[0] + rows, classes.shape[1] + columns
    larger = geometry.nearest(classes.astype(np.int32), size)
    assert larger.shape == size
    assert set(np.unique(larger)) == set(np.unique(classes))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((40, 100), (20, 50)), ((1, 500), (1, 50)), ((500, 1), (50, 1)), ((30, 50), (30, 50))],
)
def test_shrinking_keeps_the_shape_and_never_enlarges(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.full((*size, 3), 9, dtype=np.uint8)
    small = geometry.shrink(image, 50)
    assert small.shape == (*expected, 3)
    assert small.dtype == np.uint8
    assert (small == 9).all()
    assert (small is image) == (size == expected)


def test_nearest_looks_at_the_centres_of_pixels() -> None:
    labels = np.array([[1, 2, 3]], dtype=np.int32)
    np.testing.assert_array_equal(geometry.nearest(labels, (1, 4)), [[1, 2, 2, 3]])


trimaps = st.builds(
    lambda seed, height, width, dense: np.random.default_rng(seed).choice(
        np.array([0, 127, 255], np.uint8), (height, width), p=[1 - 2 * dense, dense, dense]
    ),
    st.integers(0, 10_000), st.integers(1, 11), st.integers(1, 11),
    st.sampled_from([0.05, 0.2, 0.4]),
)  # fmt: skip
sides = st.integers(1, 11)


def _areas(mask: MaskArray, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Of every new pixel, the covered parts of H * W, counted one by one on the common grid."""
    (height, width), (rows, columns) = mask.shape, size
    fine = mask.repeat(rows, axis=0).repeat(columns, axis=1)
    return fine.reshape(rows, height, columns, width).sum(axis=(1, 3))


def _slowly_resized(trimap: TrimapArray, size: tuple[int, int]) -> TrimapArray:
    manipulated, authentic = _areas(trimap == 255, size), _areas(trimap == 0, size)
    resized = np.full(size, 127, np.uint8)
    for place in np.ndindex(size):
        if Fraction(int(manipulated[place]), trimap.size) >= Fraction(1, 2):
            resized[place] = 255
        elif Fraction(int(authentic[place]), trimap.size) > Fraction(1, 2):
            resized[place] = 0
    shown = resized == 255
    regions = label(trimap == 255, connectivity=2)
    for number in range(1, regions.max() + 1):
        areas = _areas(regions == number, size)
        if not areas[shown].any():
            resized[np.unravel_index(areas.argmax(), size)] = 255
    return resized


@given(trimaps, sides, sides)
def test_a_trimap_is_resized_by_exact_areas(trimap: TrimapArray, rows: int, columns: int) -> None:
    resized = geometry.resize_trimap(trimap, (rows, columns))
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, _slowly_resized(trimap, (rows, columns)))
    assert (resized == 255).any() == (trimap == 255).any()


@given(trimaps, st.integers(1, 4), st.integers(1, 4))
def test_enlarging_a_trimap_by_whole_numbers_repeats_its_pixels(
    trimap: TrimapArray, rows: int, columns: int
) -> None:
    size = (trimap.shape[0] * rows, trimap.shape[1] * columns)
    expected = trimap.repeat(rows, axis=0).repeat(columns, axis=1)
    np.testing.assert_array_equal(geometry.resize_trimap(trimap, size), expected)


@pytest.mark.parametrize("size", [(256, 384), (1000, 1500), (1500, 2000), (1120, 1120), (90, 64)])
def test_a_resized_region_stays_where_it_was_and_keeps_its_area(size: tuple[int, int]) -> None:
    """Nearest neighbours moved it by half a new pixel: 9 pixels of a 4000 x 3000 photograph."""
    height, width = size
    rng = np.random.default_rng(0)
    shifts, areas = [], []
    for _ in range(20):
        y, x = rng.integers(0, height * 4 // 5), rng.integers(0, width * 4 // 5)
        trimap = np.zeros(size, np.uint8)
        trimap[y : y + height // 5, x : x + width // 5] = 255
        resized = geometry.resize_trimap(trimap, (224, 224))
        rows, columns = (found.mean() + 0.5 for found in np.nonzero(resized))
        centre = ((y + height // 5 / 2) * 224 / height, (x + width // 5 / 2) * 224 / width)
        shifts.append((rows - centre[0], columns - centre[1]))
        areas.append((resized > 0).mean() / (trimap > 0).mean())
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1
    assert np.abs(shifts).max() <= 0.5 + 1e-9
    assert np.mean(areas) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("side", [1, 4, 8, 12])
def test_no_region_vanishes_however_small(side: int) -> None:
    rng = np.random.default_rng(side)
    for _ in range(10):
        y, x = rng.integers(0, 1000 - side), rng.integers(0, 1400 - side)
        trimap = np.zeros((1000, 1400), np.uint8)
        trimap[y : y + side, x : x + side] = 255
        rows, columns = np.nonzero(geometry.resize_trimap(trimap, (224, 224)))
        centre = np.array([(y + side / 2) * 224 / 1000, (x + side / 2) * 224 / 1400])
        assert (np.abs(centre - [rows.mean() + 0.5, columns.mean() + 0.5]) < 1).all()


@given(st.integers(0, 999), st.integers(1, 11), st.integers(1, 11), sides, sides)
def test_images_are_resized_by_the_mean_of_the_area(
    seed: int, height: int, width: int, rows: int, columns: int
) -> None:
    """Also where one axis grows and the other shrinks, for any number of channels."""
    image = np.random.default_rng(seed).random((height, width, seed % 7), dtype=np.float32)
    resized = geometry.resize_by_area(image, (rows, columns))
    fine = image.repeat(rows, axis=0).repeat(columns, axis=1)
    blocks = fine.reshape(rows, height, columns, width, seed % 7)
    np.testing.assert_allclose(resized, blocks.mean(axis=(1, 3)), atol=2e-3)
