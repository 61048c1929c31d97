import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from boxpromptiml.segmenters.labels import components, painted, renumbered

sizes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
class_maps = sizes.flatmap(lambda size: hnp.arrays(np.uint8, size, elements=st.integers(0, 3)))
mask_lists = sizes.flatmap(lambda size: st.lists(hnp.arrays(np.bool_, size), max_size=5))


def is_label_map(labels: npt.NDArray[np.generic], size: tuple[int, ...]) -> bool:
    """int32, of this size, and numbered from 1 without gaps."""
    found = set(np.unique(labels).tolist()) - {0}
    return (
        labels.dtype == np.int32
        and labels.shape == size
        and found == set(range(1, len(found) + 1))
        and labels.min() >= 0
    )


@given(class_maps)
def test_components_equal_scipys(classes: npt.NDArray[np.uint8]) -> None:
    labels = components(classes, 0)
    assert is_label_map(labels, classes.shape)
    assert labels.all()
    total = 0
    for value in range(4):
        reference, count = ndimage.label(classes == value, structure=np.ones((3, 3)))
        total += count
        for number in range(1, count + 1):
            (ours,) = np.unique(labels[reference == number])
            assert (labels == ours).sum() == (reference == number).sum()
    assert labels.max() == total


@given(class_maps, st.floats(0, 0.99))
def test_small_components_are_left_out(classes: npt.NDArray[np.uint8], min_fraction: float) -> None:
    every, kept = components(classes, 0), components(classes, min_fraction)
    assert is_label_map(kept, classes.shape)
    for number in range(1, every.max() + 1):
        part = every == number
        (ours,) = np.unique(kept[part])
        assert (ours > 0) == (part.sum() >= min_fraction * part.size)


@given(class_maps)
def test_components_do_not_depend_on_class_numbers(classes: npt.NDArray[np.uint8]) -> None:
    renamed = np.array([0, 77, 5, 200])[classes]
    np.testing.assert_array_equal(components(classes, 0), components(renamed, 0))


def test_diagonal_neighbours_are_connected() -> None:
    np.testing.assert_array_equal(components(np.eye(4, dtype=np.uint8), 0), 2 - np.eye(4))


@given(mask_lists)
def test_the_last_mask_wins(masks: list[npt.NDArray[np.bool_]]) -> None:
    size = masks[0].shape if masks else (3, 4)
    labels = painted(masks, size)
    assert is_label_map(labels, size)
    for row, column in np.ndindex(*size):
        covering = [i for i, mask in enumerate(masks) if mask[row, column]]
        assert (labels[row, column] > 0) == bool(covering)
        if covering:
            winners = labels == labels[row, column]
            assert masks[covering[-1]][winners].all()
    assert labels.max() == sum(
        bool((mask & ~np.logical_or.reduce([*masks[i + 1 :], np.zeros(size, bool)])).any())
        for i, mask in enumerate(masks)
    )


@given(class_maps)
def test_renumbering_keeps_the_regions(classes: npt.NDArray[np.uint8]) -> None:
    spread = classes.astype(np.int64) * 1000
    labels = renumbered(spread)
    assert is_label_map(labels, classes.shape)
    pairs = set(zip(classes.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(classes))  # one to one
    assert sorted(pairs) == sorted(pairs, key=lambda pair: pair[1])  # in the old order
    assert (0, 0) in pairs or 0 not in labels
    np.testing.assert_array_equal(renumbered(labels), labels)
