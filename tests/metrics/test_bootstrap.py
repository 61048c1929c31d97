from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from boxpromptiml.metrics import bootstrap, image
from boxpromptiml.metrics.bootstrap import difference_interval, mean_interval, statistic_interval

Array = npt.NDArray[Any]

NAN = float("nan")


def skewed(count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).beta(0.5, 1.5, count)


def test_the_mean_agrees_with_scipy() -> None:
    values = skewed(80)
    ours = mean_interval(values, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.value == values.mean()
    assert ours.count == 80
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


def test_coverage_is_near_the_level() -> None:
    truth = 0.25  # of Beta(0.5, 1.5)
    inside = 0
    for seed in range(200):
        found = mean_interval(skewed(60, seed), resamples=400, seed=seed, level=0.9)
        inside += found.low <= truth <= found.high
    assert 0.83 <= inside / 200 <= 0.95


def test_siblings_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random(40), 10) + 0.01 * rng.standard_normal(400)
    groups = [f"photo {number // 10}" for number in range(400)]
    alone, grouped = mean_interval(values), mean_interval(values, groups)
    assert alone.value == grouped.value
    ratio = (grouped.high - grouped.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.1)


def test_groups_of_uneven_size_are_a_ratio_of_sums() -> None:
    values, groups = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    found = mean_interval(values, groups)
    assert found == (0.75, 0.0, 1.0, 4)
    middle = mean_interval(values, groups, resamples=4000, level=0.2)
    assert (middle.low, middle.high) == (0.75, 0.75)  # half of the draws have one of each


def test_undefined_values_are_left_out_with_their_groups() -> None:
    values, groups = [0.2, NAN, 0.8, NAN, 0.5], ["a", "a", "b", "c", "d"]
    known = mean_interval([0.2, 0.8, 0.5], ["a", "b", "d"])
    assert mean_interval(values, groups) == known
    assert known.count == 3


@pytest.mark.parametrize(
    ("values", "groups", "expected"),
    [
        ([], None, (NAN, NAN, NAN, 0)),
        ([NAN, NAN], ["a", "b"], (NAN, NAN, NAN, 0)),
        ([0.4], None, (0.4, NAN, NAN, 1)),
        ([0.4, 0.6], ["a", "a"], (0.5, NAN, NAN, 2)),
        ([0.4, 0.4], None, (0.4, 0.4, 0.4, 2)),
    ],
)
def test_degenerate_sets(
    values: list[Any] | list[float],
    groups: list[str] | None,
    expected: tuple[float, float, float, int],
) -> None:
    assert mean_interval(values, groups) == pytest.approx(expected, nan_ok=True)


def test_the_seed_decides_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    values = skewed(50)
    groups = [str(number // 3) for number in range(50)]
    first = mean_interval(values, groups, seed=4)
    assert mean_interval(values, groups, seed=4) == first
    assert mean_interval(values, groups, seed=5) != first
    monkeypatch.setattr(bootstrap, "_CELLS", 70)
    assert mean_interval(values, groups, seed=4) == first


def test_renamed_groups_change_nothing() -> None:
    values = skewed(30)
    first = mean_interval(values, [str(number // 2) for number in range(30)])
    assert mean_interval(values, [f"z{99 - number // 2}" for number in range(30)]) == first


def test_pairs_are_narrower_than_two_intervals() -> None:
    rng = np.random.default_rng(2)
    theirs = rng.random(200)
    ours = theirs + 0.05 + 0.02 * rng.standard_normal(200)
    paired = difference_interval(ours, theirs)
    assert paired.value == pytest.approx(0.05, abs=0.01)
    assert paired.low > 0
    single = mean_interval(ours)
    assert paired.high - paired.low < (single.high - single.low) / 5
    swapped = difference_interval(theirs, ours)
    assert swapped.value == -paired.value
    assert swapped.low == pytest.approx(-paired.high, abs=1e-3)


def test_pairs_need_both_sides() -> None:
    assert difference_interval([0.5, NAN, 0.1], [0.4, 0.2, NAN]).count == 1
    with pytest.raises(ValueError, match="not paired"):
        difference_interval([0.5, 0.1], [0.4])
    with pytest.raises(ValueError, match="2 groups of 3 images"):
        mean_interval([0.1, 0.2, 0.3], ["a", "b"])


def test_a_statistic_of_weights_gives_the_same_interval_as_the_mean() -> None:
    values = skewed(40)
    groups = [str(number // 4) for number in range(40)]

    def mean(weights: Array) -> Array:
        return weights @ values / weights.sum(axis=1)

    found, expected = statistic_interval(mean, 40, groups), mean_interval(values, groups)
    assert found == pytest.approx(expected, abs=1e-12)
    assert statistic_interval(mean, 0) == pytest.approx((NAN, NAN, NAN, 0), nan_ok=True)


def test_draws_without_a_score_are_left_out() -> None:
    manipulated = np.array([True, False, False])
    scores = np.array([0.9, 0.1, 0.2])

    def auc(weights: Array) -> Array:
        return image.image_auc(weights, scores, manipulated)

    assert statistic_interval(auc, 3) == (1, 1, 1, 3)

    def never(weights: Array) -> Array:
        return np.full(len(weights), NAN)

    assert statistic_interval(never, 3) == pytest.approx((NAN, NAN, NAN, 3), nan_ok=True)


@st.composite
def decisions(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    count = draw(st.integers(2, 15))
    levels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    scores = np.array(draw(st.lists(levels, min_size=count, max_size=count)))
    truth = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    weights = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    return scores, truth, np.array(weights, float)


@given(decisions())
def test_image_scores_agree_with_scikit_learn_on_repeated_images(
    case: tuple[Array, Array, Array],
) -> None:
    scores, truth, weights = case
    both = np.stack([np.ones(len(truth)), weights])
    found = [
        image.image_auc(both, scores, truth),
        image.image_f1(both, scores > 0.5, truth),
        image.image_accuracy(both, scores > 0.5, truth),
    ]
    for row, times in enumerate(both.astype(int)):
        y, s = truth.repeat(times), scores.repeat(times)
        if y.all() or not y.any():
            assert np.isnan([values[row] for values in found]).all()
            continue
        expected = [roc_auc_score(y, s), f1_score(y, s > 0.5), accuracy_score(y, s > 0.5)]
        assert [values[row] for values in found] == pytest.approx(expected, abs=1e-12)


def mvss_image_f1(flagged: Array, truth: Array) -> float:
    """The formula of MVSS-Net's calculate_img_score."""
    sensitivity = np.sum(flagged & truth) / (np.sum(truth) + 1e-6)
    specificity = np.sum(~flagged & ~truth) / (np.sum(~truth) + 1e-6)
    return 2 * sensitivity * specificity / (sensitivity + specificity)


def test_image_f1_of_rates_is_that_of_mvss() -> None:
    rng = np.random.default_rng(0)
    truth, flagged = rng.random(50) < 0.7, rng.random(50) < 0.5
    ones = np.ones((1, 50))
    rates = image.image_f1_of_rates(ones, flagged, truth)[0]
    assert rates == pytest.approx(mvss_image_f1(flagged, truth), abs=1e-5)
    assert abs(rates - image.image_f1(ones, flagged, truth)[0]) > 0.05
    assert image.image_f1_of_rates(ones, ~truth, truth)[0] == 0
    assert np.isnan(image.image_f1_of_rates(ones, flagged, np.ones(50, bool))[0])
