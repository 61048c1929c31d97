"""What is drawn where: flagged pixels and only those, boxes inwards, levels and heat by colour."""

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from boxpromptiml.records import Box
from boxpromptiml.visualization import overlays

GREY = np.full((160, 240, 3), 120, np.uint8)
NOTHING = np.zeros((160, 240), bool)


def blob(size: tuple[int, int] = (160, 240)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[40:100, 60:180] = True
    return mask


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.divide(colour, 255)
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.integers(0, 2**32 - 1),
)
def test_overlay_changes_flagged_pixels_only(mask: np.ndarray, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3), np.uint8)
    before = image.copy()
    drawn = overlays.overlay(image, mask)
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (drawn[~mask] == image[~mask]).all()
    assert (image == before).all()


def test_overlay_tints_inside_and_outlines_with_the_plain_colour() -> None:
    drawn, mask = overlays.overlay(GREY, blob()), blob()
    assert (drawn[mask] != 120).any(axis=1).all()
    assert tuple(drawn[40, 60]) == tuple(drawn[99, 179]) == overlays.FLAGGED
    assert drawn[70, 120].tolist() == [157, 110, 72]  # 0.6 grey + 0.4 vermillion


def test_contour_follows_the_frame_of_the_image() -> None:
    drawn = overlays.overlay(GREY, np.ones((160, 240), bool))
    assert tuple(drawn[0, 100]) == tuple(drawn[80, -1]) == overlays.FLAGGED


def test_contour_is_thicker_in_a_larger_image() -> None:
    def thickness(side: int) -> int:
        drawn = overlays.overlay(np.zeros((side, side, 3), np.uint8), np.ones((side, side), bool))
        return int((drawn[side // 2, : side // 2] == overlays.FLAGGED).all(axis=1).sum())

    assert thickness(40) == 1
    assert thickness(1600) == 10 * thickness(160) == 20


def test_threshold_is_strict_and_a_mask_needs_none() -> None:
    prob = np.full((160, 240), 0.25, np.float32)
    assert (overlays.overlay(GREY, prob, threshold=0.25) == GREY).all()
    assert (overlays.overlay(GREY, prob, threshold=0.2) != GREY).any(axis=2).all()
    assert (overlays.overlay(GREY, blob(), threshold=2.0)[blob()] != 120).any(axis=1).all()


def test_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlays.overlay(GREY, np.zeros((240, 160), bool))


def test_boxes_lie_on_top_of_the_tint() -> None:
    box = Box(60, 40, 180, 100)
    drawn = overlays.overlay(GREY, blob(), [box])
    assert tuple(drawn[40, 60]) == overlays.BOX
    assert tuple(drawn[70, 120]) != (120, 120, 120)


def test_box_is_drawn_inwards_with_a_dark_edge() -> None:
    drawn = overlays.overlay(GREY, NOTHING, [Box(20, 30, 100, 90)])
    outside = np.ones((160, 240), bool)
    outside[30:90, 20:100] = False
    assert (drawn[outside] == 120).all()
    corners = [drawn[y, x] for y in (30, 89) for x in (20, 99)]
    assert all(tuple(corner) == overlays.BOX for corner in corners)
    assert tuple(drawn[32, 50]) == overlays.BOX_EDGE
    assert (drawn[40:80, 30:90] == 120).all()


@pytest.mark.parametrize(
    "box",
    [Box(-50, -50, -5, -5), Box(500, 10, 600, 20), Box(10, 10, 10, 10), Box(-9, 300, 500, 400)],
)
def test_box_without_pixels_draws_nothing(box: Box) -> None:
    assert (overlays.overlay(GREY, NOTHING, [box]) == GREY).all()


def test_box_of_one_pixel_and_box_over_the_border_are_drawn() -> None:
    assert tuple(overlays.overlay(GREY, NOTHING, [Box(5, 6, 6, 7)])[6, 5]) == overlays.BOX
    drawn = overlays.overlay(GREY, NOTHING, [Box(-20, -20, 30, 30)])
    assert tuple(drawn[0, 0]) == tuple(drawn[29, 29]) == overlays.BOX


def test_heat_is_matplotlibs_magma() -> None:
    prob = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = mpl.colormaps["magma"](np.arange(256).reshape(16, 16), bytes=True)[..., :3]
    assert (overlays.heat(prob) == expected).all()


def test_heat_gets_lighter_with_probability() -> None:
    colours = overlays.heat(np.linspace(0, 1, 64, dtype=np.float32))
    steps = np.diff([luminance(tuple(colour)) for colour in colours])
    assert (steps > 0).all()


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_heat_refuses_what_is_no_probability(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        overlays.heat(np.array([[0.5, value]], np.float32))


def test_levels_are_told_apart_by_luminance_alone() -> None:
    drawn = overlays.trimap_image(np.array([[0, 127, 255]], np.uint8))
    black, unsure, white = ((int(r), int(g), int(b)) for r, g, b in drawn[0])
    assert (black, white) == ((0, 0, 0), (255, 255, 255))
    assert contrast(black, unsure) > 3
    assert contrast(unsure, white) > 3


def test_other_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="127"):
        overlays.trimap_image(np.array([[0, 128]], np.uint8))


def test_box_colour_stands_out_from_the_flagged_colour_and_its_own_edge() -> None:
    assert contrast(overlays.BOX, overlays.FLAGGED) > 2.5
    assert contrast(overlays.BOX, overlays.BOX_EDGE) > 7


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 120))
def test_thumbnail_fits_and_never_grows(height: int, width: int, side: int) -> None:
    small = overlays.thumbnail(np.zeros((height, width, 3), np.uint8), side)
    assert max(small.shape[:2]) == min(side, max(height, width))
    assert min(small.shape[:2]) == max(
        round(min(height, width) * max(small.shape[:2]) / max(height, width)), 1
    )


def test_thumbnail_averages_areas() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, ::2] = 200
    assert (overlays.thumbnail(image, 4) == 100).all()
