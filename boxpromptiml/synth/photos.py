"""The photographs that ship inside scikit-image's wheel, and forgeries of them.

Nothing is downloaded: scikit-image fetches most of its pictures on demand, but these files are
part of every installation. Of most, the left half serves training and the right half the
test; a few whole ones serve validation. No pixel is in two splits, as host or as donor.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.images import read_image
from boxpromptiml.records import ImageArray, Split
from boxpromptiml.synth.forge import Forgery, forge

_HALVED = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "rocket.jpg",
)
_WHOLE = ("chelsea.png", "clock_motion.png", "retina.jpg")


class Area(NamedTuple):
    """Columns of a photograph, as shares of its width."""

    photo: str
    start: float
    stop: float

    @property
    def name(self) -> str:
        """Distinct for areas that do not overlap, such as `coffee_50_100` (percent)."""
        return f"{Path(self.photo).stem}_{self.start:.0%}_{self.stop:.0%}".replace("%", "")

    @property
    def pixels(self) -> ImageArray:
        """(H, W, 3), a view."""
        photo = bundled_photo(self.photo)
        width = photo.shape[1]
        return photo[:, round(self.start * width) : round(self.stop * width)]

    @property
    def grey(self) -> bool:
        """Whether the photograph has no colour."""
        return _is_grey(self.photo)


SPLIT_AREAS: dict[Split, tuple[Area, ...]] = {
    "train": tuple(Area(name, 0.0, 0.5) for name in _HALVED),
    "val": tuple(Area(name, 0.0, 1.0) for name in _WHOLE),
    "test": tuple(Area(name, 0.5, 1.0) for name in _HALVED),
}
_TRIES = 50
_MIN_DETAIL = 8.0  # grey levels, standard deviation; a crop below it is sky or frame
_MIN_CHANGE = 8.0  # grey levels, mean over the mask; a forgery below it changes nothing


class ForgedPhoto(NamedTuple):
    """A forgery, the crop it was made of, and the areas it was taken from."""

    forgery: Forgery
    untouched: ImageArray  # (side, side, 3)
    host: Area
    donor: Area


@cache
def bundled_photo(name: str) -> ImageArray:
    """Pixels (H, W, 3) of a photograph of scikit-image's wheel.

    Raises:
        UserError: scikit-image is not installed, or its file is missing or damaged.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise UserError("scikit-image is not installed: pip install scikit-image")
    path = Path(spec.origin).parent / "data" / name
    try:
        image = read_image(path.resolve())[0]  # some installers link into a cache
    except RejectedInput as error:
        raise UserError(
            f"{error}; this photograph is part of scikit-image: reinstall it with "
            "pip install --force-reinstall scikit-image"
        ) from error
    image.setflags(write=False)
    return image


def forge_photo(split: Split, side: int, rng: np.random.Generator) -> ForgedPhoto:
    """Forge a square crop of a random photograph of a split, at its native resolution.

    A grey host takes donors without colour, so that colour never gives a splice away. Crops
    without detail and forgeries that change next to nothing are drawn again.

    Args:
        split: Which photographs may be host and donor.
        side: Of the crop in pixels, at most 192.
        rng: Decides everything.
    """
    for _ in range(_TRIES):
        host, donor = _host_and_donor(SPLIT_AREAS[split], rng)
        untouched, other = _crop(host.pixels, side, rng), _crop(donor.pixels, side, rng)
        if host.grey:
            other = without_colour(other)
        if min(untouched.std(), other.std()) < _MIN_DETAIL:
            continue
        forgery = forge(untouched, other, rng)
        change = np.abs(forgery.image.astype(np.int16) - untouched)[forgery.mask]
        if change.size and change.mean() >= _MIN_CHANGE:
            return ForgedPhoto(forgery, untouched, host, donor)
    raise RuntimeError(f"no forgery of {side} pixels in {_TRIES} tries")


def _host_and_donor(areas: tuple[Area, ...], rng: np.random.Generator) -> tuple[Area, Area]:
    host = areas[int(rng.integers(len(areas)))]
    donors = [area for area in areas if area != host and (host.grey or not area.grey)]
    return host, donors[int(rng.integers(len(donors)))]


def _crop(photo: ImageArray, side: int, rng: np.random.Generator) -> ImageArray:
    height, width = photo.shape[:2]
    if side > min(height, width):
        raise ValueError(f"no crop of {side} pixels in a photograph of {width} x {height}")
    row, column = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return photo[row : row + side, column : column + side]


@cache
def _is_grey(name: str) -> bool:
    photo = bundled_photo(name)
    return bool((photo == photo[..., :1]).all())


def without_colour(image: ImageArray) -> ImageArray:
    """Every pixel the mean of its three values."""
    mean = np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(mean, 3, axis=2)
