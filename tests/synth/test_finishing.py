from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.exposure import adjust_gamma

from boxpromptiml.io.images import decode_image
from boxpromptiml.synth.degradation import jpeg
from boxpromptiml.synth.finishing import Finish, framed, saved_before, sharpened
from boxpromptiml.synth.variety import DEFAULT_VARIETY
from tests.helpers.pictures import picture

PLAIN = Finish(resize=None, gamma=None, blur=None, sharpen=None, qualities=(), shift=(0, 0))
SIZES = st.tuples(st.integers(180, 420), st.integers(180, 420))


@given(SIZES, st.integers(0, 2**32 - 1))
def test_a_frame_keeps_its_longer_side_within_the_limits(size: tuple[int, int], seed: int) -> None:
    variety = replace(DEFAULT_VARIETY, sides=(256, 400), crop=(0.5, 0.3, 1), rescale=(0.5, 0.3, 3))
    frame = framed(picture(size, 0), variety, np.random.default_rng(seed))
    assert min(256, *[max(size)]) <= max(frame.shape) <= 400


def test_without_crop_and_resizing_a_frame_is_the_photograph() -> None:
    variety = replace(DEFAULT_VARIETY, crop=(0, 0.5, 1), rescale=(0, 1, 1))
    image = picture((200, 300), 0)
    assert framed(image, variety, np.random.default_rng(0)) is image


@pytest.mark.parametrize(
    ("times", "fractions"), [(0, (1.0, 0.0, 0.0)), (1, (0.0, 1.0, 0.0)), (2, (0.0, 0.0, 1.0))]
)
def test_a_host_is_saved_as_often_as_was_drawn(
    times: int, fractions: tuple[float, float, float]
) -> None:
    variety = replace(DEFAULT_VARIETY, host_saves=fractions, host_quality=(50, 60))
    image = picture((96, 96), 0)
    saved, qualities = saved_before(image, variety, np.random.default_rng(3))
    assert len(qualities) == times
    assert all(50 <= quality <= 60 for quality in qualities)
    if times == 1:
        np.testing.assert_array_equal(saved, jpeg(image, qualities[0]))
    assert saved.shape == image.shape or times == 2


def test_the_second_grid_is_shifted_half_the_time() -> None:
    variety = replace(DEFAULT_VARIETY, host_saves=(0, 0, 1))
    sizes = {
        saved_before(picture((64, 64), 0), variety, np.random.default_rng(seed))[0].shape[:2]
        for seed in range(60)
    }
    assert len(sizes) > 15
    assert {side for size in sizes for side in size} <= set(range(57, 65))


def test_a_mask_follows_its_image() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[20:60, 30:90] = 255
    finish = replace(PLAIN, resize=0.5, shift=(3, 5), qualities=(95, 95))
    forged = decode_image(finish.file(image), "")[0]
    mask = finish.mask(image[..., 0] > 0)
    assert forged.shape[:2] == mask.shape == (47, 55)
    np.testing.assert_array_equal(forged[..., 0] > 127, mask)


def test_a_lossless_finish_is_a_png_of_the_edited_pixels() -> None:
    image = picture((40, 60), 0)
    data = replace(PLAIN, gamma=1.2).file(image)
    pixels, info = decode_image(data, "")
    assert info.format == "PNG"
    assert np.abs(pixels.astype(int) - adjust_gamma(image, 1.2)).max() <= 1
    blurred = decode_image(replace(PLAIN, blur=2.0).file(image), "")[0]
    sharp = decode_image(replace(PLAIN, sharpen=1.0).file(image), "")[0]
    detail = [np.abs(np.diff(one.astype(int), axis=0)).sum() for one in (blurred, image, sharp)]
    assert detail == sorted(detail)
    np.testing.assert_array_equal(sharp, sharpened(image, 1.0))


def test_the_last_of_two_saves_is_that_of_the_file() -> None:
    image = picture((64, 64), 0)
    data = replace(PLAIN, qualities=(40, 90)).file(image)
    pixels, info = decode_image(data, "")
    assert info.format == "JPEG"
    np.testing.assert_array_equal(pixels, jpeg(jpeg(image, 40), 90))


def test_what_is_drawn_depends_on_the_generator_alone() -> None:
    draws = [Finish.draw(DEFAULT_VARIETY, 2, (256, 384), np.random.default_rng(7)) for _ in "ab"]
    assert draws[0] == draws[1]
    assert len(draws[0].qualities) == 2
    assert Finish.draw(DEFAULT_VARIETY, 0, (256, 384), np.random.default_rng(7)).qualities == ()
