import numpy as np
import pytest
import torch
from scipy import ndimage

from boxpromptiml.models.residuals import SrmResiduals

SECOND_ORDER = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
KV = (
    np.array(
        [
            [-1, 2, -2, 2, -1],
            [2, -6, 8, -6, 2],
            [-2, 8, -12, 8, -2],
            [2, -6, 8, -6, 2],
            [-1, 2, -2, 2, -1],
        ]
    )
    / 12
)
LINE = np.array([[1, -2, 1]]) / 2


@pytest.mark.parametrize("truncation", [1.0, 3.0, 500.0])
def test_equals_scipy(truncation: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 19, 23))
    found = SrmResiduals(truncation)(torch.tensor(image / 255, dtype=torch.float32)).numpy()
    for i, grey in enumerate(image.mean(axis=1)):
        for j, kernel in enumerate((SECOND_ORDER, KV, LINE)):
            expected = ndimage.convolve(grey, kernel, mode="mirror")
            expected = np.clip(expected, -truncation, truncation) / truncation
            np.testing.assert_allclose(found[i, j], expected, atol=2e-4)


def test_flat_and_sloping_images_leave_nothing() -> None:
    slope = torch.linspace(0.1, 0.9, 32).expand(1, 3, 32, 32)
    inner = SrmResiduals()(slope)[..., 2:-2, 2:-2]
    assert inner.abs().max() < 1e-3
    assert SrmResiduals()(torch.full((1, 3, 8, 8), 0.3)).abs().max() < 1e-4


def test_autocast_keeps_single_precision() -> None:
    image = torch.rand(1, 3, 16, 16)
    plain = SrmResiduals()(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = SrmResiduals()(image)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


def test_nothing_to_learn_or_store() -> None:
    residuals = SrmResiduals()
    assert not list(residuals.parameters())
    assert not residuals.state_dict()
