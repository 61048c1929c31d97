"""Arrays in and out of a network agree with what PyTorch computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from boxpromptiml.models.inputs import sigmoid, to_planes, to_stored_size

SIZES = [
    ((224, 224), (256, 384)),  # up
    ((224, 224), (100, 61)),  # down
    ((64, 64), (32, 32)),  # by half, where OpenCV takes another way
    ((64, 64), (32, 128)),
    ((37, 53), (641, 480)),
    ((37, 53), (37, 53)),
    ((5, 7), (1, 1)),
    ((1, 1), (9, 4)),
    ((1, 300), (77, 1)),
]


@pytest.mark.parametrize(("small", "size"), SIZES)
@pytest.mark.parametrize("layout", ["own", "slice of a batch"])
def test_maps_come_back_as_pytorch_resamples_them(
    small: tuple[int, int], size: tuple[int, int], layout: str
) -> None:
    logits = np.random.default_rng(0).normal(-2, 3, (2, 1, *small)).astype(np.float32)
    one = logits[1, 0] if layout == "slice of a batch" else logits[1, 0].copy()
    found = to_stored_size(one, size)
    exact = torch.from_numpy(logits[1:]).double()  # float32 loses 3e-5 in its coordinates
    resized = F.interpolate(exact, size, mode="bilinear")
    assert found.dtype == np.float32
    assert found.shape == size
    np.testing.assert_allclose(found, resized.sigmoid()[0, 0], atol=1e-6, rtol=0)


def test_the_sigmoid_is_pytorchs_and_quiet() -> None:
    logits = np.array([-np.inf, -1e30, -100, -20, -1, 0, 3, 20, 1e30, np.inf], np.float32)
    np.testing.assert_allclose(sigmoid(logits), torch.from_numpy(logits).sigmoid(), rtol=1e-6)
    assert 0 < sigmoid(np.array([-80], np.float32)) < sigmoid(np.array([-79], np.float32))
    assert np.isnan(sigmoid(np.array([np.nan], np.float32)))


def test_planes_are_colours_then_levels() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    levels = np.full((2, 4, 6), -0.5, np.float32)
    planes = to_planes(image, levels)
    assert planes.shape == (9, 2, 4)
    assert planes.flags.c_contiguous
    np.testing.assert_array_equal(planes[1], image[..., 1] / np.float32(255))
    assert (planes[3:] == -0.5).all()
