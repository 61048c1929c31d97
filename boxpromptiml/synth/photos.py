"""The photographs that ship inside scikit-image's wheel, and forgeries of them.

Nothing is downloaded: scikit-image fetches most of its pictures on demand, but these files are
part of every installation. Hosts and donors of one split never serve in another.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.images import read_image
from boxpromptiml.records import ImageArray, Split
from boxpromptiml.synth.forge import Forgery, forge

SPLIT_PHOTOS: dict[Split, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "brick.png",
        "chelsea.png",
        "clock_motion.png",
        "grass.png",
        "gravel.png",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
    ),
    "val": ("coins.png", "hubble_deep_field.jpg", "retina.jpg"),
    "test": ("camera.png", "coffee.png", "rocket.jpg"),
}
_TRIES = 50
_LEAST_DETAIL = 8.0  # grey levels, standard deviation; a crop below it is sky or frame
_LEAST_CHANGE = 8.0  # grey levels, mean over the mask; a forgery below it changes nothing


class ForgedPhoto(NamedTuple):
    """A forgery, the crop it was made of, and the file names of the photographs involved."""

    forgery: Forgery
    host: ImageArray  # (side, side, 3)
    host_photo: str
    donor_photo: str


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
        side: Of the crop in pixels, at most 300.
        rng: Decides everything.
    """
    for _ in range(_TRIES):
        host_name, donor_name = _host_and_donor(SPLIT_PHOTOS[split], rng)
        host = _crop(bundled_photo(host_name), side, rng)
        donor = _crop(bundled_photo(donor_name), side, rng)
        if _is_grey(host_name):
            donor = _without_colour(donor)
        if min(host.std(), donor.std()) < _LEAST_DETAIL:
            continue
        forgery = forge(host, donor, rng)
        change = np.abs(forgery.image.astype(np.int16) - host)[forgery.mask]
        if change.size and change.mean() >= _LEAST_CHANGE:
            return ForgedPhoto(forgery, host, host_name, donor_name)
    raise RuntimeError(f"no forgery of {side} pixels in {_TRIES} tries")


def _host_and_donor(names: tuple[str, ...], rng: np.random.Generator) -> tuple[str, str]:
    host = names[int(rng.integers(len(names)))]
    donors = [n for n in names if n != host and (_is_grey(host) or not _is_grey(n))]
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


def _without_colour(image: ImageArray) -> ImageArray:
    mean = np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(mean, 3, axis=2)
