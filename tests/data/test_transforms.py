import numpy as np
import pytest

from boxpromptiml.data.transforms import Augmentation, TrainTransform
from boxpromptiml.errors import UserError
from boxpromptiml.models.inputs import NetworkInput

RNG = np.random.default_rng(0)
LEVELS = np.zeros((40, 60), np.uint8)
LEVELS[10:20, 30:50] = 255
LEVELS[25:30, 5:15] = 127
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE[LEVELS == 255] = (255, 0, 0)
ALL = Augmentation(0.5, 0.5, 0.5, jpeg=0.5, blur=0.5, noise=0.5)


@pytest.mark.parametrize("fit", ["resize", "native"])
def test_a_seed_decides_everything(fit):
    transform = TrainTransform(NetworkInput(fit, (32, 32)), ALL)
    first, again, other = (transform(IMAGE, LEVELS, seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("seed", range(8))
def test_native_keeps_pixels_as_stored_and_levels_aligned(seed):
    transform = TrainTransform(NetworkInput("native", (64, 64)), Augmentation(0.5, 0.5))
    image, levels, inside = transform(IMAGE, LEVELS, seed)
    assert image.shape == (64, 64, 3)
    np.testing.assert_array_equal(levels == 255, (image == (255, 0, 0)).all(axis=2))
    assert inside.sum() == IMAGE[..., 0].size
    assert not image[~inside].any()
    assert sorted(image[inside].tolist()) == sorted(IMAGE.reshape(-1, 3).tolist())


@pytest.mark.parametrize("min_scale", [1.0, 0.3])
def test_resize_makes_no_new_levels(min_scale):
    transform = TrainTransform(NetworkInput("resize", (96, 96)), Augmentation(min_scale=min_scale))
    _, levels, inside = transform(IMAGE, LEVELS, 1)
    assert set(np.unique(levels)) <= {0, 127, 255}
    assert inside.all()


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match=r"augmentation\.jpeg"):
        Augmentation(jpeg=1.5)
    with pytest.raises(UserError, match="square"):
        TrainTransform(NetworkInput("native", (32, 64)), Augmentation(rotate90=0.5))
    with pytest.raises(UserError, match="resize"):
        TrainTransform(NetworkInput("native", (32, 32)), Augmentation(min_scale=0.5))
    with pytest.raises(UserError, match="at least 32"):
        NetworkInput("native", (16, 64))
