import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from boxpromptiml.io.orientation import stored_box, upright_box, upright_image, upright_size
from boxpromptiml.records import Box, ImageArray

ORIENTATIONS = range(1, 9)


def turned_by_pillow(stored: ImageArray, orientation: int) -> ImageArray:
    picture = Image.fromarray(stored)
    picture.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_upright_picture_is_pillows(orientation: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = turned_by_pillow(stored, orientation)
    np.testing.assert_array_equal(upright_image(stored, orientation), expected)
    assert upright_size((20, 30), orientation) == expected.shape[:2]
    assert upright_size(upright_size((20, 30), orientation), orientation) == (20, 30)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@given(
    x=st.integers(0, 20), y=st.integers(0, 12), width=st.integers(1, 9), height=st.integers(1, 7)
)
def test_boxes_cover_the_same_pixels_in_both(
    orientation: int, x: int, y: int, width: int, height: int
) -> None:
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[y : y + height, x : x + width] = 255
    rows, columns, _ = np.nonzero(turned_by_pillow(stored, orientation))
    seen = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    box = Box(x, y, x + width, y + height)
    assert upright_box(box, (20, 30), orientation) == seen
    assert stored_box(seen, (20, 30), orientation) == box
