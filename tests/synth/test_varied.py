from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.forge import Forgery, ForgeryKind
from boxpromptiml.synth.regions import simple_shape
from boxpromptiml.synth.varied import varied_copy, varied_removal, varied_splice
from boxpromptiml.synth.variety import DEFAULT_VARIETY, Variety
from tests.helpers.pictures import picture

SIZE = (90, 130)
NEVER = (0.0, 1.0, 1.0)
STILL = replace(
    DEFAULT_VARIETY, unaltered=1.0, match=NEVER, exposure=(0, 0.1, 0.1), feather=NEVER,
    border_blur=NEVER, border_sharpen=NEVER, region_blur=NEVER, region_noise=NEVER,
)  # fmt: skip
SEEDS = st.integers(0, 2**32 - 1)


def made(
    kind: ForgeryKind, variety: Variety, seed: int, textured: bool = False
) -> tuple[ImageArray, MaskArray, Forgery]:
    """Host, region and forgery."""
    rng = np.random.default_rng(seed)
    host, donor = picture(SIZE, 1), picture((70, 100), 2)
    if kind == "splice":
        region = simple_shape((70, 100), rng, (0.02, 0.2))
        return host, region, varied_splice(host, donor, region, variety, rng)
    region = simple_shape(SIZE, rng, (0.02, 0.2))
    if kind == "copymove":
        forgery = varied_copy(host, region, variety, rng, host, textured)
        return host, region, forgery
    return host, region, varied_removal(host, region, variety, rng)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(["splice", "copymove", "removal"]))
def test_a_forgery_changes_nothing_far_from_its_mask(seed: int, kind: ForgeryKind) -> None:
    host, _, forgery = made(kind, DEFAULT_VARIETY, seed)
    assert forgery.image.shape == host.shape
    assert forgery.image.dtype == np.uint8
    near = cv2.dilate(forgery.mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    np.testing.assert_array_equal(forgery.image[~near], host[~near])
    again = made(kind, DEFAULT_VARIETY, seed)[2]
    np.testing.assert_array_equal(again.image, forgery.image)
    assert again.parameters == forgery.parameters


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from(["splice", "copymove"]))
def test_a_pasted_region_covers_a_permitted_area(seed: int, kind: ForgeryKind) -> None:
    variety = replace(DEFAULT_VARIETY, area=(0.03, 0.1), scale=(1, 0.1, 4))
    assert 0.02 <= made(kind, variety, seed)[2].mask.mean() <= 0.12


def test_an_unaltered_copy_keeps_its_pixels() -> None:
    for seed in range(5):
        host, region, forgery = made("copymove", STILL, seed)
        np.testing.assert_array_equal(forgery.image[forgery.mask], host[region])
        np.testing.assert_array_equal(forgery.image[~forgery.mask], host[~forgery.mask])


def test_a_near_copy_is_moved_by_a_fraction_of_its_extent() -> None:
    variety = replace(STILL, near=(1, 0.3, 0.3))
    for seed in range(8):
        _, region, forgery = made("copymove", variety, seed)
        pixels, copied = np.argwhere(region), np.argwhere(forgery.mask)
        extent = np.ptp(pixels, axis=0) + 1
        moved = np.abs(copied.min(axis=0) - pixels.min(axis=0))
        assert (moved <= 0.3 * extent + 1.5).all()
        assert moved.any()


def test_a_copy_within_a_texture_goes_where_it_looks_alike() -> None:
    rng = np.random.default_rng(0)
    image = np.full((120, 160, 3), 60, np.uint8)
    image[:, 80:] = 200
    image = (image + rng.integers(0, 20, image.shape)).astype(np.uint8)
    region = np.zeros((120, 160), bool)
    region[20:45, 20:45] = True
    for seed in range(5):
        copy = varied_copy(image, region, STILL, np.random.default_rng(seed), image, True)
        assert copy.mask[:, :80].sum() == copy.mask.sum()


def test_matching_moves_colours_to_the_surroundings() -> None:
    host = np.full((90, 130, 3), (30, 60, 160), np.uint8)
    donor = picture((70, 100), 2)
    region = np.zeros((70, 100), bool)
    region[10:50, 20:60] = True
    gaps = []
    for strength in (0.0, 0.5, 1.0):
        variety = replace(STILL, match=(1, strength, strength))
        forgery = varied_splice(host, donor, region, variety, np.random.default_rng(0))
        gaps.append(float(np.abs(forgery.image[forgery.mask].mean(axis=0) - host[0, 0]).sum()))
    assert gaps[0] > 1.5 * gaps[1] > 2 * gaps[2]


def detail(forgery: Forgery, mask: MaskArray) -> float:
    grey = cv2.cvtColor(forgery.image, cv2.COLOR_RGB2GRAY)
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_64F))[mask].mean())


@pytest.mark.parametrize(
    ("field", "strength", "rises"),
    [
        ("region_noise", 8.0, True),
        ("region_blur", 2.0, False),
        ("border_blur", 2.0, False),
        ("border_sharpen", 2.0, True),
    ],
)
def test_each_treatment_does_what_it_says(field: str, strength: float, rises: bool) -> None:
    changed: dict[str, Any] = {field: (1.0, strength, strength)}
    variety = replace(STILL, **changed)
    _, _, without = made("splice", STILL, 4)
    _, _, treated = made("splice", variety, 4)
    assert treated.parameters[field] == strength
    np.testing.assert_array_equal(treated.mask, without.mask)
    assert (detail(treated, treated.mask) > detail(without, without.mask)) == rises
