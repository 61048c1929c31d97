"""Which images a gallery shows, and that its pictures stay within their bytes."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.records import Box
from boxpromptiml.report.gallery import Entry, make_gallery
from boxpromptiml.report.panels import Panel, Views, draw_panels
from tests.helpers.report_pages import decoded, views


def entries(count: int, authentic: int = 0) -> list[Entry]:
    forged = [Entry(f"m{n}", "k", True, n / count, 0.0, 0.1) for n in range(count)]
    return forged + [
        Entry(f"a{n}", "", False, math.nan, math.nan, n / 1000) for n in range(authentic)
    ]


def draw(entry: Entry, side: int, most: int) -> tuple[Panel, ...]:
    return (Panel("Image", f"{side} {most}"),)


def noise(height: int, width: int) -> Views:
    """The hardest to compress: noise everywhere."""
    rng = np.random.default_rng(0)
    truth = rng.random((height, width)) > 0.5
    return Views(
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        boxes=(Box(1, 1, 9, 9),),
        pseudo_mask=np.where(truth, np.uint8(255), np.uint8(127)),
        prob=rng.random((height, width), dtype=np.float32),
        truth=truth,
    )


def test_all_are_shown_where_there_is_room() -> None:
    found = make_gallery(entries(90, 10), draw, limit=100)
    assert len(found.rows) == 90
    assert found.choice == ""
    assert [row.entry.id for row in found.alarms] == [f"a{n}" for n in range(9, 0, -1)]
    assert found.alarm_choice == "9 of the 10 authentic images have falsely flagged pixels."


def test_worst_best_and_a_seeded_sample_of_many_are_shown_and_said() -> None:
    found = make_gallery(entries(1000, 500), draw, limit=100)
    ids = [row.entry.id for row in found.rows]
    assert len(found.rows) == 90
    assert len(found.alarms) == 10
    assert ids[:45] == [f"m{n}" for n in range(45)]
    assert ids[-22:] == [f"m{n}" for n in range(978, 1000)]
    scores = [row.entry.f1 for row in found.rows]
    assert scores == sorted(scores)
    assert len(set(ids)) == 90
    assert found.choice == (
        "90 of the 1,000 manipulated images are shown: the 45 with the lowest F1, the 22 with the "
        "highest, and 23 of the others, drawn at random (seed 0)."
    )
    assert "499 of the 500 authentic images" in found.alarm_choice
    assert "the 10 with most of them are shown" in found.alarm_choice
    again = make_gallery(entries(1000, 500)[::-1], draw, limit=100)
    assert [row.entry.id for row in again.rows] == ids
    other = make_gallery(entries(1000, 500), draw, limit=100, seed=1)
    assert [row.entry.id for row in other.rows][45:68] != ids[45:68]


def test_sentences_and_spread_count_all_images_not_the_shown() -> None:
    found = make_gallery(entries(1000), draw, limit=100)
    assert found.failures.startswith("500 of the 1,000 manipulated images have an F1 below 0.5")
    assert "in 1 of them not one flagged pixel is right" in found.failures
    assert sum(count for _, _, count, _ in found.spread) == 1000
    assert all(99 <= count <= 101 for _, _, count, _ in found.spread)
    assert max(percent for *_, percent in found.spread) == 100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(4, 50))
def test_never_more_rows_than_the_limit_and_places_are_permutations(
    manipulated: int, authentic: int, limit: int
) -> None:
    found = make_gallery(entries(max(manipulated, 1), authentic), draw, limit=limit)
    assert len(found.rows) + len(found.alarms) <= limit
    count = len(found.rows)
    assert sorted(row.best for row in found.rows) == list(range(1, count + 1))
    assert sorted(row.name for row in found.rows) == list(range(count))
    assert sum(kind.images for kind in found.kinds) == count


def test_images_without_a_score_come_last_and_count_nowhere() -> None:
    odd = Entry("odd", "k", True, math.nan, math.nan, 0.0)
    found = make_gallery([odd, *entries(3)], draw)
    assert found.rows[-1].entry.id == "odd"
    assert "of the 3 manipulated images" in found.failures


def test_large_galleries_have_smaller_pictures_and_bytes_for_thirty_megabytes() -> None:
    few, many = (make_gallery(entries(count), draw, limit=1000) for count in (10, 2000))
    side, _ = few.rows[0].panels[0].alt.split()
    assert side == "400"
    side, most = many.rows[0].panels[0].alt.split()
    assert side == "320"
    assert int(most) * 1000 < 29e6


@pytest.mark.parametrize("most", [200_000, 60_000, 30_000, 16_000])
def test_panels_keep_to_their_bytes_even_for_noise(most: int) -> None:
    panels = draw_panels(noise(600, 900), side=400, most=most)
    assert sum(panel.cost for panel in panels) <= most
    assert len({decoded(panel.uri).size for panel in panels}) == 1


def test_without_a_prediction_the_others_are_shown() -> None:
    panels = draw_panels(replace(views(), prob=None))
    captions = [panel.caption for panel in panels]
    assert captions == ["Image and box", "Pseudo-mask", "Ground truth"]


def test_tiny_budget_ends() -> None:
    panels = draw_panels(noise(300, 300), side=400, most=10)
    assert {max(panel.width, panel.height) for panel in panels} == {64}


def test_four_pictures_with_words_for_each() -> None:
    panels = draw_panels(views())
    assert [panel.caption for panel in panels] == [
        "Image and box",
        "Pseudo-mask",
        "Prediction",
        "Ground truth",
    ]
    assert [panel.alt for panel in panels] == [
        "The image with 1 coarse box",
        "Pseudo-mask: 8.3% of the pixels manipulated, 5.0% unsure",
        "Heat map of the prediction, highest probability 0.75",
        "Ground truth: 8.3% of the pixels are manipulated",
    ]


def test_photos_are_jpeg_and_masks_exact_png_at_the_size_they_declare() -> None:
    panels = draw_panels(views(size=(300, 1000)))
    files = [decoded(panel.uri) for panel in panels]
    assert [file.format for file in files] == ["JPEG", "PNG", "JPEG", "PNG"]
    assert {file.size for file in files} == {(400, 120)}
    assert {(panel.width, panel.height) for panel in panels} == {(400, 120)}
    small = [decoded(panel.uri) for panel in draw_panels(views())]
    assert small[0].size == (30, 20)
    truth = np.asarray(small[3])
    assert (truth == 255).sum() == 50
    assert (truth == 0).sum() == 550


def test_boxes_and_outline_are_lines_at_the_scale_of_the_thumbnail() -> None:
    photo, _, prediction, _ = draw_panels(views(size=(40, 800)), side=400)
    assert 'x="2.0" y="2.0" width="6.0" height="3.5"' in photo.lines
    assert photo.lines.count("<rect") == 2
    numbers = [float(n) for n in prediction.lines.replace("L", " ").split('"')[3][1:-1].split()]
    assert max(numbers[::2]) <= 8
    assert max(numbers[1::2]) <= 5.5
    assert min(numbers) >= 2


def test_region_of_one_pixel_in_a_large_image_has_an_outline() -> None:
    truth = np.zeros((2000, 3000), bool)
    truth[1999, 2999] = True
    seen = Views(np.zeros((2000, 3000, 3), np.uint8), (), None, truth.astype(np.float32), truth)
    image, prediction, _ = draw_panels(seen)
    assert 'd="M399.5 266.5Z"' in prediction.lines
    assert "highest probability 1.00" in prediction.alt
    assert image.caption == "Image"
    assert image.lines == ""


def test_authentic_image_has_two_pictures_and_no_outline() -> None:
    seen = views()
    panels = draw_panels(Views(seen.image, (), None, seen.prob, None))
    assert [panel.caption for panel in panels] == ["Image", "Prediction"]
    assert not any(panel.lines for panel in panels)
