from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage import data, measure

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth import forge as synth
from boxpromptiml.synth import regions
from boxpromptiml.synth.forge import DEFAULT_STYLE, KINDS, ForgeryStyle

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(24, 90), st.integers(24, 90))
fewer = settings(max_examples=40, deadline=None)


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


@fewer
@given(SIZES, SIZES, SEEDS, st.sampled_from(KINDS))
def test_a_forgery_changes_only_its_mask(
    host_size: Any, donor_size: Any, seed: Any, kind: Any
) -> None:
    host, donor = picture(host_size, seed), picture(donor_size, seed + 1)
    before = host.copy(), donor.copy()
    forgery = synth.forge(host, donor, np.random.default_rng(seed), kind)
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
@given(SEEDS, st.sampled_from([None, *KINDS]))
def test_the_same_seed_gives_the_same_bytes(seed: Any, kind: Any) -> None:
    host, donor = picture((60, 50), seed), picture((40, 70), seed + 1)
    first, second = (synth.forge(host, donor, np.random.default_rng(seed), kind) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()
    assert first.kind == second.kind


@fewer
@given(SEEDS)
def test_a_splice_of_equal_sizes_has_an_area_inside_the_limits(seed: Any) -> None:
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
def test_a_copy_leaves_most_of_its_source(size: Any, seed: Any) -> None:
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


def test_kinds_come_in_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        function = "copy_move" if name == "copymove" else name
        monkeypatch.setattr(synth, function, lambda *_, name=name: name)
    monkeypatch.setattr(synth, "object_region", lambda *_: None)
    rng, unused = np.random.default_rng(0), np.zeros((1, 1, 3), np.uint8)
    drawn: list[object] = [synth.forge(unused, unused, rng) for _ in range(2000)]
    for kind, share in (("splice", 0.6), ("copymove", 0.25), ("removal", 0.15)):
        assert drawn.count(kind) / 2000 == pytest.approx(share, abs=0.04)


def test_a_style_bounds_what_is_drawn() -> None:
    style = ForgeryStyle(
        splice_scale=(0.5, 0.6), copy_scale=(0.7, 0.75), rotation=90, exposure=0.4, feather=(3, 6)
    )
    drawn: dict[str, list[dict[str, Any]]] = {"splice": [], "copymove": []}
    host, donor = picture((80, 80), 0), picture((80, 80), 1)
    region = regions.random_region((80, 80), np.random.default_rng(0), (0.05, 0.06))
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn["splice"].append(synth.splice(host, donor, region, rng, style).drawn)
        drawn["copymove"].append(synth.copy_move(host, region, rng, style).drawn)
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


def test_a_copy_can_come_from_another_version_of_the_image() -> None:
    image, source = np.full((60, 60, 3), 10, np.uint8), np.full((60, 60, 3), 77, np.uint8)
    region = regions.random_region((60, 60), np.random.default_rng(0), (0.05, 0.06))
    style = ForgeryStyle(feather=(0, 0))
    forgery = synth.copy_move(image, region, np.random.default_rng(0), style, source)
    assert (forgery.image[forgery.mask] == 77).all()
    assert (forgery.image[~forgery.mask] == 10).all()


def test_what_was_drawn_is_told() -> None:
    rng = np.random.default_rng(0)
    region = regions.random_region((60, 60), rng, (0.05, 0.06))
    forgery = synth.splice(picture((60, 60), 0), picture((60, 60), 1), region, rng)
    made: Any = forgery.drawn
    row, column = made["row"], made["column"]
    box = geometry.from_mask(forgery.mask)
    assert box is not None
    assert row <= box.y0 <= row + 2 * DEFAULT_STYLE.feather[1] + 1
    assert column <= box.x0 <= column + 2 * DEFAULT_STYLE.feather[1] + 1
    removed = synth.removal(picture((60, 60), 0), region, rng)
    made = removed.drawn
    method = {"telea": cv2.INPAINT_TELEA, "navier-stokes": cv2.INPAINT_NS}[made["method"]]
    removed_area = region.astype(np.uint8)
    np.testing.assert_array_equal(
        removed.image, cv2.inpaint(picture((60, 60), 0), removed_area, made["radius"], method)
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": (0.5, 0.5, 0.5)},
        {"shares": (2.0, -1.0, 0.0)},
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


@settings(deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))), SEEDS)
def test_coarse_boxes_hold_their_regions(mask: Any, seed: Any) -> None:
    labels = parts(mask)
    boxes = synth.coarse_box(mask, np.random.default_rng(seed))
    assert len(boxes) == labels.max()
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= mask.shape[1]
        assert 0 <= box.y0 < box.y1 <= mask.shape[0]
    inside = [
        max(np.mean(labels[geometry.pixel_slices(b, mask.shape)] == n) for b in boxes)
        for n in range(1, labels.max() + 1)
    ]
    assert all(share > 0 for share in inside)


@settings(deadline=None)
@given(SIZES, SEEDS)
def test_a_coarse_box_is_loose_and_hardly_tight(size: Any, seed: Any) -> None:
    rng = np.random.default_rng(seed)
    region = regions.random_region(size, rng)
    (box,) = synth.coarse_box(region, rng)
    held = region[geometry.pixel_slices(box, size)].sum()
    assert held >= 0.9 * region.sum()
    exact = geometry.from_mask(region)
    assert exact is not None
    width, height = exact.x1 - exact.x0, exact.y1 - exact.y0
    moved = (exact.x0 - box.x0, exact.y0 - box.y0, box.x1 - exact.x1, box.y1 - exact.y1)
    for distance, extent in zip(moved, (width, height, width, height), strict=True):
        assert -0.0201 * extent <= distance <= 0.1501 * extent


def test_a_frame_is_never_cut_off() -> None:
    frame = np.zeros((120, 120), bool)
    frame[5:115, 5:115] = True
    frame[6:114, 6:114] = False
    for seed in range(50):
        (box,) = synth.coarse_box(frame, np.random.default_rng(seed), 0.0, 0.02)
        assert frame[geometry.pixel_slices(box, frame.shape)].sum() >= 0.9 * frame.sum()


def test_boxes_differ_by_seed_and_some_are_tight() -> None:
    mask = np.zeros((200, 200), bool)
    mask[50:150, 50:150] = True
    boxes = [synth.coarse_box(mask, np.random.default_rng(seed))[0] for seed in range(40)]
    assert len(set(boxes)) == 40
    assert any(box.x0 > 50 for box in boxes)
    assert any(box.x0 < 40 for box in boxes)
    assert synth.coarse_box(np.zeros((9, 9), bool), np.random.default_rng(0)) == []


def test_photographs_of_the_wheel_can_be_forged() -> None:
    host, donor = data.coffee()[::2, ::2].copy(), data.astronaut()[::2, ::2].copy()
    for kind in KINDS:
        forgery = synth.forge(host, donor, np.random.default_rng(1), kind)
        changed = (forgery.image != host).any(axis=2)
        assert changed[forgery.mask].mean() > 0.8
