"""Every preset against its peers' formulas, written down here once more, pixel by pixel."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from boxpromptiml.metrics.presets import (
    PRESET_NAMES,
    PRESETS,
    THRESHOLDS,
    PixelScores,
    PresetName,
    at_network_size,
    outside_border,
    score_pixels,
)
from boxpromptiml.records import MaskArray

Pair = tuple[npt.NDArray[Any], MaskArray]  # values, truth

LEVELS = st.sampled_from([0, 1, 64, 100, 127, 128, 200, 254, 255])


@st.composite
def images(draw: st.DrawFn, low: int = 1, high: int = 14) -> Pair:
    shape = draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # odd sizes too
    elements = draw(st.sampled_from([LEVELS, st.integers(0, 255), st.just(77)]))
    levels = draw(arrays(np.uint8, shape, elements=elements))
    kind = draw(st.sampled_from(["noise", "empty", "pixel", "full", "block"]))
    truth = np.full(shape, kind == "full")
    if kind == "noise":
        truth = draw(arrays(np.bool_, shape))
    elif kind == "pixel":
        truth[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = True
    elif kind == "block":
        truth[: shape[0] // 2 + 1, : shape[1] // 2 + 1] = True
    return levels, truth


def counts(flagged: MaskArray, truth: MaskArray) -> tuple[int, int, int, int]:
    parts = (flagged & truth, flagged & ~truth, ~flagged & truth, ~flagged & ~truth)
    tp, fp, fn, tn = (int(part.sum()) for part in parts)
    return tp, fp, fn, tn


def score(
    name: PresetName, levels: npt.NDArray[Any], truth: MaskArray, threshold: float = 0.5
) -> PixelScores:
    return score_pixels(PRESETS[name], levels, truth, threshold)


def by_scikit_learn(
    levels: npt.NDArray[Any], truth: MaskArray, threshold: float
) -> tuple[float, ...]:
    y, flagged = truth.ravel(), (levels / 255 > threshold).ravel()
    auc = float("nan") if y.all() else roc_auc_score(y, levels.ravel())
    precision = precision_score(y, flagged, zero_division=np.nan)
    return f1_score(y, flagged), jaccard_score(y, flagged), auc, precision, recall_score(y, flagged)


@given(images(), st.sampled_from([0.2, 0.5, 0.9]))
def test_default_is_scikit_learn_on_manipulated_images(pair: Pair, threshold: float) -> None:
    levels, truth = pair
    found = score("default", levels, truth, threshold)
    assert found.flagged == np.mean(levels / 255 > threshold)
    if not truth.any():
        assert np.isnan(found[:6]).all()
        assert found.rates is None
        return
    expected = by_scikit_learn(levels, truth, threshold)
    assert found[:5] == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=30)
@given(images().filter(lambda pair: pair[1].any()))
def test_curves_are_scores_at_every_threshold(pair: Pair) -> None:
    levels, truth = pair
    found = score("default", levels, truth)
    assert found.rates is not None
    for number in (0, 127, 200, 255):
        f1, _, _, precision, recall = by_scikit_learn(levels, truth, THRESHOLDS[number])
        assert found.f1_curve[number] == pytest.approx(f1)
        assert found.rates.precision[number + 1] == pytest.approx(precision, nan_ok=True)
        assert found.rates.recall[number + 1] == pytest.approx(recall)
    assert (found.rates.recall[0], found.rates.precision[0]) == (1, truth.mean())
    assert found.best_f1 >= found.f1_curve.max()
    if not truth.all():
        fpr, tpr, _ = roc_curve(truth.ravel(), levels.ravel(), drop_intermediate=False)
        ours = np.stack([found.rates.false_positive, found.rates.recall], axis=1)
        theirs = np.stack([fpr, tpr], axis=1)
        assert np.abs(theirs[:, None] - ours).max(axis=2).min(axis=1).max() < 1e-12


def benco(
    levels: npt.NDArray[Any], truth: MaskArray, threshold: float
) -> tuple[float, float, float]:
    """IMDLBenCo's evaluation/F1.py, IOU.py; AUC.py where it ignores no ties."""
    tp, fp, fn, _ = counts(levels / 255 > threshold, truth)
    precision, recall = tp / (tp + fp + 1e-8), tp / (tp + fn + 1e-8)
    f1 = 2 * precision * recall / (precision + recall + 1e-8)
    auc = roc_auc_score(truth.ravel(), levels.ravel()) if truth.any() else 0.0
    return f1, tp / (tp + fp + fn + 1e-8), auc


@given(images().filter(lambda pair: not pair[1].all()), st.sampled_from([0.3, 0.5]))
def test_benco_formulas(pair: Pair, threshold: float) -> None:
    found = score("benco-resize", *pair, threshold)
    assert found[:3] == pytest.approx(benco(*pair, threshold), abs=1e-15)


def benco_auc(levels: npt.NDArray[Any], truth: MaskArray) -> float:
    """AUC.py as it is: ties in the order of the sort, no point (0, 0)."""
    order = np.argsort(-levels.ravel().astype(int), kind="stable")
    y = truth.ravel()[order].astype(float)
    tpr, fpr = np.cumsum(y) / y.sum(), np.cumsum(1 - y) / (1 - y).sum()
    return np.trapezoid(tpr, fpr)


def test_benco_auc_without_ties_is_ours_and_with_ties_is_wrong() -> None:
    rng = np.random.default_rng(0)
    levels = rng.permutation(256).astype(np.uint8).reshape(16, 16)
    truth = rng.random((16, 16)) < 0.3
    assert score("benco-resize", levels, truth).auc == pytest.approx(
        benco_auc(levels, truth), abs=0.006
    )
    constant = np.full((16, 16), 90, np.uint8)
    half = np.arange(256).reshape(16, 16) < 128
    assert score("benco-resize", constant, half).auc == 0.5
    assert benco_auc(constant, half) > 0.99


def scaf(levels: npt.NDArray[Any], truth: MaskArray) -> tuple[float, float, float]:
    """SCAF's etest.py, then eval.py; the division is done in integers, as in exact arithmetic."""
    low, high = int(levels.min()), int(levels.max())
    saved = (255 * (levels.astype(int) - low)) // (high - low) if high > low else 0 * levels
    flagged = saved > 127
    tp, fp, fn, _ = counts(flagged, truth)
    iou = tp / (tp + fp + fn + 1e-6) if tp + fp + fn else 1
    one_class = truth.all() or not truth.any()
    auc = float("nan") if one_class else roc_auc_score(truth.ravel(), saved.ravel() / 255)
    return 2 * tp / (2 * tp + fp + fn + 1e-6), iou, auc


@given(images())
def test_lab_minmax_formulas(pair: Pair) -> None:
    found = score("lab-minmax", *pair)
    assert found[:3] == pytest.approx(scaf(*pair), abs=1e-12, nan_ok=True)


def test_lab_minmax_flags_something_in_every_map_that_is_not_constant() -> None:
    levels, empty = np.full((5, 7), 10, np.uint8), np.zeros((5, 7), bool)
    constant = score("lab-minmax", levels, empty)
    assert (constant.flagged, constant.f1, constant.iou) == (0, 0, 1)
    levels[2, 3] = 12
    assert score("default", levels, empty).flagged == 0
    alarm = score("lab-minmax", levels, empty)
    assert (alarm.flagged, alarm.f1, alarm.iou) == (1 / 35, 0, 0)
    truth = levels == 12  # one pixel, found by its rank alone
    assert score("default", levels, truth).f1 == 0
    assert score("lab-minmax", levels, truth).iou == pytest.approx(1, abs=1e-5)


def trufor(
    levels: npt.NDArray[Any], truth: MaskArray, threshold: float = 0.5
) -> tuple[float, float]:
    """TruFor's test_docker/metrics.py: best F1 and F1 at the threshold."""
    inner = scipy.ndimage.minimum_filter(truth, 15)
    outer = ~scipy.ndimage.maximum_filter(truth, 11)
    keep = inner | outer
    y, values = truth[keep], levels[keep] / 255

    def larger(flagged: MaskArray) -> float:
        tp, fp, fn, tn = (float(n) for n in counts(flagged, y))
        plain = 2 * tp / max(2 * tp + fn + fp, 1e-32)
        return max(plain, 2 * fn / max(2 * fn + tp + tn, 1e-32))

    best = max((larger(values > t) for t in np.unique(values)), default=np.nan)
    flagged = values > threshold
    labels = set(y.tolist()) | set(flagged.tolist())
    return best, larger(flagged) if len(labels) == 2 else np.nan


@given(images(high=40).filter(lambda pair: pair[1].any()))
def test_trufor_formulas(pair: Pair) -> None:
    found = score("trufor-permuted", *pair)
    assert (found.best_f1, found.f1) == pytest.approx(trufor(*pair), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (33, 47), (60, 61)])
def test_borders_are_those_of_scipy(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = ((y - 20) ** 2 + (x - 25) ** 2 < 18**2) | (rng.random(shape) < 0.001)
    expected = scipy.ndimage.minimum_filter(truth, 15) | ~scipy.ndimage.maximum_filter(truth, 11)
    np.testing.assert_array_equal(outside_border(truth), expected)


def test_trufor_forgives_inversion_and_small_regions_have_no_score() -> None:
    truth = np.zeros((60, 70), bool)
    truth[10:40, 20:50] = True
    inverted = np.where(truth, 0, 255).astype(np.uint8)
    assert score("default", inverted, truth).f1 == 0
    assert score("trufor-permuted", inverted, truth).f1 == 1
    assert score("trufor-permuted", inverted, truth).auc == 0
    small = np.zeros_like(truth)
    small[5:15, 5:15] = True  # eroded away
    silent = np.zeros(truth.shape, np.uint8)
    assert np.isnan(score("trufor-permuted", silent, small).f1)
    assert score("trufor-permuted", np.where(truth, 255, 0).astype(np.uint8), small).f1 == 0
    border = np.zeros_like(silent)
    border[9:41, 19:51] = 255  # one pixel too wide all around: does not count
    assert score("default", border, truth).f1 < 1
    assert score("trufor-permuted", border, truth).f1 == 1


def mvss(levels: npt.NDArray[Any], truth: MaskArray) -> float:
    """MVSS-Net's calculate_pixel_f1."""
    tp, fp, fn, _ = counts(levels / 255 > 0.5, truth)
    return 2 * tp / (2 * tp + fp + fn + 1e-6)


@given(images().filter(lambda pair: pair[1].any()))
def test_mvss_formulas(pair: Pair) -> None:
    assert score("mvss", *pair).f1 == pytest.approx(mvss(*pair), abs=1e-12)


def test_an_authentic_image_tells_the_presets_apart() -> None:
    """A quiet map with one loud pixel, no region: who counts it, and as what."""
    levels, empty = np.zeros((4, 5), np.uint8), np.zeros((4, 5), bool)
    levels[0, 0] = 200
    found = {name: score(name, levels, empty) for name in PRESET_NAMES}
    for name in ("default", "trufor-permuted", "mvss"):
        assert np.isnan(found[name][:6]).all()
    assert found["lab-minmax"][:2] == (0, 0)
    assert np.isnan(found["lab-minmax"].auc)
    assert found["benco-resize"][:6] == (0, 0, 0, 0, 0, 0)
    assert {scores.flagged for scores in found.values()} == {1 / 20}
    silent = {name: score(name, 0 * levels, empty).iou for name in PRESET_NAMES}
    assert (silent["lab-minmax"], silent["benco-resize"]) == (1, 0)


def test_sizes_of_the_network() -> None:
    levels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    truth = np.zeros((5, 7), bool)
    truth[2, 3] = True
    small, mask = at_network_size(levels, truth, (3, 4))
    assert small.shape == mask.shape == (3, 4)
    rows, columns = np.arange(3) * 5 // 3, np.arange(4) * 7 // 4
    np.testing.assert_array_equal(mask, truth[np.ix_(rows, columns)])
    kept, mask = at_network_size(small, truth, (3, 4))
    np.testing.assert_array_equal(kept, small)
    pixel = np.zeros((50, 50), bool)
    pixel[1, 1] = True
    assert not at_network_size(np.zeros((50, 50), np.uint8), pixel, (10, 10))[1].any()
    wide, _ = at_network_size(np.full((5, 7), 99, np.uint8), truth, (11, 13))
    assert set(wide.ravel()) == {99}
