import json
from typing import Any

import numpy as np
import pytest
from skimage.segmentation import felzenszwalb, slic

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray, Segmenter
from boxpromptiml.segmenters.superpixels import FelzenszwalbSegmenter, SlicSegmenter

SEGMENTERS: list[Segmenter] = [SlicSegmenter(), FelzenszwalbSegmenter()]


def patches(size: tuple[int, int], seed: int = 0) -> ImageArray:
    """Four patches of flat colour with a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    patch = 2 * (rows * 2 // size[0]) + (columns * 2 // size[1])
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [220, 220, 60]])
    return (colours[patch] + rng.integers(-5, 6, (*size, 3))).astype(np.uint8)


@pytest.mark.parametrize("size", [(40, 60), (48, 30)])
def test_slic_is_scikit_images(size: tuple[int, int]) -> None:
    image = patches(size)
    tested = SlicSegmenter(segments=30, compactness=5.0, sigma=0.5)
    direct = slic(image, n_segments=30, compactness=5.0, sigma=0.5, start_label=1)
    np.testing.assert_array_equal(tested.regions(image), direct)
    assert direct.max() > 10


@pytest.mark.parametrize("size", [(40, 60), (48, 30)])
def test_felzenszwalb_is_scikit_images(size: tuple[int, int]) -> None:
    image = patches(size)
    direct = felzenszwalb(image, scale=20, sigma=0.5, min_size=15)
    np.testing.assert_array_equal(FelzenszwalbSegmenter(20, 0.5, 15).regions(image), direct + 1)
    assert direct.max() >= 3


@pytest.mark.parametrize("segmenter", SEGMENTERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 2), (1, 900), (1500, 2), (64, 96)])
@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_every_pixel_is_in_a_region(segmenter: Segmenter, size: tuple[int, int], kind: str) -> None:
    image = np.full((*size, 3), 99, dtype=np.uint8)
    if kind == "noise":
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = segmenter.regions(image)
    assert labels.dtype == np.int32
    assert labels.shape == size
    assert set(np.unique(labels)) == set(range(1, labels.max() + 1))


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_regions_follow_the_patches(segmenter: Segmenter) -> None:
    labels = segmenter.regions(patches((80, 120)))
    quarters = np.kron([[0, 1], [2, 3]], np.ones((40, 60), dtype=int))
    inside = [np.unique(labels[quarters == quarter]) for quarter in range(4)]
    strays = sum(len(a) for a in inside) - len(np.unique(labels))
    assert strays <= 0.1 * len(np.unique(labels))
    assert len(np.unique(labels)) >= 4


def test_large_images_are_reduced_and_brought_back() -> None:
    image = patches((60, 100))
    large = image.repeat(4, axis=0).repeat(4, axis=1)
    for segmenter in (SlicSegmenter(max_side=100), FelzenszwalbSegmenter(max_side=100)):
        expected = segmenter.regions(image).repeat(4, axis=0).repeat(4, axis=1)
        np.testing.assert_array_equal(segmenter.regions(large), expected)


def test_noise_does_not_melt_into_one_region() -> None:
    image = np.random.default_rng(0).integers(40, 90, (64, 96, 3), dtype=np.uint8)
    assert SlicSegmenter(sigma=0).regions(image).max() == 1  # scikit-image as it is
    assert SlicSegmenter().regions(image).max() > 20


@pytest.mark.parametrize("segmenter", SEGMENTERS)
def test_repeatable_and_leaves_the_image_alone(segmenter: Segmenter) -> None:
    image = patches((50, 50))
    before = image.copy()
    np.testing.assert_array_equal(segmenter.regions(image), segmenter.regions(image))
    np.testing.assert_array_equal(image, before)


def test_settings_tell_every_setting() -> None:
    variants: list[Segmenter] = [
        *SEGMENTERS,
        SlicSegmenter(segments=7),
        SlicSegmenter(compactness=7),
        SlicSegmenter(sigma=7),
        SlicSegmenter(max_side=7),
        FelzenszwalbSegmenter(scale=7),
        FelzenszwalbSegmenter(sigma=7),
        FelzenszwalbSegmenter(min_size=7),
        FelzenszwalbSegmenter(max_side=7),
    ]
    signed = [json.dumps(segmenter.settings, allow_nan=False) for segmenter in variants]
    assert len(set(signed)) == len(variants)
    assert all("scikit-image" in text for text in signed)


@pytest.mark.parametrize(
    "wrong",
    [{"segments": 0}, {"compactness": 0}, {"compactness": float("nan")}, {"sigma": -1}],
)
def test_bad_slic_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="slic"):
        SlicSegmenter(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 0}, {"sigma": -1}, {"min_size": 0}, {"max_side": 0}, {"scale": float("nan")}],
)
def test_bad_felzenszwalb_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="felzenszwalb"):
        FelzenszwalbSegmenter(**wrong)
