"""The pictures of one image: what they show, and that they stay within their bytes."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from boxpromptiml.records import Box
from boxpromptiml.report.panels import Views, draw_panels
from tests.helpers.report_pages import decoded, views


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


@pytest.mark.parametrize("most", [200_000, 60_000, 30_000, 16_000])
def test_panels_keep_to_their_bytes_even_for_noise(most: int) -> None:
    panels = draw_panels(noise(600, 900), side=400, most=most)
    assert sum(panel.cost for panel in panels) <= most
    assert len({decoded(panel.uri).size for panel in panels}) == 1


def test_without_a_prediction_the_others_are_shown() -> None:
    panels = draw_panels(replace(views(), prob=None))
    captions = [panel.caption for panel in panels]
    assert captions == ["Image and box", "Pseudo-mask", "Ground truth"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_as_pillow_turns_it_with_all_that_is_drawn(orientation: int) -> None:
    stored = replace(views(), boxes=(Box(5, 5, 15, 10),))  # just around the region
    photo = Image.fromarray(stored.image)
    photo.getexif()[0x0112] = orientation
    seen = stored.upright(orientation)
    np.testing.assert_array_equal(seen.image, ImageOps.exif_transpose(photo))
    assert seen.truth is not None
    y, x = np.nonzero(seen.truth)
    assert seen.boxes == ((x.min(), y.min(), x.max() + 1, y.max() + 1),)
    assert seen.prob is not None
    np.testing.assert_array_equal(seen.prob > 0, seen.truth)
    assert seen.pseudo_mask is not None
    np.testing.assert_array_equal(seen.pseudo_mask == 255, seen.truth)


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
