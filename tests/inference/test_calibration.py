"""Thresholds of a stored calibration, and what a file may say there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit

from boxpromptiml.errors import UserError
from boxpromptiml.inference.calibration import Calibration
from boxpromptiml.inference.spec import ModelSpec
from tests.helpers.models import CALIBRATION, SPECS


def test_thresholds_between_and_at_the_stored_rates() -> None:
    assert [CALIBRATION.pixel_threshold(rate) for rate in (0.001, 0.01, 0.1)] == [0.9, 0.6, 0.2]
    middle = CALIBRATION.pixel_threshold(10**-2.5)
    assert middle == pytest.approx(0.75)
    assert CALIBRATION.pixel_fpr(middle) == pytest.approx(10**-2.5)
    assert CALIBRATION.image_threshold(0.1) == 0.7


@given(st.floats(0.001, 0.1))
def test_a_rate_is_found_again_by_its_threshold(fpr: float) -> None:
    found = CALIBRATION.pixel_fpr(CALIBRATION.pixel_threshold(fpr))
    assert found == pytest.approx(fpr, rel=1e-6)


@pytest.mark.parametrize("fpr", [0, -1, 0.0009, 0.11, 2, float("nan"), float("inf")])
def test_rates_outside_the_measured_ones_are_unknown(fpr: float) -> None:
    with pytest.raises(UserError, match="measured on 50000 pixels of 40 authentic images were fr"):
        CALIBRATION.pixel_threshold(fpr)
    with pytest.raises(UserError, match="measured on 40 authentic images were from"):
        CALIBRATION.image_threshold(fpr)
    few = replace(CALIBRATION, pixels=100)
    with pytest.raises(UserError, match="100 pixels"):
        few.pixel_threshold(0.005)
    none = replace(CALIBRATION, image_thresholds=())
    with pytest.raises(UserError, match="authentic images were none"):
        none.image_threshold(0.1)


def test_thresholds_outside_the_measured_ones_have_no_rate() -> None:
    assert [CALIBRATION.pixel_fpr(t) for t in (0, 0.19, 0.91, 1)] == [None] * 4
    assert replace(CALIBRATION, pixel_thresholds=()).pixel_fpr(0.5) is None


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9))
def test_scores_are_calibrated_if_the_spec_says_how(logits: list[float]) -> None:
    given = np.array(logits, np.float32)
    plain = SPECS["student"].image_scores(given)
    found = replace(SPECS["student"], calibration=CALIBRATION).image_scores(given)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(plain, 1 / (1 + np.exp(-given)), atol=1e-6)
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-(given / 2 - 1))), atol=1e-6)
    assert plain.dtype == found.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.update(temperature=0), "temperature"),
        (lambda said: said.update(temperature=float("nan")), "not plain values"),
        (lambda said: said.update(temperature="2"), "temperature"),
        (lambda said: said.update(bias=1e9), "bias"),
        (lambda said: said.update(images=0), "images"),
        (lambda said: said.update(images=39), "more than all images"),
        (lambda said: said.update(pixels=2**60), "pixels"),
        (lambda said: said.update(ece=1.5), "ece"),
        (lambda said: said.update(copy_weight=1e4), "copy_weight"),
        (lambda said: said.update(copy_weight=True), "copy_weight"),
        (lambda said: said.update(more=1), "more"),
        (lambda said: said.pop("bias"), "bias"),
        (lambda said: said.update(pixel_thresholds=[[0.1, 0.5]] * 65), "pixel_thresholds"),
        (lambda said: said.update(pixel_thresholds=[[0.1, 0.5], [0.1, 0.4]]), "rates must rise"),
        (lambda said: said.update(image_thresholds=[[0.1, 0.5], [0.2, 0.6]]), "rates must rise"),
        (lambda said: said.update(image_thresholds=[[0.1, 1.5]]), "image_thresholds"),
        (lambda said: said.update(image_thresholds=[[0.1, 0.5, 0]]), "image_thresholds"),
    ],
)
def test_a_strangers_calibration_is_held_to_its_schema(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    values = replace(SPECS["student"], calibration=CALIBRATION).to_dict()
    change(values["calibration"])
    with pytest.raises(UserError, match=message):
        ModelSpec.from_dict(values)


def test_values_are_checked_in_python_too() -> None:
    with pytest.raises(UserError, match=r"calibration\.temperature"):
        replace(CALIBRATION, temperature=0.0)
    assert isinstance(CALIBRATION, Calibration)


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=50), st.booleans())
def test_odds_of_a_tiled_image_are_the_mean_of_its_tiles(
    logits: list[float], is_calibrated: bool
) -> None:
    spec = replace(SPECS["student"], calibration=CALIBRATION if is_calibrated else None)
    given = np.array(logits, np.float32)
    scores = spec.image_scores(given).astype(np.float64)
    alone = spec.image_score(given[:1], copied=False)
    assert alone == pytest.approx(float(scores[0]), abs=1e-6)
    odds = np.exp(given / 2 - 1 if is_calibrated else given, dtype=np.float64).mean()
    assert spec.image_score(given, copied=False) == pytest.approx(odds / (1 + odds), abs=1e-5)


def test_copied_regions_add_their_weight_to_the_log_odds() -> None:
    tiles = np.array([0.5, -3], np.float32)
    weighs = replace(SPECS["student"], calibration=replace(CALIBRATION, copy_weight=1.5))
    plain, copied = (weighs.image_score(tiles, copied=yes) for yes in (False, True))
    assert logit(copied) - logit(plain) == pytest.approx(1.5, abs=1e-5)
    without = replace(weighs, calibration=CALIBRATION)
    assert without.image_score(tiles, copied=True) == plain == without.image_score(tiles, False)


def test_a_calibration_that_weighs_copies_holds_only_with_them() -> None:
    weighs = replace(CALIBRATION, copy_weight=1.5)
    with_copies = replace(SPECS["student"], calibration=weighs, copy_move=True)
    assert with_copies.with_maps(True) == with_copies
    assert with_copies.with_maps(False) == SPECS["student"]
    plain = replace(SPECS["student"], calibration=CALIBRATION)
    assert plain.with_maps(False) == plain
    assert plain.with_maps(True) == replace(plain, copy_move=True)


def test_one_odd_tile_of_a_large_photograph_does_not_accuse_it() -> None:
    tiles = np.full(400, -4, np.float32)
    tiles[7] = 3  # alone it would be .95
    assert SPECS["student"].image_score(tiles, copied=False) < 0.1
    tiles[7] = 10
    assert SPECS["student"].image_score(tiles, copied=False) > 0.95
