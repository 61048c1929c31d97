import numpy as np
import pytest

from boxpromptiml.inference.maps import tiled_map
from boxpromptiml.models.inputs import sigmoid
from tests.helpers.models import brightness


@pytest.mark.parametrize("size", [(64, 64), (65, 200), (20, 30), (128, 97)])
def test_tiles_cover_everything_without_seams(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((3, *size), np.float32)
    prob, image_logits = tiled_map(
        brightness, lambda rows, columns: image[:, rows, columns], size, (64, 64)
    )
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob, sigmoid(image.mean(0)), atol=1e-6, rtol=1e-5)
    assert image_logits.max() == pytest.approx(float(image.mean(0).max()), abs=1e-6)
