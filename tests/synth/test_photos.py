"""The bundled photographs: no split sees another's."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.records import Split
from boxpromptiml.synth import photos
from boxpromptiml.synth.photos import SPLIT_AREAS, Area, bundled_photo

SPLITS: tuple[Split, ...] = ("train", "val", "test")


ALL = [area for areas in SPLIT_AREAS.values() for area in areas]


def test_no_pixel_serves_two_splits() -> None:
    for one, other in itertools.combinations(ALL, 2):
        if one.photo == other.photo:
            assert one.stop <= other.start or other.stop <= one.start
            pixels = bundled_photo(one.photo)
            assert one.pixels.shape[1] + other.pixels.shape[1] == pixels.shape[1]
            assert not np.shares_memory(one.pixels, other.pixels)
    assert len({area.name for area in ALL}) == len(ALL)
    assert "motorcycle_right.png" not in {area.photo for area in ALL}  # motorcycle_left's scene


@pytest.mark.parametrize("area", ALL, ids=lambda area: area.name)
def test_every_area_loads_and_is_large_enough(area: Area) -> None:
    assert area.pixels.dtype == np.uint8
    assert area.pixels.shape[2] == 3
    assert min(area.pixels.shape[:2]) >= 192
    assert not area.pixels.flags.writeable  # it is cached


@pytest.mark.parametrize("split", SPLITS)
def test_crops_are_different_pixels_of_the_areas_of_their_split(
    split: Split, tmp_path: Path
) -> None:
    photos.write_crops(tmp_path, split, 30, 96, np.random.default_rng(0))
    paths = sorted(tmp_path.rglob("*.png"))
    assert len(paths) == len({path.read_bytes() for path in paths}) == 30
    areas = {area.name: area for area in SPLIT_AREAS[split]}
    assert {path.parent.name for path in paths} == areas.keys()
    for path in paths[::10]:
        crop, area = images.read_image(path)[0], areas[path.parent.name].pixels
        assert crop.shape == (96, 96, 3)
        assert crop.std() >= 8
        found = cv2.matchTemplate(np.ascontiguousarray(area), crop, cv2.TM_SQDIFF_NORMED)
        assert found.min() < 1e-5


def test_the_same_generator_gives_the_same_crops(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        photos.write_crops(tmp_path / name, "train", 3, 48, np.random.default_rng(seed))
    one, same, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.png"))] for name in "abc"
    )
    assert one == same != other


def test_crops_that_do_not_exist_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="no crop of 400 pixels"):
        photos.write_crops(tmp_path, "train", 1, 400, np.random.default_rng(0))
    monkeypatch.setitem(photos.SPLIT_AREAS, "train", (Area("coins.png", 0.0, 0.5),))
    monkeypatch.setattr(photos, "_MAX_TRIES", 1)  # the first place that comes twice
    with pytest.raises(RuntimeError, match="coins_0_50 has no other crop of 192 pixels"):
        photos.write_crops(tmp_path, "train", 113, 192, np.random.default_rng(0))


def test_a_missing_photograph_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    with pytest.raises(UserError, match=r"astronaut2.png.*reinstall scikit-image"):
        bundled_photo("astronaut2.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        bundled_photo("astronaut3.png")
