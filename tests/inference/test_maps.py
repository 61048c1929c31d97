import numpy as np
import pytest
import torch
import torch.nn.functional as F

from boxpromptiml.inference.maps import FlipMean, NetworkOutput, even_tile, tiled_map
from boxpromptiml.models.inputs import FloatArray, sigmoid
from tests.helpers.models import brightness


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (20, 30), (128, 97)])
def test_tiles_cover_everything_without_seams(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((3, *size), np.float32)
    prob, image_logits = tiled_map(
        brightness, lambda rows, columns: image[:, rows, columns], size, (64, 64), 32
    )
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob, sigmoid(image.mean(0)), atol=1e-6, rtol=1e-5)
    assert image_logits.max() == pytest.approx(float(image.mean(0).max()), abs=1e-6)


@pytest.mark.parametrize("size", [(130, 97), (64, 200)])
def test_with_the_whole_image_the_logits_are_the_mean_of_both(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image, whole = rng.random((3, *size), np.float32), rng.random((3, 9, 16), np.float32)
    prob, image_logits = tiled_map(
        brightness, lambda rows, columns: image[:, rows, columns], size, (64, 64), 32, whole
    )
    enlarged = F.interpolate(torch.from_numpy(whole.mean(0))[None, None], size, mode="bilinear")
    expected = (image.mean(0) + enlarged[0, 0].numpy()) / 2
    np.testing.assert_allclose(prob, sigmoid(expected), atol=1e-5)
    assert (
        len(image_logits)
        == tiled_map(brightness, lambda rows, columns: image[:, rows, columns], size, (64, 64), 32)[
            1
        ].size
    ), "the whole image is no tile"


@pytest.mark.parametrize("most", [96, 768, 1024])
def test_even_tiles_are_as_few_as_full_ones_and_as_small_as_that_allows(most: int) -> None:
    for length in range(1, 9000, 7):
        side, few = even_tile(length, most, 64), max(-(-(length - 64) // (most - 64)), 1)
        assert side <= most
        assert few * side - (few - 1) * 64 >= length > few * (side - 32) - (few - 1) * 64


@pytest.mark.parametrize("size", [(9, 14), (9, 1), (1, 14), (1, 1)])
def test_mirror_images_are_averaged_where_they_show_the_same_place(size: tuple[int, int]) -> None:
    kernel = torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(0))

    def network(image: FloatArray) -> NetworkOutput:
        logits = F.conv2d(torch.from_numpy(image), kernel, padding=1)
        return NetworkOutput(logits.numpy(), logits[:, 0, 0, 0].numpy())

    image = np.random.default_rng(0).random((2, 3, *size), np.float32)
    found = FlipMean(network)(image)
    # To mirror a convolution's input is to mirror its kernel.
    kernels = [kernel, kernel.flip(3), kernel.flip(2)]
    seen = [F.conv2d(torch.from_numpy(image), one, padding=1) for one in kernels]
    torch.testing.assert_close(torch.from_numpy(found.logits), torch.stack(seen).mean(0))
    corners = [seen[0][:, 0, 0, 0], seen[1][:, 0, 0, -1], seen[2][:, 0, -1, 0]]
    torch.testing.assert_close(torch.from_numpy(found.image_logit), torch.stack(corners).mean(0))
