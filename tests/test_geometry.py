import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from boxpromptiml import geometry
from boxpromptiml.records import Box

SIZE = (40, 60)
inside = st.builds(
    lambda x, y, w, h: Box(x, y, min(x + w, 60), min(y + h, 40)),
    st.floats(0, 55),
    st.floats(0, 35),
    st.floats(1, 60),
    st.floats(1, 40),
)


@given(st.lists(inside, max_size=5), st.floats(0, 0.49), st.integers(0, 2**32 - 1))
def test_jitter_stays_inside_and_keeps_a_pixel(boxes, fraction, seed):
    moved = geometry.jitter(geometry.as_array(boxes), fraction, SIZE, np.random.default_rng(seed))
    assert moved.shape == (len(boxes), 4)
    assert moved.dtype == np.float32
    assert (moved[:, :2] >= 0).all()
    assert (moved[:, 2:] <= [60, 40]).all()
    assert (moved[:, 2:] - moved[:, :2] > 0.999).all()


@given(inside, st.floats(0, 0.4), st.integers(0, 99))
def test_jitter_moves_no_side_further_than_its_fraction(box, fraction, seed):
    array = geometry.as_array([box])
    moved = geometry.jitter(array, fraction, SIZE, np.random.default_rng(seed))
    reach = fraction * (array[:, 2:] - array[:, :2])
    pixel = 1.0  # where the pixel's width had to be kept
    assert (np.abs(moved - array) <= np.tile(reach, 2) + pixel).all()


def test_jitter_refuses_to_cross_sides():
    with pytest.raises(ValueError, match="fraction"):
        geometry.jitter(geometry.as_array([]), 0.5, SIZE, np.random.default_rng(0))


@given(st.lists(inside, max_size=4))
def test_rescale_there_and_back(boxes):
    array = geometry.as_array(boxes)
    there = geometry.rescale(array, SIZE, (80, 30))
    np.testing.assert_allclose(geometry.rescale(there, (80, 30), SIZE), array, atol=1e-4)


@given(st.integers(0, 59), st.integers(0, 39))
def test_a_pixel_is_its_own_box(x, y):
    mask = np.zeros(SIZE, bool)
    mask[y, x] = True
    box = geometry.from_mask(mask)
    assert box == (x, y, x + 1, y + 1)
    np.testing.assert_array_equal(geometry.union_mask(geometry.as_array([box]), SIZE), mask)


def test_union_is_the_or_of_single_boxes_and_empty_without_any():
    boxes = [Box(1, 1, 5.5, 6), Box(4, 4, 70, 50)]
    single = [geometry.union_mask(geometry.as_array([box]), SIZE) for box in boxes]
    both = geometry.union_mask(geometry.as_array(boxes), SIZE)
    np.testing.assert_array_equal(both, single[0] | single[1])
    assert both[0].sum() == 0
    assert not geometry.union_mask(geometry.as_array([]), SIZE).any()


@pytest.mark.parametrize("box", [Box(-9, 1, -5, 9), Box(1, -9, 5, -5), Box(70, 1, 80, 9)])
def test_a_box_beside_the_image_touches_no_pixel(box):
    assert not geometry.union_mask(geometry.as_array([box]), SIZE).any()


def test_from_mask_of_an_empty_mask():
    assert geometry.from_mask(np.zeros(SIZE, bool)) is None


def test_expand_grows_both_sides_and_is_cut_at_the_border():
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
