from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from boxpromptiml import geometry
from data_prep.annotations.rle import checked_runs, packed, rle_corners

masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any)


@given(masks)
def test_text_of_pycocotools_gives_the_tight_box(mask: Any) -> None:
    encoded = reference.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle = {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    assert rle_corners(rle, mask.shape) == geometry.from_mask(mask)
    x, y, w, h = reference.toBbox(encoded)
    assert rle_corners(rle, mask.shape) == (x, y, x + w, y + h)


@given(masks)
def test_runs_are_packed_as_pycocotools_does(mask: Any) -> None:
    encoded = reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    assert (
        packed(checked_runs({"size": list(mask.shape), "counts": encoded}, mask.shape)) == encoded
    )


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_packed_runs_come_back(runs: list[int]) -> None:
    assert checked_runs({"size": [1, sum(runs)], "counts": packed(runs)}, (1, sum(runs))) == runs


@given(masks)
def test_plain_runs_give_the_tight_box(mask: Any) -> None:
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    rle = {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}
    assert rle_corners(rle, mask.shape) == geometry.from_mask(mask)


def test_a_large_mask_costs_no_more_than_its_runs() -> None:
    rle = {"size": [100_000, 100_000], "counts": [5, 10, 9_999_999_985]}
    assert rle_corners(rle, (100_000, 100_000)) == (0, 5, 1, 15)


@pytest.mark.parametrize(
    "counts",
    [
        "",
        "0",
        "P",
        "o",
        "ooooooooooooooooooooo",
        "\x00",
        "ü",
        [],
        [24],
        [-1, 25],
        [1, 2],
        [4, 0, 20],
        [True, 23],
        [1.0, 23],
        ["1", 23],
        None,
        3,
        [10**30],
    ],
)
def test_damage_raises_what_the_readers_expect(counts: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        rle_corners({"size": [4, 6], "counts": counts}, (4, 6))


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111)))
def test_text_never_raises_anything_else(text: str) -> None:
    try:
        x0, y0, x1, y1 = rle_corners({"size": [4, 6], "counts": text}, (4, 6))
    except ValueError:
        return
    assert 0 <= x0 < x1 <= 6
    assert 0 <= y0 < y1 <= 4


@pytest.mark.parametrize("size", [[4], [4, 7], None, [4, "x"], [4, float("inf")]])
def test_a_wrong_size_raises_what_the_readers_expect(size: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        rle_corners({"size": size, "counts": [0, 24]}, (4, 6))
