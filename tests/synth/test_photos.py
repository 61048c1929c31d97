"""The bundled photographs: no split sees another's, colour gives nothing away."""

import importlib.util
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.records import Split
from boxpromptiml.synth.photos import SPLIT_AREAS, Area, bundled_photo, forge_photo

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
def test_host_is_an_untouched_crop_of_an_area_of_the_split(split: Split) -> None:
    for seed in range(6):
        made = forge_photo(split, 96, np.random.default_rng(seed))
        assert {made.host, made.donor} <= set(SPLIT_AREAS[split])
        assert made.host != made.donor
        area = np.ascontiguousarray(made.host.pixels)
        found = cv2.matchTemplate(area, made.untouched, cv2.TM_SQDIFF_NORMED)
        assert found.min() < 1e-5
        changed = (made.forgery.image != made.untouched).any(axis=2)
        assert changed[made.forgery.mask].mean() > 0.5
        near = cv2.dilate(made.forgery.mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert not changed[~near].any()


def test_a_grey_host_stays_grey_and_a_coloured_one_gets_no_grey_object() -> None:
    seen = set()
    for seed in range(12):
        made = forge_photo("test", 96, np.random.default_rng(seed))
        seen.add(made.host.grey)
        if made.host.grey:
            assert (made.forgery.image == made.forgery.image[..., :1]).all()
        else:
            assert not made.donor.grey
    assert seen == {True, False}


def test_the_same_generator_gives_the_same_forgery() -> None:
    one, other = (forge_photo("train", 96, np.random.default_rng(5)) for _ in range(2))
    assert images.encode_png(one.forgery.image) == images.encode_png(other.forgery.image)
    assert (one.forgery.mask == other.forgery.mask).all()


def test_a_missing_photograph_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(UserError, match=r"astronaut2.png.*reinstall scikit-image"):
        bundled_photo("astronaut2.png")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        bundled_photo("astronaut3.png")
