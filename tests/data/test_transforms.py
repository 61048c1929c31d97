"""Augmentation: decided by its seed, in the right order, image and supervision alike."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from boxpromptiml.data.transforms import Augmentation, TrainTransform
from boxpromptiml.errors import UserError
from boxpromptiml.models.error_levels import scaled_error_levels
from boxpromptiml.models.inputs import NetworkInput, whole_image

RNG = np.random.default_rng(0)
TRIMAP = np.zeros((40, 60), np.uint8)
TRIMAP[10:20, 30:50] = 255
TRIMAP[25:30, 5:15] = 127
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE[TRIMAP == 255] = (255, 0, 0)
ALL = Augmentation(0.5, 0.5, 0.5, jpeg=0.5, blur=0.5, noise=0.5)


@pytest.mark.parametrize("mode", ["resize", "native"])
def test_a_seed_decides_everything(mode: Literal["resize", "native"]) -> None:
    transform = TrainTransform(NetworkInput(mode, (32, 32)), ALL)
    first, again, other = (transform(IMAGE, TRIMAP, seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("seed", range(8))
def test_native_keeps_pixels_as_stored_and_supervision_aligned(seed: int) -> None:
    transform = TrainTransform(NetworkInput("native", (64, 64)), Augmentation(0.5, 0.5))
    tensor, trimap, inside = transform(IMAGE, TRIMAP, seed)
    image = (tensor.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert image.shape == (64, 64, 3)
    np.testing.assert_array_equal(trimap == 255, (image == (255, 0, 0)).all(axis=2))
    assert inside.sum() == IMAGE[..., 0].size
    assert not image[~inside].any()
    assert sorted(image[inside].tolist()) == sorted(IMAGE.reshape(-1, 3).tolist())


@pytest.mark.parametrize("min_scale", [1.0, 0.3])
def test_resize_makes_no_new_classes(min_scale: float) -> None:
    transform = TrainTransform(NetworkInput("resize", (96, 96)), Augmentation(min_scale=min_scale))
    _, trimap, inside = transform(IMAGE, TRIMAP, 1)
    assert set(np.unique(trimap)) <= {0, 127, 255}
    assert inside.all()


def test_wrong_settings_are_named() -> None:
    with pytest.raises(UserError, match=r"augmentation\.jpeg"):
        Augmentation(jpeg=1.5)
    with pytest.raises(UserError, match="square"):
        TrainTransform(NetworkInput("native", (32, 64)), Augmentation(rotate90=0.5))
    with pytest.raises(UserError, match="resize"):
        TrainTransform(NetworkInput("native", (32, 32)), Augmentation(min_scale=0.5))
    with pytest.raises(UserError, match="greater than or equal to 32"):
        NetworkInput("native", (16, 64))


@pytest.mark.parametrize("seed", range(4))
def test_error_levels_are_those_of_the_stored_pixels(seed: int) -> None:
    """Flips and crops move them with the pixels; nothing is computed on a crop."""
    qualities = NetworkInput("native", (64, 64), (60, 90))
    tensor, _, inside = TrainTransform(qualities, Augmentation(0.5, 0.5))(IMAGE, TRIMAP, seed)
    assert tensor.shape == (9, 64, 64)
    stored = np.concatenate([IMAGE / np.float32(255), scaled_error_levels(IMAGE, (60, 90))], axis=2)
    placed = tensor.permute(1, 2, 0).numpy()[inside].reshape(40, 60, 9)
    found = [
        np.array_equal(placed, stored[:: 1 - 2 * up, :: 1 - 2 * left])
        for up in (0, 1)
        for left in (0, 1)
    ]
    assert any(found)


def test_degradations_come_before_the_error_levels() -> None:
    blurred = Augmentation(horizontal_flip=0, blur=1.0)
    tensor, *_ = TrainTransform(NetworkInput("native", (40, 60), (75,)), blurred)(IMAGE, TRIMAP, 0)
    image = (tensor[:3].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert (image != IMAGE).any()
    np.testing.assert_array_equal(
        tensor[3:].permute(1, 2, 0).numpy(), scaled_error_levels(image, (75,))
    )


@pytest.mark.parametrize("qualities", [(), (75,), (60, 75, 90)])
def test_training_and_evaluation_see_the_same_channels(qualities: tuple[int, ...]) -> None:
    network_input = NetworkInput("resize", (32, 48), qualities)
    tensor, *_ = TrainTransform(network_input, Augmentation(horizontal_flip=0))(IMAGE, TRIMAP, 0)
    np.testing.assert_allclose(tensor.numpy(), whole_image(IMAGE, network_input), atol=1e-6)


def _centre(brightness: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    rows, columns = np.mgrid[: brightness.shape[0], : brightness.shape[1]] + 0.5
    weights = brightness / brightness.sum()
    return np.array([(rows * weights).sum(), (columns * weights).sum()])


@pytest.mark.parametrize("min_scale", [1.0, 0.5])
@pytest.mark.parametrize("size", [(300, 450), (64, 90), (50, 500)])
def test_supervision_lies_where_the_image_shows_it(size: tuple[int, int], min_scale: float) -> None:
    """By nearest neighbours it lay half a pixel of the network to the right and below."""
    rng = np.random.default_rng(1)
    transform = TrainTransform(
        NetworkInput("resize", (96, 96)), Augmentation(horizontal_flip=0, min_scale=min_scale)
    )
    shifts = []
    for seed in range(60):
        trimap = np.zeros(size, np.uint8)
        y, x = (int(rng.integers(0, side // 2)) for side in size)
        trimap[y : y + size[0] // 2, x : x + size[1] // 2] = 255
        tensor, resized, inside = transform(np.repeat(trimap[..., None], 3, axis=2), trimap, seed)
        assert inside.all()
        if resized.any():
            shifts.append(_centre(resized) - _centre(tensor[0].numpy()))
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.06
    assert np.abs(shifts).max() < 0.5
