import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.records import MaskArray
from boxpromptiml.synth.patches import Alteration, cut, paste, soft_edge
from tests.helpers.pictures import picture

SIZE = (40, 60)


def disc(row: int = 18, column: int = 25, radius: int = 9) -> MaskArray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def test_an_unaltered_patch_holds_the_pixels_as_they_are() -> None:
    image, region = picture(SIZE, 0), disc()
    patch = cut(image, region, Alteration(1, 0, 1, 0), SIZE, 0)
    np.testing.assert_array_equal(patch.alpha, region[9:28, 16:35])
    np.testing.assert_array_equal(patch.colour, image[9:28, 16:35])
    forged, mask = paste(picture(SIZE, 1), patch, (5, 7))
    np.testing.assert_array_equal(mask[5:24, 7:26], region[9:28, 16:35])
    np.testing.assert_array_equal(forged[mask], image[region])
    np.testing.assert_array_equal(forged[~mask], picture(SIZE, 1)[~mask])


def test_a_turn_by_90_degrees_is_that_of_numpy_and_a_scale_that_of_the_area() -> None:
    image, region = picture(SIZE, 0), disc()
    region[19:, 26:] = False  # three quarters of a disc
    patch = cut(image, region, Alteration(1, 90, 1, 0), (99, 99), 0)
    window = np.s_[9:28, 16:35]
    np.testing.assert_array_equal(patch.alpha, np.rot90(region[window], -1))
    own = np.rot90(image[window], -1)
    assert np.abs(patch.colour - own)[patch.alpha > 0].max() <= 1
    large = cut(image, region, Alteration(1.5, 0, -1, 0), (99, 99), 0)
    assert (large.alpha > 0.5).sum() == pytest.approx(region.sum() * 1.5**2, rel=0.03)


@given(st.floats(0.2, 9), st.floats(0, 180), st.integers(0, 4))
def test_a_patch_fits_its_limit(scale: float, degrees: float, feather: int) -> None:
    patch = cut(picture(SIZE, 0), disc(), Alteration(scale, degrees, -1, feather), SIZE, feather)
    assert patch.alpha.shape == patch.colour.shape[:2]
    assert patch.alpha.shape[0] <= SIZE[0]
    assert patch.alpha.shape[1] <= SIZE[1]
    assert 0 <= patch.alpha.min() <= patch.alpha.max() <= 1.0001
    assert patch.alpha.max() > 0.5


def test_a_soft_edge_keeps_the_area_and_stays_near() -> None:
    region = disc()
    assert (soft_edge(region, 0) == region).all()
    soft = soft_edge(region, 3)
    assert (soft > 0.5).sum() == pytest.approx(region.sum(), rel=0.1)
    assert ((soft > 0.05) & (soft < 0.95)).sum() > 60
    assert not soft[~disc(radius=14)].any()
