from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth import forge as synth
from boxpromptiml.synth import regions
from boxpromptiml.synth.forge import (
    DEFAULT_STYLE,
    KINDS,
    REGION_AREAS,
    Forgery,
    ForgeryKind,
    ForgeryStyle,
)
from boxpromptiml.synth.photos import bundled_photo
from tests.helpers.pictures import picture

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(24, 90), st.integers(24, 90))
STILL = ForgeryStyle(
    splice_scale=(1, 1), copy_scale=(1, 1), rotation=0, exposure=0, feather=(0, 0)
)  # pastes that are only moved, and flipped half the time
fewer = settings(max_examples=40, deadline=None)


def forge(
    host: ImageArray, donor: ImageArray, rng: np.random.Generator, kind: ForgeryKind
) -> Forgery:
    """A forgery of a kind, with a region found as the job finds it."""
    area = REGION_AREAS[kind]
    if kind == "splice":
        return synth.splice(host, donor, regions.object_region(donor, rng, area), rng)
    region = regions.object_region(host, rng, area)
    return (
        synth.copy_move(host, region, rng)
        if kind == "copymove"
        else synth.removal(host, region, rng)
    )


@fewer
@given(SIZES, SIZES, SEEDS, st.sampled_from(KINDS))
def test_a_forgery_changes_only_its_mask(
    host_size: tuple[int, int], donor_size: tuple[int, int], seed: int, kind: ForgeryKind
) -> None:
    host, donor = picture(host_size, seed), picture(donor_size, seed + 1)
    before = host.copy(), donor.copy()
    forgery = forge(host, donor, np.random.default_rng(seed), kind)
    assert forgery.kind == kind
    assert forgery.image.shape == host.shape
    assert forgery.image.dtype == np.uint8
    assert forgery.mask.shape == host_size
    assert forgery.mask.any()
    assert forgery.mask.mean() < 0.45
    reach = 2 * (0 if kind == "removal" else DEFAULT_STYLE.feather[1]) + 1
    near = cv2.dilate(forgery.mask.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    np.testing.assert_array_equal(forgery.image[~near], host[~near])
    np.testing.assert_array_equal(host, before[0])
    np.testing.assert_array_equal(donor, before[1])


@fewer
@given(SEEDS, st.sampled_from(KINDS))
def test_the_same_seed_gives_the_same_bytes(seed: int, kind: ForgeryKind) -> None:
    host, donor = picture((60, 50), seed), picture((40, 70), seed + 1)
    first, second = (forge(host, donor, np.random.default_rng(seed), kind) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first.kind == second.kind


@fewer
@given(SEEDS)
def test_a_splice_of_equal_sizes_has_an_area_inside_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    host, donor = picture((80, 80), seed), picture((80, 80), seed + 1)
    region = regions.random_region((80, 80), rng, (0.05, 0.1))
    forgery = synth.splice(host, donor, region, rng)
    assert 0.8 * 0.36 * region.mean() < forgery.mask.mean() < 1.1 * 1.96 * region.mean()


def test_a_splice_carries_the_donors_colours() -> None:
    rng = np.random.default_rng(0)
    host, donor = np.zeros((60, 60, 3), np.uint8), np.full((60, 60, 3), 200, np.uint8)
    forgery = synth.splice(host, donor, regions.random_region((60, 60), rng), rng)
    inner = cv2.erode(forgery.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert set(np.unique(forgery.image[inner])) <= set(range(170, 231))
    assert len(np.unique(forgery.image[inner])) == 1
    assert forgery.image[~forgery.mask].max() < 128


def test_a_far_larger_donor_is_scaled_to_the_host() -> None:
    rng = np.random.default_rng(0)
    host, donor = picture((60, 60), 0), picture((600, 900), 1)
    region = regions.random_region((600, 900), rng, (0.1, 0.1))
    assert 0.03 < synth.splice(host, donor, region, rng).mask.mean() < 0.22


@fewer
@given(SIZES, SEEDS)
def test_a_copy_leaves_most_of_its_source(size: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    region = regions.random_region(size, rng)
    copied = synth.copy_move(picture(size, seed), region, rng).mask
    assert (copied & region).sum() < max(0.25 * region.sum(), 1)


def test_a_copy_of_the_whole_image_is_made_smaller() -> None:
    rng = np.random.default_rng(0)
    forgery = synth.copy_move(picture((40, 40), 0), np.ones((40, 40), bool), rng)
    assert 0 < forgery.mask.mean() < 0.25


def test_a_single_pixel_is_copied() -> None:
    region = np.zeros((30, 30), bool)
    region[4, 5] = True
    forgery = synth.copy_move(picture((30, 30), 0), region, np.random.default_rng(0))
    assert forgery.mask.any()
    assert not forgery.mask[4, 5]


def test_removal_takes_the_object_away() -> None:
    image = np.full((50, 50, 3), 90, np.uint8)
    image[20:30, 20:30] = 255
    region = np.zeros((50, 50), bool)
    region[18:32, 18:32] = True
    forgery = synth.removal(image, region, np.random.default_rng(0))
    assert np.abs(forgery.image.astype(int) - 90).max() <= 1
    assert forgery.mask is not region


def test_a_style_bounds_what_is_drawn() -> None:
    style = ForgeryStyle(
        splice_scale=(0.5, 0.6), copy_scale=(0.7, 0.75), rotation=90, exposure=0.4, feather=(3, 6)
    )
    drawn: dict[str, list[dict[str, Any]]] = {"splice": [], "copymove": []}
    host, donor = picture((80, 80), 0), picture((80, 80), 1)
    region = regions.random_region((80, 80), np.random.default_rng(0), (0.05, 0.06))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn["splice"].append(synth.splice(host, donor, region, rng, style).parameters)
        drawn["copymove"].append(synth.copy_move(host, region, rng, style).parameters)
    for kind, scale in (("splice", (0.5, 0.6)), ("copymove", (0.7, 0.75))):
        assert all(scale[0] <= one["scale"] <= scale[1] for one in drawn[kind])
        assert {one["feather"] for one in drawn[kind]} == {3, 4, 5, 6}
        assert 60 < max(abs(one["degrees"]) for one in drawn[kind]) <= 90
        assert {one["flipped"] for one in drawn[kind]} == {0, 1}
    exposures = [one["exposure"] for one in drawn["splice"] if "exposure" in one]
    assert 15 <= len(exposures) <= 45
    assert 0.6 <= min(exposures) < 0.8
    assert 1.2 < max(exposures) <= 1.4


@pytest.mark.parametrize("feather", [0, 2, 9])
def test_a_softer_edge_reaches_farther_and_no_farther(feather: int) -> None:
    style = ForgeryStyle(feather=(feather, feather), exposure=0, rotation=0)
    host, donor = np.zeros((90, 90, 3), np.uint8), np.full((90, 90, 3), 200, np.uint8)
    region = np.zeros((90, 90), bool)
    region[20:50, 25:60] = True
    forgery = synth.splice(host, donor, region, np.random.default_rng(1), style)
    changed = forgery.image[..., 0] > 0
    window = np.ones((2 * feather + 1,) * 2, np.uint8)
    assert not changed[cv2.dilate(forgery.mask.astype(np.uint8), window) == 0].any()
    assert (len(np.unique(forgery.image)) > 2) == (feather > 0)


def pasted(region: MaskArray, source: ImageArray, forgery: Forgery) -> ImageArray:
    """The mask's pixels, if a region (H, W) was moved and maybe flipped but never resampled."""
    if forgery.parameters["flipped"]:
        region, source = region[:, ::-1], source[:, ::-1]
    return source[region]


@fewer
@given(SEEDS, st.sampled_from(("splice", "copymove")))
def test_a_paste_that_is_only_moved_keeps_its_pixels(seed: int, kind: ForgeryKind) -> None:
    host, donor = picture((60, 80), seed), picture((60, 80), seed + 1)
    rng = np.random.default_rng(seed)
    region = regions.random_region((60, 80), rng, (0.03, 0.06))
    if kind == "splice":
        forgery = synth.splice(host, donor, region, rng, STILL)
    else:
        forgery = synth.copy_move(host, region, rng, STILL, source=donor)
    np.testing.assert_array_equal(forgery.image[forgery.mask], pasted(region, donor, forgery))


def test_a_paste_lies_where_its_scale_and_place_say() -> None:
    """The centre of a square, from the edges of the pasted window: shifted by nothing."""
    host, donor = np.zeros((120, 120, 3), np.uint8), np.zeros((120, 120, 3), np.uint8)
    region = np.zeros((120, 120), bool)
    region[30:60, 40:70] = True
    for scale in (0.5, 1.5, 2.0):
        style = ForgeryStyle(splice_scale=(scale, scale), rotation=0, exposure=0, feather=(0, 0))
        forgery = synth.splice(host, donor, region, np.random.default_rng(0), style)
        y, x = np.nonzero(forgery.mask)
        half = (30 * scale - 1) / 2
        assert y.mean() == pytest.approx(float(forgery.parameters["row"]) + half)
        assert x.mean() == pytest.approx(float(forgery.parameters["column"]) + half)


def test_a_thin_region_of_a_far_larger_donor_is_not_lost() -> None:
    donor, region = picture((900, 900), 0), np.zeros((900, 900), bool)
    region[100:800, 450:453] = True
    forgery = synth.splice(picture((60, 60), 1), donor, region, np.random.default_rng(0))
    assert forgery.mask.any()


def test_a_copy_can_come_from_another_version_of_the_image() -> None:
    image, source = np.full((60, 60, 3), 10, np.uint8), np.full((60, 60, 3), 77, np.uint8)
    region = regions.random_region((60, 60), np.random.default_rng(0), (0.05, 0.06))
    style = ForgeryStyle(feather=(0, 0))
    forgery = synth.copy_move(image, region, np.random.default_rng(0), style, source)
    assert (forgery.image[forgery.mask] == 77).all()
    assert (forgery.image[~forgery.mask] == 10).all()


def test_the_parameters_say_what_was_done() -> None:
    rng = np.random.default_rng(0)
    region = regions.random_region((60, 60), rng, (0.05, 0.06))
    forgery = synth.splice(picture((60, 60), 0), picture((60, 60), 1), region, rng)
    row, column = int(forgery.parameters["row"]), int(forgery.parameters["column"])
    box = geometry.from_mask(forgery.mask)
    assert box is not None
    assert row <= box.y0 <= row + 2 * DEFAULT_STYLE.feather[1] + 1
    assert column <= box.x0 <= column + 2 * DEFAULT_STYLE.feather[1] + 1
    removed = synth.removal(picture((60, 60), 0), region, rng)
    methods = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}
    method, radius = methods[str(removed.parameters["method"])], removed.parameters["radius"]
    expected = cv2.inpaint(picture((60, 60), 0), region.astype(np.uint8), float(radius), method)
    np.testing.assert_array_equal(removed.image, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind_fractions": (0.5, 0.5, 0.5)},
        {"kind_fractions": (2.0, -1.0, 0.0)},
        {"splice_scale": (1.4, 0.6)},
        {"copy_scale": (0.0, 1.0)},
        {"rotation": float("nan")},
        {"exposure": 1.0},
        {"feather": (0, 99)},
    ],
)
def test_an_impossible_style_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        ForgeryStyle(**wrong)


def test_photographs_of_the_wheel_can_be_forged() -> None:
    host, donor = (
        bundled_photo(f"{name}.png")[::2, ::2].copy() for name in ("coffee", "astronaut")
    )
    for kind in KINDS:
        forgery = forge(host, donor, np.random.default_rng(1), kind)
        changed = (forgery.image != host).any(axis=2)
        assert changed[forgery.mask].mean() > 0.8
