import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from boxpromptiml.records import ImageArray
from boxpromptiml.synth import degradation


def error(first: ImageArray, second: ImageArray) -> float:
    return np.abs(first.astype(int) - second).mean()


def test_lower_quality_loses_more() -> None:
    image = data.astronaut()[:128, :128]
    losses = [error(degradation.jpeg(image, quality), image) for quality in (95, 70, 30)]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_blur_agrees_with_pillow() -> None:
    image = data.astronaut()[:128, :128]
    # OpenCV's rule gives a window of 11 pixels a sigma of 2.
    reference = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2.0)))
    assert error(degradation.blur(image, 11), reference) < 1.5
    assert error(degradation.blur(image, 1), image) == 0


def test_noise_has_the_wanted_deviation_and_is_seeded() -> None:
    image = np.full((100, 100, 3), 128, np.uint8)
    noisy = degradation.noise(image, 5, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(5, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    np.testing.assert_array_equal(noisy, degradation.noise(image, 5, np.random.default_rng(0)))
    assert degradation.noise(image * 0 + 255, 30, np.random.default_rng(0)).min() > 100  # no wrap


@pytest.mark.parametrize(("factor", "size"), [(0.5, (20, 30)), (1.5, (60, 90)), (0.001, (1, 1))])
def test_rescale_keeps_the_mean(factor: float, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    scaled = degradation.rescale(image, factor)
    assert scaled.shape == (*size, 3)
    assert scaled.mean() == pytest.approx(image.mean(), abs=2)
