from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import measure

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io.files import fingerprint
from boxpromptiml.records import Box, ProbArray, RegionArray
from data_prep.cam_boxes import MapBoxes, boxes_from_map
from tests.helpers.approx import approx

EVERYTHING = MapBoxes(threshold=0.5, min_area=0, max_area=1, most=1000, always=None)

# Few levels make large components and equal values; their sums are exact.
maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.875, 1.0]),
)
any_settings = st.builds(
    MapBoxes,
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    merge=st.sampled_from([0.0, 0.2, 0.5]),
    min_area=st.sampled_from([0.0, 0.05]),
    max_area=st.sampled_from([0.3, 1.0]),
    most=st.integers(1, 4),
    expand=st.sampled_from([0.0, 0.1, 2.0]),
    always=st.sampled_from([None, 0.0, 0.5, 0.9]),
)


def blobs(*places: tuple[int, int, int, int, float], size: tuple[int, int] = (40, 60)) -> ProbArray:
    """A map of 0 with rectangles (y0, x0, y1, x1, probability)."""
    prob = np.zeros(size, np.float32)
    for y0, x0, y1, x1, level in places:
        prob[y0:y1, x0:x1] = level
    return prob


def by_scikit_image(prob: ProbArray, labels: RegionArray) -> tuple[dict[Any, float], list[float]]:
    """Boxes and mean probabilities, heaviest first."""
    parts = measure.regionprops(labels, intensity_image=prob.astype(np.float64))
    weights = [part.image_intensity.sum() for part in parts]
    heaviest = sorted(weights, reverse=True)
    found = {(p.bbox[1], p.bbox[0], p.bbox[3], p.bbox[2]): float(p.intensity_mean) for p in parts}
    return found, heaviest


@given(maps, st.sampled_from([0.0, 0.5, 0.8]))
def test_components_are_those_of_scipy_and_scikit_image(prob: Any, threshold: float) -> None:
    found = boxes_from_map(prob, replace(EVERYTHING, threshold=threshold))
    labels, count = ndimage.label(prob > threshold, structure=np.ones((3, 3)))
    expected, heaviest = by_scikit_image(prob, labels)
    assert len(found) == count
    assert {tuple(one.box): one.score for one in found} == pytest.approx(expected)
    areas = {p.bbox: p.area for p in measure.regionprops(labels)}
    weights = [s * areas[(b.y0, b.x0, b.y1, b.x1)] for b, s in found]
    assert weights == pytest.approx(heaviest)


@given(maps, st.sampled_from([0.2, 0.4, 0.9]))
def test_merged_components_are_those_of_a_dilated_mask(prob: Any, merge: float) -> None:
    found = boxes_from_map(prob, replace(EVERYTHING, merge=merge))
    radius = round(merge * max(prob.shape) / 2)
    mask = prob > 0.5
    near = ndimage.binary_dilation(mask, np.ones((2 * radius + 1, 2 * radius + 1)))
    labels, _ = ndimage.label(near, structure=np.ones((3, 3)))
    expected, _ = by_scikit_image(prob, np.where(mask, labels, 0))
    assert {tuple(one.box): one.score for one in found} == pytest.approx(expected)


@given(maps, any_settings)
def test_boxes_lie_inside_the_image_and_scores_in_the_unit_range(prob: Any, settings: Any) -> None:
    before = prob.copy()
    found = boxes_from_map(prob, settings)
    height, width = prob.shape
    assert len(found) <= settings.most
    for (x0, y0, x1, y1), score in found:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert 0 < score <= 1
        assert type(x0) is type(score) is float
        assert prob[geometry.pixel_slices(Box(x0, y0, x1, y1), prob.shape)].max() >= score
    np.testing.assert_array_equal(prob, before)
    assert boxes_from_map(prob, settings) == found


@given(maps, any_settings)
def test_a_larger_fraction_contains_the_tight_boxes(prob: Any, settings: Any) -> None:
    tight = boxes_from_map(prob, replace(settings, expand=0))
    grown = boxes_from_map(prob, replace(settings, expand=0.5))
    assert [one.score for one in tight] == [one.score for one in grown]
    for (a, _), (b, _) in zip(tight, grown, strict=True):
        assert b.x0 <= a.x0
        assert b.y0 <= a.y0
        assert b.x1 >= a.x1
        assert b.y1 >= a.y1


@given(maps, any_settings, st.integers(0, 7))
def test_a_turned_map_gives_turned_boxes(prob: Any, settings: Any, turn: int) -> None:
    settings = replace(settings, most=1000, expand=0)  # equal ones would be cut arbitrarily
    turned, mirrored = turn % 4, turn >= 4

    def turn_back(box: Box) -> Box | None:
        mask = geometry.union_mask(geometry.as_array([box]), moved.shape)
        mask = mask[:, ::-1] if mirrored else mask
        return geometry.from_mask(np.rot90(mask, -turned))

    moved = np.rot90(prob, turned)
    moved = moved[:, ::-1] if mirrored else moved
    found = {(turn_back(box), score) for box, score in boxes_from_map(moved, settings)}
    assert found == set(boxes_from_map(prob, settings))


def test_the_size_filter_counts_pixels_as_a_share_of_the_image() -> None:
    prob = blobs((0, 0, 2, 2, 0.9), (10, 10, 20, 22, 0.8), (22, 0, 40, 60, 0.6))
    assert len(boxes_from_map(prob, EVERYTHING)) == 3
    settings = replace(EVERYTHING, min_area=5 / 2400, max_area=1000 / 2400)
    assert boxes_from_map(prob, settings) == [(Box(10, 10, 22, 20), approx(0.8))]
    ring = blobs((0, 0, 40, 60, 0.9), (2, 2, 38, 58, 0.0))
    assert len(boxes_from_map(ring, settings)) == 1  # its box is the whole image, its pixels few


def test_the_most_boxes_are_those_of_the_highest_score_times_area() -> None:
    prob = blobs((0, 0, 5, 5, 1.0), (10, 10, 20, 20, 0.7), (30, 30, 36, 38, 0.9))
    found = boxes_from_map(prob, replace(EVERYTHING, most=2))
    assert [one.box for one in found] == [Box(10, 10, 20, 20), Box(30, 30, 38, 36)]


def test_diagonal_neighbours_are_one_component() -> None:
    prob = np.eye(6, dtype=np.float32)
    assert boxes_from_map(prob, EVERYTHING) == [(Box(0, 0, 6, 6), 1.0)]
    assert len(boxes_from_map(prob[:, ::2], EVERYTHING)) == 3


@pytest.mark.parametrize("gap", [5, 6, 7, 8])
def test_components_are_merged_up_to_a_distance(gap: int) -> None:
    prob = blobs((5, 5, 9, 10, 0.9), (5, 10 + gap, 9, 20 + gap, 0.6))
    found = boxes_from_map(prob, replace(EVERYTHING, merge=0.1))  # 6 of 60 pixels
    assert len(found) == (1 if gap <= 6 else 2)
    if gap <= 6:
        assert found == [(Box(5, 5, 20 + gap, 9), approx(0.7))]  # gaps do not count


ALWAYS = MapBoxes(threshold=0.5, min_area=0.1, max_area=0.5, always=0.5)


def test_always_takes_what_is_around_the_highest_probability() -> None:
    prob = blobs((5, 5, 15, 15, 0.3), (8, 8, 9, 9, 0.4), (25, 30, 35, 50, 0.25))
    assert boxes_from_map(prob, replace(ALWAYS, always=None)) == []
    mean = (99 * 0.3 + 0.4) / 100
    assert boxes_from_map(prob, ALWAYS) == [(Box(5, 5, 15, 15), approx(mean))]
    assert boxes_from_map(prob, replace(ALWAYS, always=0.9)) == [(Box(8, 8, 9, 9), approx(0.4))]
    passes = blobs((5, 5, 25, 25, 0.6), (30, 30, 35, 35, 0.9))
    assert [one.box for one in boxes_from_map(passes, ALWAYS)] == [Box(5, 5, 25, 25)]


def test_always_looks_higher_where_nearly_everything_is_above_the_threshold() -> None:
    rows, columns = np.mgrid[:40, :60]
    prob = (0.95 - 0.3 * np.hypot((rows - 12) / 40, (columns - 20) / 60)).astype(np.float32)
    assert (prob > 0.5).all()
    ((box, score),) = boxes_from_map(prob, ALWAYS)
    assert box.x0 <= 20 < box.x1
    assert box.y0 <= 12 < box.y1
    assert score > prob.mean()
    inside = prob[geometry.pixel_slices(box, prob.shape)]
    assert (inside > np.median(prob)).sum() <= 0.5 * prob.size


@pytest.mark.parametrize(("max_area", "pixels"), [(0.1, 1), (0.35, 3), (0.4, 4), (1.0, 9)])
def test_always_never_takes_more_than_the_largest_area(max_area: float, pixels: int) -> None:
    ramp = np.linspace(0.01, 0.1, 10, dtype=np.float32)[None]
    settings = MapBoxes(min_area=0, max_area=max_area, always=0)
    ((box, _),) = boxes_from_map(ramp, settings)
    assert box == Box(10 - pixels, 0, 10, 1)


@given(maps, st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_always_gives_a_box_unless_the_map_cannot_tell(prob: Any, max_area: float) -> None:
    settings = MapBoxes(threshold=0.99, min_area=0.9 * max_area, max_area=max_area, always=0.5)
    found = boxes_from_map(prob, settings)
    at_the_top = np.count_nonzero(prob == prob.max())
    if prob.min() < prob.max() and at_the_top <= int(max_area * prob.size):
        assert found
        assert any(
            prob[geometry.pixel_slices(one.box, prob.shape)].max() == prob.max() for one in found
        )
    if prob.min() == prob.max() < 1:
        assert found == []


@pytest.mark.parametrize("level", [0.0, 0.2, 0.7, 1.0])
def test_a_flat_map_has_no_box(level: float) -> None:
    prob = np.full((30, 30), level, np.float32)
    assert boxes_from_map(prob, ALWAYS) == []


def test_the_threshold_is_strict() -> None:
    prob = blobs((5, 5, 15, 15, 0.5))
    assert boxes_from_map(prob, EVERYTHING) == []
    assert len(boxes_from_map(np.nextafter(prob, np.float32(1)) * (prob > 0), EVERYTHING)) == 1


def test_many_specks_are_no_burden() -> None:
    prob = np.zeros((1000, 1000), np.float32)
    prob[::2, ::2] = np.random.default_rng(0).random((500, 500), dtype=np.float32)
    found = boxes_from_map(prob, replace(EVERYTHING, most=5))
    assert [one.score for one in found] == sorted(prob.ravel())[:-6:-1]


def test_every_setting_is_in_the_settings() -> None:
    base = MapBoxes()
    other = MapBoxes(0.4, 0.1, 0.01, 0.7, 2, 0.1, None)
    hashes = {fingerprint(base.settings)}
    for name in base.settings["settings"].keys() - {"version"}:
        changed = replace(base, **{name: getattr(other, name)})
        hashes.add(fingerprint(changed.settings))
    assert len(hashes) == 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"merge": -0.1},
        {"merge": 1.0},
        {"min_area": -0.1},
        {"min_area": 0.9},
        {"max_area": 1.1},
        {"min_area": 0.0, "max_area": 0.0},
        {"most": 0},
        {"expand": -0.1},
        {"expand": float("inf")},
        {"always": 1.0},
        {"always": -0.5},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        MapBoxes(**wrong)


@pytest.mark.parametrize(
    "prob", [np.zeros((0, 4)), np.zeros(5), np.full((3, 3), np.nan), np.full((3, 3), 1.5)]
)
def test_what_is_no_probability_map_is_refused(prob: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="prob must be"):
        boxes_from_map(prob.astype(np.float32), MapBoxes())
