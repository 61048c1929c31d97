"""The photographs that ship inside scikit-image's wheel, divided into training, val and test.

Nothing is downloaded: scikit-image fetches most of its pictures on demand, but these files are
part of every installation. Of most of them the left half serves training and the right half the
test; three whole ones serve validation. No pixel is in two splits.
"""

import importlib.util
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.images import read_image, write_png
from boxpromptiml.records import ImageArray, Split

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
    """Columns of the file `photo`: from `start` to `stop`, as fractions of its width."""

    photo: str
    start: float
    stop: float

    @property
    def name(self) -> str:
        """Distinct for areas that do not overlap, such as `coffee_50_100` (percent)."""
        return f"{Path(self.photo).stem}_{self.start:.0%}_{self.stop:.0%}".replace("%", "")

    @property
    def pixels(self) -> ImageArray:
        """(H, W, 3) uint8 RGB, a read-only view.

        Raises:
            UserError: If the photograph is missing or damaged.
        """
        photo = bundled_photo(self.photo)
        width = photo.shape[1]
        return photo[:, round(self.start * width) : round(self.stop * width)]


SPLIT_AREAS: dict[Split, tuple[Area, ...]] = {
    "train": tuple(Area(name, 0.0, 0.5) for name in _HALVED),
    "val": tuple(Area(name, 0.0, 1.0) for name in _WHOLE),
    "test": tuple(Area(name, 0.5, 1.0) for name in _HALVED),
}
_MIN_DETAIL = 8.0  # grey levels, standard deviation; a crop below it is sky or frame
_MAX_TRIES = 50


@cache
def bundled_photo(name: str) -> ImageArray:
    """Pixels of a photograph of scikit-image's wheel.

    Args:
        name: Of the file, such as `coffee.png`.

    Returns:
        (H, W, 3) uint8 RGB, read-only.

    Raises:
        UserError: If scikit-image is not installed, or its file is missing or damaged.
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


def write_crops(
    folder: Path, split: Split, count: int, side: int, rng: np.random.Generator
) -> None:
    """Write random square crops of the photographs of a split, at the stored resolution.

    Every area is a subfolder, so that crops of one scene can be told from those of another.
    No two crops are equal, and none is without detail (sky, the black frame of a picture).

    Args:
        folder: To write FOLDER/AREA/NUMBER.png into; the areas come in turn.
        split: Which areas are cropped.
        count: Number of crops.
        side: Of a crop in pixels, at most 192.
        rng: Decides the places.

    Raises:
        ValueError: If an area is smaller than `side`.
        RuntimeError: If an area has too few such crops.
        UserError: If a photograph is missing.
    """
    areas = SPLIT_AREAS[split]
    used: set[tuple[str, int, int]] = set()
    for number in range(count):
        area = areas[number % len(areas)]
        row, column = _place(area, side, rng, used)
        crop = area.pixels[row : row + side, column : column + side]
        write_png(folder / area.name / f"{number:04d}.png", np.ascontiguousarray(crop))


def _place(
    area: Area, side: int, rng: np.random.Generator, used: set[tuple[str, int, int]]
) -> tuple[int, int]:
    """Row and column of a crop that shows something and is not in `used`, to which it is added.

    Raises:
        ValueError: If the area is smaller than `side`.
        RuntimeError: If no such crop is found.
    """
    height, width = area.pixels.shape[:2]
    if side > min(height, width):
        raise ValueError(f"no crop of {side} pixels in an area of {width} x {height}")
    for _ in range(_MAX_TRIES):
        row, column = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = area.pixels[row : row + side, column : column + side]
        place = (area.name, row, column)
        if place not in used and crop.std() >= _MIN_DETAIL:
            used.add(place)
            return row, column
    raise RuntimeError(f"{area.name} has no other crop of {side} pixels that shows anything")
