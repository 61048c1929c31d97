"""Scores of histograms are those of the pixels, by scikit-learn."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score

from boxpromptiml.metrics import histograms, pixel
from boxpromptiml.metrics.histograms import LevelCounts
from boxpromptiml.records import MaskArray

Pair = tuple[npt.NDArray[Any], MaskArray]  # values, truth

EVEN = np.arange(256) / 255
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def maps(draw: st.DrawFn, dtype: Any = np.uint8) -> Pair:
    """Levels with ties and a mask; some maps are constant, inverted or binary."""
    shape, top = draw(SHAPES), int(np.iinfo(dtype).max)
    values = st.sampled_from([0, 1, top // 4, top // 2, top // 2 + 1, top - 1, top])
    elements = draw(st.sampled_from([values, st.integers(0, top), st.just(top // 3)]))
    return draw(arrays(dtype, shape, elements=elements)), draw(arrays(np.bool_, shape))


def both(pair: Pair) -> bool:
    return bool(pair[1].any() and not pair[1].all())


@given(maps(), st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.75, 1.0]))
def test_scores_at_a_threshold_agree_with_scikit_learn(pair: Pair, threshold: float) -> None:
    levels, truth = pair
    flagged = (levels / 255 > threshold).ravel()
    found = histograms.flagged(histograms.count_values(levels, truth))
    cut = histograms.cuts(threshold, EVEN)
    tp, fp, positives = found.tp[cut], found.fp[cut], int(truth.sum())
    assert tp == np.sum(flagged & truth.ravel())
    assert tp + fp == flagged.sum()
    expected = f1_score(truth.ravel(), flagged, zero_division=np.nan)
    assert float(histograms.f1(tp, fp, positives)) == pytest.approx(expected, nan_ok=True)
    expected = jaccard_score(truth.ravel(), flagged, zero_division=0)
    assert np.nan_to_num(histograms.ratio(tp, positives + fp)) == pytest.approx(expected)


@given(maps(np.uint8).filter(both) | maps(np.uint16).filter(both))
def test_auc_is_exact_with_ties(pair: Pair) -> None:
    levels, truth = pair
    histogram = histograms.count_values(levels, truth)
    assert len(histogram.authentic) == np.iinfo(levels.dtype).max + 1
    found = histograms.auc(*histogram)
    assert found == pytest.approx(roc_auc_score(truth.ravel(), levels.ravel()), abs=1e-12)
    inverse = histograms.count_values(np.iinfo(levels.dtype).max - levels, truth)
    assert found + histograms.auc(*inverse) == pytest.approx(1, abs=1e-12)
    prob = (levels / np.iinfo(levels.dtype).max).astype(np.float32)
    assert found == pytest.approx(pixel.score_image(prob, truth).auc, abs=1e-12)


def test_auc_needs_both_classes_and_does_not_overflow() -> None:
    some, none = np.array([3, 4]), np.array([0, 0])
    assert np.isnan(histograms.auc(some, none))
    assert np.isnan(histograms.auc(none, some))
    huge = np.array([40_000_000, 40_000_000])
    assert histograms.auc(huge, huge) == 0.5


def test_more_pixels_than_a_chunk_and_pixels_left_out() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (700, 800), dtype=np.uint8)
    truth, kept = rng.random((2, 700, 800)) < 0.3
    whole, part = (histograms.count_values(levels, truth, k) for k in (None, kept))
    for found, chosen in ((whole, np.ones_like(kept)), (part, kept)):
        expected = np.bincount(levels[truth & chosen], minlength=256)
        np.testing.assert_array_equal(found.manipulated, expected)
        expected = np.bincount(levels[~truth & chosen], minlength=256)
        np.testing.assert_array_equal(found.authentic, expected)


@given(st.floats(-1, 2))
def test_cuts_are_the_first_level_strictly_above(threshold: float) -> None:
    flagged = np.arange(256) / 255 > threshold
    assert histograms.cuts(threshold, EVEN) == (np.argmax(flagged) if flagged.any() else 256)


def test_cuts_of_decimal_thresholds_are_exact() -> None:
    assert [int(histograms.cuts(level / 255, EVEN)) for level in range(256)] == list(range(1, 257))
    assert histograms.cuts([0.2, 0.4, 0.6, 0.8], EVEN).tolist() == [52, 103, 154, 205]
    assert histograms.cuts([0.2, 0.5], np.arange(65536) / 65535).tolist() == [13108, 32768]


@given(maps())
def test_stretching_is_what_a_person_would_do_and_changes_nothing_twice(pair: Pair) -> None:
    levels, truth = pair
    low, high = int(levels.min()), int(levels.max())
    by_hand = (levels.astype(int) - low) * 255 // max(high - low, 1)
    found = histograms.stretched(histograms.count_values(levels, truth), EVEN)
    expected = histograms.count_values(by_hand.astype(np.uint8), truth)
    for one, other in ((found, expected), (histograms.stretched(found, EVEN), found)):
        np.testing.assert_array_equal(one.manipulated, other.manipulated)
        np.testing.assert_array_equal(one.authentic, other.authentic)
    if both(pair):  # at most 256 levels stay apart
        before = histograms.auc(*histograms.count_values(levels, truth))
        assert histograms.auc(*found) == pytest.approx(before, abs=1e-12)


def test_stretching_many_levels_and_none() -> None:
    levels = np.array([[1000, 33000, 60000]], np.uint16)
    histogram = histograms.count_values(levels, np.array([[False, True, True]]))
    found = histograms.stretched(histogram, np.arange(65536) / 65535)
    assert np.flatnonzero(found.manipulated).tolist() == [255 * 32000 // 59000, 255]
    empty = LevelCounts(np.zeros(256, int), np.zeros(256, int))
    assert histograms.stretched(empty, EVEN).authentic.sum() == 0


def test_differing_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        histograms.count_values(np.zeros((2, 3), np.uint8), np.zeros((3, 2), bool))


def test_epsilon_makes_nothing_zero() -> None:
    assert np.isnan(histograms.f1(0, 0, 0))
    assert histograms.f1(0, 0, 0, 1e-6) == 0
    assert np.isnan(histograms.ratio(0, 0))
