from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from boxpromptiml.models.bayes import Prior, region_posterior
from boxpromptiml.records import ProbArray, RegionArray

PRIORS = ["pixel", "image"]


def by_definition(
    prob: npt.NDArray[np.floating], regions: RegionArray, prior: Prior
) -> npt.NDArray[np.float64]:
    """The formula of the design, a region at a time, in exact fractions."""
    exact = [[Fraction(float(p)) for p in row] for row in prob]
    places = [(y, x) for y in range(prob.shape[0]) for x in range(prob.shape[1])]
    total = sum(exact[y][x] for y, x in places)
    mean = total / len(places)
    posterior = prob.astype(np.float64)
    for region in set(regions.ravel().tolist()) - {0}:
        inside = [(y, x) for y, x in places if regions[y, x] == region]
        if total in (0, len(places)):
            continue
        given_m = sum(exact[y][x] for y, x in inside) / total
        given_not_m = sum(1 - exact[y][x] for y, x in inside) / (len(places) - total)
        for y, x in inside:
            pi = exact[y][x] if prior == "pixel" else mean
            posterior[y, x] = given_m * pi / (given_m * pi + given_not_m * (1 - pi))
    return posterior


shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)
# Among them 0, 1 and the smallest and largest float32 inside (0, 1).
levels = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))
MODERATE = st.floats(2**-10, 1 - 2**-10, width=32)


@st.composite
def cases(
    draw: st.DrawFn, elements: st.SearchStrategy[float] = levels, lowest: int = 0
) -> tuple[ProbArray, RegionArray]:
    shape = draw(shapes)
    prob = draw(hnp.arrays(np.float32, shape, elements=elements))
    regions = draw(hnp.arrays(np.int32, shape, elements=st.integers(lowest, 4)))
    return prob, regions


@pytest.mark.parametrize("prior", PRIORS)
@given(case=cases())
def test_it_is_the_definition(prior: Prior, case: tuple[ProbArray, RegionArray]) -> None:
    prob, regions = case
    posterior = region_posterior(prob, regions, prior)
    np.testing.assert_allclose(posterior, by_definition(*case, prior), rtol=2e-7, atol=2e-45)


@given(case=cases(lowest=1))
def test_with_the_images_prior_it_is_the_regions_mean(case: tuple[ProbArray, RegionArray]) -> None:
    prob, regions = case
    posterior = region_posterior(prob, regions, "image")
    for region in np.unique(regions):
        inside = regions == region
        mean = prob[inside].astype(np.float64).mean()
        np.testing.assert_allclose(posterior[inside], mean, rtol=2e-7, atol=2e-45)


@given(case=cases(MODERATE, lowest=1))
def test_with_the_pixels_prior_odds_are_multiplied_by_the_likelihood_ratio(
    case: tuple[ProbArray, RegionArray],
) -> None:
    prob, regions = case
    prob64 = prob.astype(np.float64)
    posterior = region_posterior(prob, regions, "pixel").astype(np.float64)
    for region in np.unique(regions):
        inside = regions == region
        ratio = (prob64[inside].sum() / prob64.sum()) / (
            (1 - prob64[inside]).sum() / (1 - prob64).sum()
        )
        odds = prob64[inside] / (1 - prob64[inside]) * ratio
        np.testing.assert_allclose(posterior[inside], odds / (1 + odds), rtol=1e-6)


@pytest.mark.parametrize("prior", PRIORS)
def test_one_region_that_holds_all_the_activation(prior: Prior) -> None:
    regions = np.array([[1, 1, 2, 2, 2]], np.int32)
    prob = np.array([[1, 1, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(region_posterior(prob, regions, prior), prob)
    # All of it lies in region 1, at half strength: P(R|M) = 1, P(R|not M) = 1 / 4.
    half = prob / np.float32(2)
    expected = {"pixel": 0.5 / (0.5 + 0.5 / 4), "image": 0.2 / (0.2 + 0.8 / 4)}[prior]
    np.testing.assert_allclose(
        region_posterior(half, regions, prior), np.array([[expected, expected, 0, 0, 0]]), rtol=1e-7
    )


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("level", [0.0, 1e-45, 1e-7, 0.1, 0.5, 1 - 2**-24, 1.0])
def test_a_uniform_map_stays_as_it_is(prior: Prior, level: float) -> None:
    """No region is likelier among manipulated pixels than among authentic ones."""
    prob = np.full((5, 7), level, np.float32)
    regions = np.random.default_rng(0).integers(0, 4, prob.shape, dtype=np.int32)
    posterior = region_posterior(prob, regions, prior)
    np.testing.assert_allclose(posterior, prob, rtol=1e-7, atol=0)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("level", [0, 1])
def test_empty_and_full_priors_stay_exactly(prior: Prior, level: int) -> None:
    prob = np.full((4, 4), level, np.float32)
    regions = np.arange(16, dtype=np.int32).reshape(4, 4)
    np.testing.assert_array_equal(region_posterior(prob, regions, prior), prob)


@given(case=cases(), region=st.just(7))
def test_one_region_over_the_whole_image_tells_nothing(
    case: tuple[ProbArray, RegionArray], region: Any
) -> None:
    prob, regions = case
    regions = np.full_like(regions, region)
    np.testing.assert_allclose(
        region_posterior(prob, regions, "pixel"), prob, rtol=2e-7, atol=1e-38
    )
    mean = np.full(prob.shape, prob.astype(np.float64).mean())
    np.testing.assert_allclose(
        region_posterior(prob, regions, "image"), mean, rtol=2e-7, atol=1e-38
    )


@pytest.mark.parametrize("prior", PRIORS)
@given(case=cases())
def test_range_type_and_pixels_of_no_region(
    prior: Prior, case: tuple[ProbArray, RegionArray]
) -> None:
    prob, regions = case
    before = prob.copy(), regions.copy()
    posterior = region_posterior(prob, regions, prior)
    assert posterior.dtype == np.float32
    assert posterior.shape == prob.shape
    assert posterior.min() >= 0
    assert posterior.max() <= 1
    np.testing.assert_array_equal(posterior[regions == 0], prob[regions == 0])
    np.testing.assert_array_equal(prob, before[0])
    np.testing.assert_array_equal(regions, before[1])
    nothing = np.zeros_like(regions)
    np.testing.assert_array_equal(region_posterior(prob, nothing, prior), prob)


@pytest.mark.parametrize("prior", PRIORS)
@given(case=cases(), numbers=st.permutations([1, 5, 2**31 - 1, 70_000]), seed=st.integers(0, 9))
def test_numbers_and_order_of_pixels_do_not_matter(
    prior: Prior, case: tuple[ProbArray, RegionArray], numbers: Any, seed: int
) -> None:
    prob, regions = case
    posterior = region_posterior(prob, regions, prior)
    renamed = np.array([0, *numbers], np.int32)[regions]
    np.testing.assert_allclose(region_posterior(prob, renamed, prior), posterior, rtol=1e-6)
    order = np.random.default_rng(seed).permutation(prob.size)
    shuffled = region_posterior(prob.ravel()[order][None], regions.ravel()[order][None], prior)
    np.testing.assert_allclose(shuffled[0], posterior.ravel()[order], rtol=1e-6)


@pytest.mark.parametrize("prior", PRIORS)
@given(case=cases(), place=st.integers(0, 35), higher=levels)
def test_monotone_in_the_regions_share(
    prior: Prior, case: tuple[ProbArray, RegionArray], place: int, higher: float
) -> None:
    """More activation in a region: its pixels do not fall, those of other regions do not rise."""
    prob, regions = case
    place %= prob.size
    changed = prob.copy()
    changed.flat[place] = max(prob.flat[place], higher)
    before = region_posterior(prob, regions, prior).astype(np.float64)
    after = region_posterior(changed, regions, prior).astype(np.float64)
    same = regions == regions.flat[place]
    if regions.flat[place]:
        assert (after[same] >= before[same] - 1e-6).all()
    others = ~same & (regions > 0)
    assert (after[others] <= before[others] + 1e-6).all()


@given(case=cases(MODERATE, lowest=1))
def test_order_inside_a_region_and_of_equal_pixels_across_regions(
    case: tuple[ProbArray, RegionArray],
) -> None:
    prob, regions = case
    posterior = region_posterior(prob, regions, "pixel")
    means = {r: prob[regions == r].astype(np.float64).mean() for r in np.unique(regions).tolist()}
    for region in means:
        inside = regions == region
        order = np.argsort(prob[inside])
        assert (np.diff(posterior[inside][order]) >= -1e-6).all()
    # A pixel rises where its region is above the image's mean and falls where it is below.
    gain = posterior - prob
    above = np.vectorize(means.get)(regions) - prob.astype(np.float64).mean()
    assert (gain[above > 1e-6] >= -1e-6).all()
    assert (gain[above < -1e-6] <= 1e-6).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_the_limits_of_float32(prior: Prior) -> None:
    tiny, almost = np.float32(2**-149), np.float32(1 - 2**-24)
    prob = np.array([[tiny, 0, almost, 1, tiny, almost]], np.float32)
    for regions in ([[1, 1, 2, 2, 3, 3]], [[1, 2, 3, 4, 5, 6]], [[1, 2, 1, 2, 1, 2]]):
        numbers = np.array(regions, np.int32)
        posterior = region_posterior(prob, numbers, prior)
        assert np.isfinite(posterior).all()
        np.testing.assert_allclose(
            posterior, by_definition(prob, numbers, prior), rtol=2e-7, atol=2e-45
        )
    small = np.full((3, 3), tiny, np.float32)
    small[0, 0] = 0
    alone = np.arange(1, 10, dtype=np.int32).reshape(3, 3)
    assert region_posterior(small, alone, prior)[0, 0] == 0


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("step", [1, 2147])
def test_a_million_regions(prior: Prior, step: int) -> None:
    """Numbers up to the limit of int32 cost memory by pixels, not by the largest number."""
    rng = np.random.default_rng(0)
    prob = rng.random((1000, 1000), dtype=np.float32)
    regions = (rng.permutation(1_000_000) * step).astype(np.int32).reshape(prob.shape)
    posterior = region_posterior(prob, regions, prior)
    if prior == "image":  # every region is one pixel, so its mean is the pixel
        np.testing.assert_allclose(posterior, prob, rtol=1e-6)
    else:  # the likelihood ratio is the pixel's own odds against the image's
        p, g = prob.astype(np.float64), prob.mean(dtype=np.float64)
        expected = p**2 * (1 - g) / (p**2 * (1 - g) + (1 - p) ** 2 * g)
        expected = np.where(regions == 0, p, expected)
        np.testing.assert_allclose(posterior, expected, rtol=1e-5)


def test_an_empty_image_is_empty() -> None:
    nothing = np.zeros((0, 5), np.float32)
    assert region_posterior(nothing, nothing.astype(np.int32)).shape == (0, 5)


GOOD = np.full((2, 3), 0.5, np.float32)
ONES = np.ones((2, 3), np.int32)


@pytest.mark.parametrize(
    ("prob", "regions", "prior", "message"),
    [
        (GOOD, ONES[:1], "pixel", "must both be"),
        (GOOD[0], ONES[0], "pixel", "must both be"),
        (GOOD * np.nan, ONES, "pixel", "nan"),
        (np.where(np.eye(2, 3) > 0, np.nan, GOOD).astype(np.float32), ONES, "image", "nan"),
        (GOOD * 3, ONES, "pixel", r"\[0, 1\]"),
        (-GOOD, ONES, "image", r"\[0, 1\]"),
        (GOOD * np.inf, ONES, "pixel", r"\[0, 1\]"),
        (GOOD, -ONES, "pixel", "negative"),
        (GOOD, ONES * 1.0, "pixel", "integers"),
        (GOOD, ONES, "uniform", "prior"),
    ],
)
def test_bad_arguments_are_refused(
    prob: npt.NDArray[np.float32],
    regions: npt.NDArray[Any],
    prior: Prior,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        region_posterior(prob, regions, prior)
