"""Which images a gallery shows, and in which order."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from boxpromptiml.report.gallery import GalleryImage, make_gallery
from boxpromptiml.report.panels import Panel


def entries(count: int, authentic: int = 0) -> list[GalleryImage]:
    forged = [GalleryImage(f"m{n}", "k", True, n / count, 0.0, 0.1) for n in range(count)]
    return forged + [
        GalleryImage(f"a{n}", "", False, math.nan, math.nan, n / 1000) for n in range(authentic)
    ]


def draw(entry: GalleryImage, side: int, most: int) -> tuple[Panel, ...]:
    return (Panel("Image", f"{side} {most}"),)


def test_all_are_shown_where_there_is_room() -> None:
    found = make_gallery(entries(90, 10), draw, limit=100)
    assert len(found.shown) == 90
    assert [row.id for row in found.shown_authentic] == [f"a{n}" for n in range(9, 0, -1)]
    assert (found.false_positives, found.authentic, found.manipulated) == (9, 10, 90)


def test_worst_best_and_a_seeded_sample_of_many_are_shown_and_said() -> None:
    found = make_gallery(entries(1000, 500), draw, limit=100)
    ids = [row.id for row in found.shown]
    assert len(found.shown) == 90
    assert len(found.shown_authentic) == 10
    assert ids[:45] == [f"m{n}" for n in range(45)]
    assert ids[-22:] == [f"m{n}" for n in range(978, 1000)]
    scores = [row.f1 for row in found.shown]
    assert scores == sorted(scores)
    assert len(set(ids)) == 90
    assert (found.worst, found.best, found.manipulated) == (45, 22, 1000)
    assert (found.false_positives, found.authentic) == (499, 500)
    again = make_gallery(entries(1000, 500)[::-1], draw, limit=100)
    assert [row.id for row in again.shown] == ids
    other = make_gallery(entries(1000, 500), draw, limit=100, seed=1)
    assert [row.id for row in other.shown][45:68] != ids[45:68]


def test_scores_and_histogram_count_all_images_not_the_shown() -> None:
    found = make_gallery(entries(1000), draw, limit=100)
    assert len(found.f1) == 1000
    assert sum(count for _, _, count, _ in found.histogram) == 1000
    assert all(99 <= count <= 101 for _, _, count, _ in found.histogram)
    assert max(percent for *_, percent in found.histogram) == 100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(4, 50))
def test_never_more_rows_than_the_limit_and_places_are_permutations(
    manipulated: int, authentic: int, limit: int
) -> None:
    found = make_gallery(entries(max(manipulated, 1), authentic), draw, limit=limit)
    assert len(found.shown) + len(found.shown_authentic) <= limit
    count = len(found.shown)
    assert found.place_by_name.keys() == {image.id for image in found.shown}
    assert sorted(found.place_by_name.values()) == list(range(count))
    assert found.worst + found.best <= count


def test_images_without_a_score_come_last_and_count_nowhere() -> None:
    odd = GalleryImage("odd", "k", True, math.nan, math.nan, 0.0)
    found = make_gallery([odd, *entries(3)], draw)
    assert found.shown[-1].id == "odd"
    assert (len(found.f1), found.manipulated) == (3, 4)


def test_large_galleries_have_smaller_pictures_and_bytes_for_thirty_megabytes() -> None:
    few, many = (make_gallery(entries(count), draw, limit=1000) for count in (10, 2000))
    side, _ = few.shown[0].panels[0].alt.split()
    assert side == "400"
    side, most = many.shown[0].panels[0].alt.split()
    assert side == "320"
    assert int(most) * 1000 < 29e6
