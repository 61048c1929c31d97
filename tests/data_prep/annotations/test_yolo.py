from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from data_prep.annotations import yolo
from tests.helpers.annotation_files import (
    boxes_in,
    check,
    fuzzed,
    words,
)
from tests.helpers.approx import approx


@pytest.mark.parametrize(
    "line", ["0 .5 .5 .2", "0 .5 .5 -.1 .1", "0 nan .5 .1 .1", "0 a b c d", "0", "0 1.2 .5 .1 .1"]
)
def test_one_bad_line_of_yolo_does_not_lose_the_rest(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(f"0 0.5 0.5 0.5 0.5\n\n{line}\n1 0.5 0.5 0.5 0.5 0.9\n")
    boxes, rejected = boxes_in(yolo, tmp_path / "x.txt")
    assert boxes == {"x": ((30, 20, 90, 60),) * 2}
    assert [error.path for error in rejected] == [f"{tmp_path / 'x.txt'}#3"]


def test_yolo_polygons_and_lists_of_names(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("0 0.1 0.1 0.5 0.2 0.3 0.9\n")
    assert boxes_in(yolo, tmp_path / "x.txt")[0] == {"x": (approx((12, 8, 60, 72)),)}
    (tmp_path / "classes.txt").write_text("forged\nauthentic\n")
    (tmp_path / "train.txt").write_text("images/1.jpg\n")
    (tmp_path / "test.txt").write_text("0 0.5 0.5 0.5 0.5\n")  # an image of this name
    assert boxes_in(yolo, tmp_path / "classes.txt") == ({}, [])
    assert boxes_in(yolo, tmp_path / "train.txt") == ({}, [])
    assert boxes_in(yolo, tmp_path / "test.txt")[0].keys() == {"test"}


yolo_files = st.lists(st.lists(words, max_size=9).map(" ".join), max_size=5).map("\n".join)


@fuzzed
@given(text=yolo_files)
def test_fuzzed_yolo(scratch: Path, text: str) -> None:
    check(yolo, scratch, text.encode(errors="replace"))


TRACK, TRIANGLE = "0 0.5 0.5 0.2 0.2 0.91 7\n", "0 0.1 0.1 0.5 0.2 0.3 0.9\n"


def test_tracks_are_not_taken_for_triangles_without_being_told(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text(TRACK + "0 0.5 0.5 0.2 0.2\n" + TRACK)
    with pytest.raises(UserError, match="--yolo polygons or tracks"):
        yolo.read(path)
    box = (0.4, 0.4, 0.6, 0.6)
    shapes = yolo.read(path, lines="tracks").images[0].shapes
    assert [shape.corners for shape in shapes] == [pytest.approx(box)] * 3
    found = yolo.read(path, lines="polygons").images[0]
    assert len(found.shapes) == 1
    assert ["7 is no corner" in str(error) for error in found.rejected] == [True, True]


def test_poses_are_not_taken_for_polygons(tmp_path: Path) -> None:
    """Class, box, and key points x y visibility, of which 2 is visible."""
    path = tmp_path / "x.txt"
    path.write_text("0 0.5 0.5 0.2 0.2 0.45 0.45 2 0.55 0.55 2\n0 0.1 0.1 -0.05 0.2 1.05 0.9\n")
    found = yolo.read(path).images[0]
    assert [shape.place for shape in found.shapes] == [f"{path}#2"]
    assert "2 is no corner" in found.rejected[0].message


def test_one_triangle_among_them_says_that_all_are(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("0 0.1 0.1 0.5 0.2 0 1\n" + TRIANGLE)
    assert len(yolo.read(tmp_path / "x.txt").images[0].shapes) == 2


@pytest.mark.parametrize("name", ["Train.txt", "README.roboflow.txt"])
def test_lists_and_guides_of_an_export_are_passed_over(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("data/obj_Train_data/a.jpg\n")
    assert yolo.read(tmp_path / name) == ([], [])
