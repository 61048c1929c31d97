"""Calibration against torchmetrics and scikit-learn, and by its definition."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error

from boxpromptiml.errors import UserError
from boxpromptiml.metrics.calibration import (
    AuthenticPixels,
    Platt,
    error_by_chance,
    fit_platt,
    fold_numbers,
    held_out,
    image_threshold,
    reliability,
)
from boxpromptiml.metrics.histograms import Floats
from boxpromptiml.records import MaskArray


def images(
    count: int, temperature: float = 2.5, bias: float = -0.7, seed: int = 0
) -> tuple[Floats, MaskArray]:
    """Logits, and labels drawn with the probability that temperature and bias give them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(1, 4, count)
    return logits, rng.random(count) < Platt(temperature, bias)(logits)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 40), st.sampled_from([1, 2, 10, 15]))
def test_expected_calibration_error_is_that_of_torchmetrics(
    seed: int, count: int, bins: int
) -> None:
    """But for a score of 1, which torchmetrics gives an interval of its own."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    labels = rng.random(count) < 0.5
    given = torch.from_numpy(scores), torch.from_numpy(labels.astype(int))
    expected = float(binary_calibration_error(*given, n_bins=bins, norm="l1"))
    found = reliability(scores, labels, bins)
    assert found.ece == pytest.approx(expected, abs=1e-6)
    assert sum(one.images for one in found.bins) == count
    assert list(found.bins) == sorted(found.bins)


@pytest.mark.parametrize("with_copies", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_the_fit_is_that_of_scikit_learn(with_bias: bool, with_copies: bool) -> None:
    logits, manipulated = images(300)
    copied = np.random.default_rng(1).random(300) < np.where(manipulated, 0.4, 0.1)
    found = fit_platt(logits, manipulated, with_bias, copied if with_copies else None)
    ups, downs = int(manipulated.sum()), int((~manipulated).sum())
    soft = np.where(manipulated, (ups + 1) / (ups + 2), 1 / (downs + 2))  # Platt's targets
    theirs = LogisticRegression(C=np.inf, fit_intercept=with_bias, tol=1e-10, max_iter=1000)
    features = np.stack([logits, copied], axis=1)[:, : 1 + with_copies]
    theirs.fit(np.r_[features, features], np.repeat([1, 0], 300), np.r_[soft, 1 - soft])
    assert 1 / found.temperature == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert found.bias == pytest.approx(float(np.ravel(theirs.intercept_)[0]), abs=1e-3)
    assert with_bias or found.bias == 0
    assert found.copy_weight == pytest.approx(theirs.coef_[0, 1] if with_copies else 0, abs=1e-3)
    theirs_too = theirs.predict_proba(features)[:, 1]
    np.testing.assert_allclose(found(logits, copied), theirs_too, atol=1e-3)


def test_copies_that_no_image_or_forgeries_alone_have_get_a_finite_weight() -> None:
    logits, manipulated = images(300)
    none = fit_platt(logits, manipulated, copied=np.zeros(300, bool))
    assert none == pytest.approx(fit_platt(logits, manipulated), rel=1e-6)
    forgeries = manipulated & (np.arange(300) % 2 == 0)
    assert 2 < fit_platt(logits, manipulated, copied=forgeries).copy_weight < 10


def test_temperature_and_bias_are_found_again() -> None:
    found = fit_platt(*images(100_000))
    assert found.temperature == pytest.approx(2.5, rel=0.03)
    assert found.bias == pytest.approx(-0.7, abs=0.03)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-2, 1e2), st.floats(-5, 5))
def test_the_scale_of_the_logits_does_not_matter(scale: float, shift: float) -> None:
    logits, manipulated = images(80)
    plain, other = fit_platt(logits, manipulated), fit_platt(logits * scale + shift, manipulated)
    np.testing.assert_allclose(plain(logits), other(logits * scale + shift), atol=1e-4)


def test_classes_that_the_scores_separate_get_finite_values() -> None:
    logits, manipulated = np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True])
    scores = fit_platt(logits, manipulated)(logits)
    assert scores[0] < scores[1] < 0.5 < scores[2] < scores[3] < 1


@pytest.mark.parametrize(
    ("logits", "manipulated", "message"),
    [
        ([1.0, 2], [True, True], "on manipulated and authentic images"),
        ([1.0, 2], [False, False], "on manipulated and authentic images"),
        ([2.0, 1, 2, 1], [False, True, False, True], "no higher for manipulated"),
        ([1.0, 1, 1, 1], [False, True, False, True], "no higher for manipulated"),
    ],
)
def test_what_cannot_be_calibrated_is_said(
    logits: list[float], manipulated: list[bool], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_platt(np.array(logits), np.array(manipulated))


def test_intervals_are_closed_below_and_the_last_one_above() -> None:
    found = reliability(np.array([0.0, 0.49, 0.5, 1.0]), np.array([False, True, True, True]), 2)
    assert found.bins == ((0.245, 0.5, 2), (0.75, 1.0, 2))
    assert found.ece == pytest.approx(0.5 * 0.255 + 0.5 * 0.25)


def test_error_by_chance_is_that_of_labels_drawn_with_the_scores() -> None:
    scores = np.random.default_rng(0).random(200)
    errors = []
    for seed in range(100):
        labels = np.random.default_rng(seed).random(200) < scores
        errors.append(reliability(scores, labels).ece)
    assert error_by_chance(scores) == pytest.approx(np.mean(errors), abs=0.004)
    assert error_by_chance(np.repeat(scores, 50)) < 0.2 * error_by_chance(scores)


def test_calibration_lowers_the_error_on_images_held_back() -> None:
    logits, manipulated = images(4000)
    folds = fold_numbers([str(number // 4) for number in range(4000)], 5)
    kept = held_out(logits, manipulated, folds)
    assert reliability(Platt(1, 0)(logits), manipulated).ece > 0.1
    assert reliability(kept, manipulated).ece < 0.03
    inside = folds == 3
    own = fit_platt(logits[~inside], manipulated[~inside])(logits[inside])
    np.testing.assert_array_equal(kept[inside], own)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(2, 6))
def test_folds_never_divide_a_group(groups: list[str], folds: int) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(UserError, match="all images are of one group"):
            fold_numbers(groups, folds)
        return
    found = fold_numbers(groups, folds)
    of_group = {group: {int(f) for g, f in zip(groups, found, strict=True) if g == group}
                for group in groups}  # fmt: skip
    assert all(len(one) == 1 for one in of_group.values())
    assert len(set(found.tolist())) == min(folds, len(of_group))
    assert found.tolist() == fold_numbers(groups, folds).tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.001, 1))
def test_no_more_images_are_above_a_threshold_than_asked(scores: list[float], fpr: float) -> None:
    array = np.array(scores)
    threshold = image_threshold(array, fpr)
    assert (array > threshold).mean() <= fpr + 1e-9
    lower = array[array < threshold]
    assert not len(lower) or (array > lower.max()).mean() > fpr - 1e-6


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.001, 0.01, 0.3, 1]), st.floats(0.1, 9))
@example(221, 0.01, 4.937453742115343)
def test_no_more_pixels_are_above_a_threshold_than_asked(
    seed: int, fpr: float, power: float
) -> None:
    """A mean over images of different sizes, as the pixel FPR of `evaluate`."""
    rng = np.random.default_rng(seed)
    maps = [rng.random((h, 37)).astype(np.float32) ** np.float32(power) for h in (5, 60, 9)]
    pixels = AuthenticPixels()
    for prob in maps:
        one = AuthenticPixels()
        one.add(prob)
        pixels += one
    threshold = np.float64(pixels.threshold(fpr))  # a Python number would be rounded to float32
    above = float(np.mean([(prob > threshold).mean() for prob in maps]))
    assert above <= fpr + 1e-9
    assert pixels.fpr(threshold) == pytest.approx(above, abs=1e-9)
    if threshold:
        lower = threshold - 1.001 / 65535
        assert np.mean([(prob > lower).mean() for prob in maps]) > fpr
    assert (pixels.images, pixels.pixels) == (3, 74 * 37)
