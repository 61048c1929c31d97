from collections.abc import Callable
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.records import ImageArray
from data_prep.checks import near_duplicates as module
from data_prep.checks.near_duplicates import (
    PictureHash,
    correlations,
    near_duplicates,
    picture_hash,
)
from tests.helpers.scenes import forged, recompressed, scene


def hashed(image: ImageArray) -> PictureHash:
    """The hash of an image that has one."""
    found = picture_hash(image)
    assert found is not None
    return found


CHANGES: dict[str, Callable[[ImageArray], ImageArray]] = {
    "quality": lambda image: recompressed(image, 40),
    "size": lambda image: cv2.resize(image, (97, 71), interpolation=cv2.INTER_AREA).astype(
        np.uint8
    ),
    "forgery": forged,
    "brighter": lambda image: (image * 0.7 + 70).astype(np.uint8),
    "noise": lambda image: np.clip(
        image + np.random.default_rng(0).normal(0, 12, image.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_picture_is_found_again_and_no_other(
    change: Callable[[ImageArray], ImageArray],
) -> None:
    first = [hashed(scene(seed)) for seed in range(40)]
    second = [hashed(scene(seed)) for seed in range(100, 130)]
    second.insert(5, hashed(change(scene(7))))
    (pair,) = near_duplicates(first, second)
    assert (pair.first, pair.second) == (7, 5)
    assert pair.correlation > 0.6
    (swapped,) = near_duplicates(second, first)
    assert (swapped.first, swapped.second, swapped.correlation) == (5, 7, pair.correlation)


def test_pages_that_show_nothing_have_no_hash() -> None:
    assert picture_hash(np.full((50, 60, 3), 200, np.uint8)) is None
    faint = np.random.default_rng(0).integers(127, 130, (50, 60, 3)).astype(np.uint8)
    assert picture_hash(faint) is None
    assert picture_hash(np.eye(3, dtype=np.uint8)[:1, :, None].repeat(3, 2) * 255) is not None


def test_nothing_among_nothing() -> None:
    assert near_duplicates([], []) == []
    assert near_duplicates([hashed(scene(1))], []) == []


def test_many_equal_pictures_are_all_named_but_not_all_combinations() -> None:
    one = hashed(scene(1))
    pairs = near_duplicates([one] * 50, [one] * 70)
    assert {pair.first for pair in pairs} == set(range(50))
    assert {pair.second for pair in pairs} == set(range(70))
    assert len(pairs) == 50 + 70 - 1
    assert {pair.distance for pair in pairs} == {0}


def test_a_close_hash_of_another_picture_is_no_pair() -> None:
    a, b = hashed(scene(1)), hashed(scene(2))
    assert near_duplicates([a], [PictureHash(a.rises, a.bright, b.thumbnail)]) == []


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=12)


@settings(max_examples=30)
@given(
    first=hashes,
    flips=st.lists(st.sets(st.integers(0, 63), max_size=20), max_size=12),
    comparisons=st.integers(1, 40),
)
def test_close_hashes_are_those_that_comparing_all_finds(
    first: list[int], flips: list[set[int]], comparisons: int
) -> None:
    """In rows of any number at a time, by either hash."""
    second = [0, 2**64 - 1]
    for value, bits in zip(first, flips, strict=False):  # close to one, by any bits
        second.append(value ^ sum(1 << bit for bit in bits))
    blank = bytes(256)
    ours = [PictureHash(value, value ^ 1, blank) for value in first]
    theirs = [PictureHash(value, value // 2, blank) for value in second]
    expected = {
        (i, j)
        for i, a in enumerate(ours)
        for j, b in enumerate(theirs)
        if (a.rises ^ b.rises).bit_count() <= module.MAX_RISE_BITS
        or (a.bright ^ b.bright).bit_count() <= module.MAX_BRIGHT_BITS
    }
    with mock.patch.object(module, "_COMPARISONS", comparisons):
        found = [
            (start + i, j)
            for start, near in module._close(ours, theirs)
            for i, j in np.argwhere(near).tolist()
        ]
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_correlation_is_numpys_own_without_the_mean() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 256, (2, 5, 16, 16), np.uint8)
    a[4] = 9
    i, j = np.array([0, 1, 2, 0, 4]), np.array([0, 1, 2, 3, 4])
    for value, x, y in zip(correlations(a, b, i, j), a[i], b[j], strict=True):
        u, v = (
            np.concatenate([np.diff(t.astype(float), axis=k).ravel() for k in (0, 1)])
            for t in (x, y)
        )
        length = np.linalg.norm(u) * np.linalg.norm(v)
        assert value == pytest.approx(u @ v / length if length else 0, abs=1e-5)
    assert correlations(a, a, i, i).max() == pytest.approx(1)
