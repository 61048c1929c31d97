import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from boxpromptiml.models.error_levels import FULL_SCALE, scaled_error_levels, signed_error_levels
from boxpromptiml.synth.degradation import jpeg
from boxpromptiml.synth.photos import bundled_photo

PHOTO = bundled_photo("coffee.png")[:128, :160]


def by_pillow(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return image.astype(int) - np.asarray(Image.open(buffer)).astype(int)


@given(st.integers(1, 100), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_they_are_pillows_for_any_image_and_quality(
    quality: int, height: int, width: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    levels = signed_error_levels(image, quality)
    assert levels.dtype == np.int16
    np.testing.assert_array_equal(levels, by_pillow(image, quality))


def test_a_second_compression_at_the_same_quality_takes_little() -> None:
    once = jpeg(PHOTO, 60)
    fresh, again = (np.abs(signed_error_levels(x, 60)).mean() for x in (PHOTO, once))
    assert again < 0.5 * fresh


def test_network_input_keeps_the_sign_and_stacks_the_qualities() -> None:
    scaled = scaled_error_levels(PHOTO, (50, 90))
    assert scaled.dtype == np.float32
    assert scaled.shape == (128, 160, 6)
    for part, quality in ((scaled[..., :3], 50), (scaled[..., 3:], 90)):
        np.testing.assert_array_equal(
            part, np.clip(by_pillow(PHOTO, quality) / FULL_SCALE, -1, 1).astype(np.float32)
        )
    assert scaled.min() == -1
    assert scaled.max() == 1
    assert scaled_error_levels(PHOTO, ()).shape == (128, 160, 0)


@pytest.mark.parametrize("quality", [0, 101])
def test_there_is_no_such_quality(quality: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        signed_error_levels(PHOTO, quality)
