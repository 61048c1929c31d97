import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.io import images
from data_prep.checks.near_duplicates import (
    Fingerprint,
    close_hashes,
    correlations,
    fingerprint,
    near_duplicates,
)


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Smooth coloured blobs: as much structure as a photograph at the scale of a thumbnail."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    return images.decode_image(images.encode_jpeg(image, quality), "x.jpg")[0]


def forged(image: np.ndarray) -> np.ndarray:
    copy = image.copy()
    copy[30:70, 20:60] = scene(99)[30:70, 20:60]
    return copy


CHANGES = {
    "quality": lambda image: recompressed(image, 40),
    "size": lambda image: cv2.resize(image, (97, 71), interpolation=cv2.INTER_AREA),
    "forgery": forged,
    "brighter": lambda image: (image * 0.7 + 70).astype(np.uint8),
    "noise": lambda image: np.clip(
        image + np.random.default_rng(0).normal(0, 12, image.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_picture_is_found_again_and_no_other(change):
    first = [fingerprint(scene(seed)) for seed in range(40)]
    second = [fingerprint(scene(seed)) for seed in range(100, 130)]
    second.insert(5, fingerprint(change(scene(7))))
    (pair,) = near_duplicates(first, second)
    assert (pair.first, pair.second) == (7, 5)
    assert pair.correlation > 0.6
    (swapped,) = near_duplicates(second, first)
    assert (swapped.first, swapped.second, swapped.correlation) == (5, 7, pair.correlation)


def test_pages_that_show_nothing_have_no_fingerprint():
    assert fingerprint(np.full((50, 60, 3), 200, np.uint8)) is None
    faint = np.random.default_rng(0).integers(127, 130, (50, 60, 3)).astype(np.uint8)
    assert fingerprint(faint) is None
    assert fingerprint(np.eye(3, dtype=np.uint8)[:1, :, None].repeat(3, 2) * 255) is not None


def test_nothing_among_nothing():
    assert near_duplicates([], []) == []
    assert near_duplicates([fingerprint(scene(1))], []) == []


def test_many_equal_pictures_are_all_named_but_not_all_combinations():
    one = fingerprint(scene(1))
    pairs = near_duplicates([one] * 50, [one] * 70)
    assert {pair.first for pair in pairs} == set(range(50))
    assert {pair.second for pair in pairs} == set(range(70))
    assert len(pairs) == 50 + 70 - 1
    assert {pair.distance for pair in pairs} == {0}


def test_a_close_hash_of_another_picture_is_no_pair():
    a, b = fingerprint(scene(1)), fingerprint(scene(2))
    assert near_duplicates([a], [Fingerprint(a.rises, a.levels, b.thumbnail)]) == []


hashes = st.lists(st.integers(0, 2**64 - 1), max_size=12)


@settings(max_examples=15)
@given(first=hashes, flips=st.lists(st.sets(st.integers(0, 63), max_size=20), max_size=12))
@pytest.mark.parametrize("most", [0, 3, 7, 15])
def test_close_hashes_are_those_that_comparing_all_finds(most, first, flips):
    second = [0, 2**64 - 1]
    for value, bits in zip(first, flips, strict=False):  # close to one, by any bits
        second.append(value ^ sum(1 << bit for bit in bits))
    expected = {
        (i, j)
        for i, a in enumerate(first)
        for j, b in enumerate(second)
        if (a ^ b).bit_count() <= most
    }
    i, j = close_hashes(np.array(first, np.uint64), np.array(second, np.uint64), most)
    found = list(zip(i.tolist(), j.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_impossible_distance():
    none = np.zeros(0, np.uint64)
    with pytest.raises(ValueError, match="0 to 63"):
        close_hashes(none, none, 64)


def test_correlation_is_numpys_own_without_the_mean():
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
