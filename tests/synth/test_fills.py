import cv2
import numpy as np
import pytest

from boxpromptiml.records import ImageArray, MaskArray
from boxpromptiml.synth.fills import FILLS, FillName, filled
from tests.helpers.pictures import picture


def region(size: tuple[int, int] = (80, 120)) -> MaskArray:
    mask = np.zeros(size, bool)
    mask[30:50, 50:75] = True
    return mask


@pytest.mark.parametrize("method", FILLS)
def test_only_the_region_changes_and_it_is_filled(method: FillName) -> None:
    image, mask = picture((80, 120), 3), region()
    image[mask] = (255, 0, 255)
    before = image.copy()
    result, used = filled(image, mask, method, np.random.default_rng(0))
    assert used == method
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(result[~mask], image[~mask])
    core = cv2.erode(mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert (np.abs(result[core].astype(int) - (255, 0, 255)).sum(axis=1) > 30).mean() > 0.9


def test_a_patch_continues_a_pattern() -> None:
    rows, columns = np.mgrid[:80, :120]
    pattern = (128 + 100 * np.sin(rows / 3) * np.cos(columns / 4)).astype(np.uint8)
    image: ImageArray = np.repeat(pattern[..., None], 3, axis=2)
    result, _ = filled(image, region(), "patch", np.random.default_rng(0))
    assert np.abs(result.astype(int) - image)[region()].mean() < 12


def test_a_patch_without_a_place_becomes_an_inpainting() -> None:
    mask = np.zeros((80, 120), bool)
    mask[10:70, 10:110] = True
    result, used = filled(picture((80, 120), 0), mask, "patch", np.random.default_rng(0))
    assert used == "telea"
    assert result.shape == (80, 120, 3)


def test_a_blurred_fill_lies_between_its_surroundings() -> None:
    image = np.full((80, 120, 3), 60, np.uint8)
    image[:, 60:] = 180
    result, _ = filled(image, region(), "blur", np.random.default_rng(0))
    assert 55 <= result[region()].min() <= result[region()].max() <= 185
    assert result[40, 51, 0] < 120 < result[40, 73, 0]
