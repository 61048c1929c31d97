import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.records import MaskArray
from boxpromptiml.synth.boxes import ANNOTATORS, Annotator, AnnotatorName, draw

EXACT = Annotator(0.0, 0.0, 0.0, 0.0, 0.0)


def _mask(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> MaskArray:
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("tight", 0, 0.02), ("7-second", -0.02, 0.15), ("sloppy", -0.1, 0.4)],
)
def test_looseness_is_uniform_between_the_presets_ends(
    preset: AnnotatorName, low: float, high: float
) -> None:
    mask = _mask((100, 200), (50, 40, 150, 65))
    loose = []
    for seed in range(300):
        (box,) = draw(mask, ANNOTATORS[preset], np.random.default_rng(seed))
        loose += [(50 - box.x0) / 100, (40 - box.y0) / 25, (box.x1 - 150) / 100, (box.y1 - 65) / 25]
    assert min(loose) >= low - 3e-4
    assert max(loose) <= high + 3e-4
    if low > -0.05:  # a box that would cut a tenth of the region is drawn anew, without cuts
        quarters = np.quantile(loose, [0.05, 0.25, 0.5, 0.75, 0.95])
        expected = low + (high - low) * np.array([0.05, 0.25, 0.5, 0.75, 0.95])
        assert quarters == pytest.approx(expected, abs=0.05 * (high - low))


def test_seven_seconds_are_looser_than_tight_and_tighter_than_sloppy() -> None:
    mask = _mask((200, 300), (100, 50, 200, 150))
    areas = []
    names: tuple[AnnotatorName, ...] = ("tight", "7-second", "sloppy")
    for name in names:
        drawn = [draw(mask, ANNOTATORS[name], np.random.default_rng(s))[0] for s in range(50)]
        areas.append(np.mean([(b.x1 - b.x0) * (b.y1 - b.y0) for b in drawn]) / 100**2)
    assert areas == pytest.approx([1.02**2, 1.13**2, 1.3**2], abs=0.06)  # 1 + twice the mean


@pytest.mark.parametrize(("gap", "count"), [(0, 1), (1, 1), (4, 1), (5, 2)])
def test_regions_within_the_merging_distance_share_a_box(gap: int, count: int) -> None:
    mask = _mask((100, 200), (10, 10, 30, 30), (30 + gap, 10, 50 + gap, 30))
    drawn = draw(mask, Annotator(0, 0, 0.02, 0, 0), np.random.default_rng(0))
    assert len(drawn) == count
    assert drawn[-1].x1 == 50 + gap


def test_a_diagonal_gap_counts_as_its_longer_side() -> None:
    mask = _mask((100, 200), (10, 10, 30, 30), (33, 34, 50, 50))
    for merge, count in ((0.015, 2), (0.02, 1)):
        assert len(draw(mask, Annotator(0, 0, merge, 0, 0), np.random.default_rng(0))) == count


def test_one_box_an_image() -> None:
    mask = _mask((100, 200), (10, 20, 30, 40), (150, 60, 190, 90))
    annotator = Annotator(0, 0, 0, 0, 0, per_image=True)
    assert draw(mask, annotator, np.random.default_rng(0)) == ((10, 20, 190, 90),)


def test_small_regions_are_missed_as_often_as_asked_and_the_largest_never() -> None:
    small = [(10 * i, 10, 10 * i + 4, 14) for i in range(1, 18)]
    mask = _mask((100, 200), *small, (20, 40, 80, 80))
    annotator = Annotator(0, 0, 0, 0.01, 0.5)
    counts = [len(draw(mask, annotator, np.random.default_rng(seed))) for seed in range(60)]
    assert np.mean(counts) == pytest.approx(1 + 17 / 2, abs=1)
    always = Annotator(0, 0, 0, 1.0, 1.0)
    assert draw(mask, always, np.random.default_rng(0)) == ((20, 40, 80, 80),)
    assert draw(_mask((100, 200), *small[:1]), ANNOTATORS["7-second"], np.random.default_rng(0))


def test_a_box_never_loses_more_than_a_tenth_of_its_region() -> None:
    mask = _mask((400, 600), (100, 100, 300, 300))
    for seed in range(100):
        (box,) = draw(mask, Annotator(0.0, 0.4, 0, 0, 0), np.random.default_rng(seed))
        assert mask[geometry.pixel_slices(box, mask.shape)].sum() >= 0.9 * mask.sum()


@settings(max_examples=50)
@given(
    boxes=st.lists(
        st.tuples(*[st.integers(0, 19)] * 4).map(lambda b: (b[0], b[1], b[0] + 1, b[1] + 1)),
        min_size=1,
        max_size=8,
    ),
    name=st.sampled_from(sorted(ANNOTATORS)),
    seed=st.integers(0, 2**32),
)
def test_boxes_lie_in_the_image_and_are_not_empty(
    boxes: list[tuple[int, int, int, int]], name: AnnotatorName, seed: int
) -> None:
    mask = _mask((20, 20), *boxes)
    drawn = draw(mask, ANNOTATORS[name], np.random.default_rng(seed))
    assert drawn
    for box in drawn:
        assert 0 <= box.x0 < box.x1 <= 20
        assert 0 <= box.y0 < box.y1 <= 20
    exact = draw(mask, EXACT, np.random.default_rng(seed))
    assert np.array_equal(geometry.union_mask(geometry.as_array(exact), mask.shape) & mask, mask)


def test_settings_out_of_range_are_errors() -> None:
    for bad in ({"looseness": -1}, {"tightness": 0.5}, {"merge": float("nan")}):
        with pytest.raises(UserError, match=next(iter(bad))):
            Annotator(
                **{"looseness": 0, "tightness": 0, "merge": 0} | bad,
                overlook_area=0,
                overlook_chance=0,
            )


def test_a_frame_is_never_cut_off() -> None:
    frame = _mask((120, 120), (5, 5, 115, 115))
    frame[6:114, 6:114] = False
    for seed in range(50):
        (box,) = draw(frame, Annotator(0, 0.02, 0, 0, 0), np.random.default_rng(seed))
        assert frame[geometry.pixel_slices(box, frame.shape)].sum() >= 0.9 * frame.sum()


def test_an_empty_mask_has_no_boxes_to_draw() -> None:
    with pytest.raises(ValueError, match="empty"):
        draw(_mask((9, 9)), EXACT, np.random.default_rng(0))
