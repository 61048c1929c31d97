"""Which photographs of a folder can be forged: every file is looked at before any is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.records import ImageArray
from boxpromptiml.synth.degradation import rescale
from data_prep.forgery.outlines import Outlines, read_outlines

_MIN_DETAIL = 8.0  # grey levels, standard deviation; below it is sky or a blank page


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph that can be host and donor.

    Attributes:
        key: Its path below the folder that was named, forward slashes.
        sha256: Of the file.
        format: Of the file, such as JPEG: whether its pixels were compressed before.
        size: (H, W) of the stored pixels.
        grey: It has no colour.
        outlines: Compressed run lengths (COCO) of its objects, at the stored size.
    """

    path: Path
    key: str
    sha256: str
    format: str
    size: tuple[int, int]
    grey: bool
    outlines: tuple[bytes, ...]


class Screened(NamedTuple):
    """What a look at one file gave; `rejected` is the file itself or some of its outlines."""

    photo: Photo | None
    rejected: list[RejectedInput]


def list_photographs(folders: list[Path], out: Path) -> list[tuple[str, Path]]:
    """Files below folders with their keys; hidden ones and those below `out` are left out.

    Raises:
        UserError: If a folder is none.
    """
    found: list[tuple[str, Path]] = []
    ours = out.resolve()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--photos {folder}: no such folder")
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            hidden = any(part.startswith(".") for part in relative.parts)
            if not (hidden or path.is_dir() or ours in _followed(path).parents):
                found.append((relative.as_posix(), path))
    return found


def _followed(path: Path) -> Path:
    """Where links lead; the path itself where they lead in a circle, for reading to reject it."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def load(photo: Photo, max_side: int | None) -> ImageArray:
    """Pixels of a photograph as they are forged.

    Raises:
        RejectedInput: If it cannot be read, or is not the file that was screened.
    """
    image, info = images.read_image(photo.path)
    if info.sha256 != photo.sha256:
        raise RejectedInput(photo.path, "changed", "was changed during the job; run it again")
    return _limited(image, max_side)


def _limited(image: ImageArray, max_side: int | None) -> ImageArray:
    longest = max(image.shape[:2])
    return image if max_side is None or longest <= max_side else rescale(image, max_side / longest)


@dataclass(frozen=True)
class Screening:
    """The work on one file, given as key and path: a look whether it can be forged."""

    files: tuple[tuple[str, Path], ...]
    outlines: Mapping[str, Outlines]
    max_side: int | None
    min_side: int

    def __call__(self, file: tuple[str, Path]) -> Screened:
        """Look at one file; what is wrong with it becomes a rejection."""
        key, path = file
        try:
            return self._screen(key, path)
        except RejectedInput as error:
            return Screened(None, [error])

    def _screen(self, key: str, path: Path) -> Screened:
        if not key.isprintable() or any(0xD800 <= ord(c) < 0xE000 for c in key):
            raise RejectedInput(path, "bad_name", "has a name that is not printable text")
        stored, info = images.read_image(path)
        image = _limited(stored, self.max_side)
        if min(image.shape[:2]) < self.min_side:
            message = f"is {image.shape[1]} x {image.shape[0]}, its sides must be {self.min_side}"
            raise RejectedInput(path, "too_small", message)
        step = max(1, min(image.shape[:2]) // 256)  # a large photograph is looked at in points
        if float(image[::step, ::step].std()) < _MIN_DETAIL:
            raise RejectedInput(path, "featureless", "shows next to nothing to cut out or to hide")
        grey = not (image != image[..., :1]).any()
        found = self.outlines.get(key)
        kept, rejected = read_outlines(found, info.size) if found else ((), [])
        return Screened(Photo(path, key, info.sha256, info.format, info.size, grey, kept), rejected)
