import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Box
from data_prep.annotations import AnnotatedImage, Shape
from data_prep.annotations.fitting import View, fit_boxes
from tests.helpers.approx import approx

SIZE = (80, 120)  # (H, W)


def annotated(
    *boxes: tuple[float, float, float, float], size: tuple[float, float] | None = SIZE
) -> AnnotatedImage:
    shapes = [Shape(f"f#{number}", "f", box) for number, box in enumerate(boxes)]
    return AnnotatedImage("f", "x.jpg", size, shapes, [])


@pytest.mark.parametrize(
    ("drawn", "fitted", "clipped"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), 0),
        ((-1.5, 0, 5, 5), (0, 0, 5, 5), 0),  # two pixels are nobody's fault
        ((-3, 1, 3, 5), (0, 1, 3, 5), 1),
        ((100, 60, 150, 90), (100, 60, 120, 80), 1),
    ],
)
def test_a_box_that_leaves_the_image_is_cut_to_it_and_counted(
    drawn: tuple[float, float, float, float], fitted: tuple[float, ...], clipped: int
) -> None:
    found = fit_boxes(annotated(drawn), "x.jpg", SIZE)
    assert found == ((Box(*fitted),), [], clipped)


def test_a_box_outside_is_rejected() -> None:
    found = fit_boxes(annotated((130, 1, 150, 5), (1, 1, 5, 5)), "x.jpg", SIZE)
    assert found.boxes == (Box(1, 1, 5, 5),)
    assert [error.path for error in found.rejected] == ["f#0"]


@pytest.mark.parametrize("fractions", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
@given(
    x=st.integers(0, 20), y=st.integers(0, 12), width=st.integers(1, 9), height=st.integers(1, 7)
)
def test_boxes_drawn_on_the_upright_picture_cover_the_same_pixels(
    orientation: int, fractions: bool, x: int, y: int, width: int, height: int
) -> None:
    """The picture is turned by Pillow, as viewers do."""
    stored = np.zeros((20, 30), np.uint8)
    stored[y : y + height, x : x + width] = 255
    picture = Image.fromarray(stored)
    picture.getexif()[274] = orientation
    upright = np.asarray(ImageOps.exif_transpose(picture))
    rows, columns = np.nonzero(upright)
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    size: tuple[float, float] | None = (upright.shape[0], upright.shape[1])
    if fractions:
        drawn = tuple(np.array(drawn) / (upright.shape[::-1] * 2))
        size = None
    found = fit_boxes(annotated(drawn, size=size), "x", (20, 30), orientation, "upright")
    assert found.boxes == (approx((x, y, x + width, y + height)),)


def test_the_stored_view_changes_nothing() -> None:
    found = fit_boxes(annotated((1, 2, 3, 4)), "x", SIZE, 6, "stored")
    assert found.boxes == (Box(1, 2, 3, 4),)


@pytest.mark.parametrize("size", [SIZE, SIZE[::-1], None])
def test_without_a_view_boxes_of_a_turned_image_are_rejected_whatever_the_sizes_say(
    size: tuple[int, int] | None,
) -> None:
    with pytest.raises(RejectedInput, match=r"EXIF orientation 6.*--view upright") as caught:
        fit_boxes(annotated((0.1, 0.2, 0.3, 0.4), size=size), "x", SIZE, 6)
    assert caught.value.reason == "orientation"
    assert fit_boxes(annotated(size=size or SIZE), "x", SIZE if size != SIZE[::-1] else size, 6)


@pytest.mark.parametrize(
    ("size", "orientation", "view"),
    [(SIZE[::-1], 1, None), (SIZE, 6, "upright"), (SIZE[::-1], 6, "stored"), ((81, 120), 1, None)],
)
def test_another_size_is_rejected(
    size: tuple[int, int], orientation: int, view: View | None
) -> None:
    with pytest.raises(RejectedInput, match="resized copy") as caught:
        fit_boxes(annotated((1, 2, 3, 4), size=size), "x", SIZE, orientation, view)
    assert caught.value.reason == "size_mismatch"
