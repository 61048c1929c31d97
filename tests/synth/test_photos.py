"""The bundled photographs: no split sees another's, colour gives nothing away."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxpromptiml import images
from boxpromptiml.errors import UserError
from boxpromptiml.records import Split
from boxpromptiml.synth import photos
from boxpromptiml.synth.photos import SPLIT_PHOTOS, bundled_photo, forge_photo

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def test_no_photograph_serves_two_splits() -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(SPLIT_PHOTOS[one]) & set(SPLIT_PHOTOS[other])
    named = {name.removesuffix("_left.png") for names in SPLIT_PHOTOS.values() for name in names}
    assert "motorcycle_right.png" not in named  # the same scene as motorcycle_left


@pytest.mark.parametrize("name", [n for names in SPLIT_PHOTOS.values() for n in names])
def test_every_photograph_loads_and_is_large_enough(name: str) -> None:
    photo = bundled_photo(name)
    assert photo.dtype == np.uint8
    assert photo.shape[2] == 3
    assert min(photo.shape[:2]) >= 300
    assert not photo.flags.writeable  # it is cached


@pytest.mark.parametrize("split", SPLITS)
def test_host_is_an_untouched_crop_of_a_photograph_of_the_split(split: Split) -> None:
    for seed in range(6):
        made = forge_photo(split, 96, np.random.default_rng(seed))
        assert {made.host_photo, made.donor_photo} <= set(SPLIT_PHOTOS[split])
        assert made.host_photo != made.donor_photo
        found = cv2.matchTemplate(bundled_photo(made.host_photo), made.host, cv2.TM_SQDIFF_NORMED)
        assert found.min() < 1e-5
        changed = (made.forgery.image != made.host).any(axis=2)
        assert changed[made.forgery.mask].mean() > 0.5
        assert not changed[
            ~cv2.dilate(made.forgery.mask.astype(np.uint8), np.ones((7, 7))) > 0
        ].all()


def test_a_grey_host_stays_grey_and_a_coloured_one_gets_no_grey_object() -> None:
    seen = set()
    for seed in range(12):
        made = forge_photo("test", 96, np.random.default_rng(seed))
        grey = bool((made.host == made.host[..., :1]).all())
        seen.add(grey)
        if grey:
            assert (made.forgery.image == made.forgery.image[..., :1]).all()
        else:
            assert made.donor_photo != "camera.png"
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

    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: Spec)
    with pytest.raises(UserError, match=r"astronaut2.png.*reinstall scikit-image"):
        bundled_photo("astronaut2.png")
    monkeypatch.setattr(photos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed"):
        bundled_photo("astronaut3.png")
