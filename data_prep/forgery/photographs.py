"""Which photographs of a folder can be forged: each is inspected before it is used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.geometry import shrink
from boxpromptiml.io import images
from boxpromptiml.io.folders import files_below
from boxpromptiml.records import ImageArray
from data_prep.forgery.outlines import Outlines, read_outlines

_MIN_DETAIL = 8.0  # grey levels, standard deviation; below it is sky or a blank page


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph that can be host and donor.

    Attributes:
        path: Of the file.
        key: Its path below the folder that was named, forward slashes; or its id in a manifest.
        sha256: Of the file.
        format: Of the file, such as JPEG; tells whether its pixels were compressed before.
        size: (H, W) of the stored pixels.
        grey: Whether it has no colour.
        outlines: Compressed run lengths (COCO) of its objects, at the stored size.
        ids: Of all samples of the manifests that have this file; none for a file of a folder.
        group: Of the first of them.
    """

    path: Path
    key: str
    sha256: str
    format: str
    size: tuple[int, int]
    grey: bool
    outlines: tuple[bytes, ...]
    ids: tuple[str, ...] = ()
    group: str | None = None


class InspectedPhoto(NamedTuple):
    """Result of inspecting a file.

    Attributes:
        photo: None if the file was rejected.
        rejected: The file itself, or some of its outlines.
    """

    photo: Photo | None
    rejected: list[RejectedInput]


@dataclass(frozen=True, slots=True)
class PhotoInspector:
    """Decides which files can be forged.

    Attributes:
        outlines: Of the objects in a photograph, by its key.
        max_side: Larger photographs are shrunk to this many pixels before they are forged.
        min_side: Photographs with a side of fewer pixels, after that, are rejected.
    """

    outlines: Mapping[str, Outlines]
    max_side: int | None
    min_side: int

    def __call__(self, file: tuple[str, Path]) -> InspectedPhoto:
        """Inspect one file, given by key and path."""
        try:
            return self._inspect(*file)
        except RejectedInput as error:
            return InspectedPhoto(None, [error])

    def _inspect(self, key: str, path: Path) -> InspectedPhoto:
        if not key.isprintable() or any(0xD800 <= ord(c) < 0xE000 for c in key):
            raise RejectedInput(path, "bad_name", "has a name that is not printable text")
        stored, info = images.read_image(path)
        image = _limited(stored, self.max_side)
        if min(image.shape[:2]) < self.min_side:
            message = f"is {image.shape[1]} x {image.shape[0]}, its sides must be {self.min_side}"
            raise RejectedInput(path, "too_small", message)
        step = max(1, min(image.shape[:2]) // 256)  # a sample of a large photograph is enough
        if float(image[::step, ::step].std()) < _MIN_DETAIL:
            raise RejectedInput(path, "featureless", "shows next to nothing to cut out or to hide")
        grey = not (image != image[..., :1]).any()
        found = self.outlines.get(key)
        kept, rejected = read_outlines(found, info.size) if found else ((), [])
        photo = Photo(path, key, info.sha256, info.format, info.size, grey, kept)
        return InspectedPhoto(photo, rejected)


def list_photographs(folders: list[Path], out: Path) -> list[tuple[str, Path]]:
    """List the files below folders, in order, as pairs of key and path.

    A key is the path below its folder. Hidden files and those below `out` are left out.

    Raises:
        UserError: If a folder does not exist.
    """
    found: list[tuple[str, Path]] = []
    written = out.resolve()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--images {folder}: no such folder")
        found += (
            (path.relative_to(folder).as_posix(), path)
            for path in files_below(folder)
            if written not in _followed(path).parents
        )
    return found


def _followed(path: Path) -> Path:
    """Where links lead; the path itself where they form a circle, so that reading rejects it."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


def load(photo: Photo, max_side: int | None) -> ImageArray:
    """Read a photograph as it is forged.

    Args:
        photo: As inspected.
        max_side: Its longer side is shrunk to this many pixels; None keeps the stored size.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        RejectedInput: If it cannot be read, or is not the file that was inspected.
    """
    image, info = images.read_image(photo.path)
    if info.sha256 != photo.sha256:
        raise RejectedInput(photo.path, "changed", "was changed during the job; run it again")
    return _limited(image, max_side)


def _limited(image: ImageArray, max_side: int | None) -> ImageArray:
    return image if max_side is None else shrink(image, max_side)


def without_colour(image: ImageArray) -> ImageArray:
    """An image (H, W, 3) with every pixel the mean of its three values."""
    mean = np.rint(image.mean(axis=2, keepdims=True)).astype(np.uint8)
    return np.repeat(mean, 3, axis=2)


def named(photo: Photo) -> dict[str, str]:
    """A photograph as provenance records name it."""
    return {"photo": photo.key, "sha256": photo.sha256, "format": photo.format}


def ids_of(*photos: Photo | None) -> tuple[str, ...] | None:
    """All ids of photographs, each once; None if none of them has an id."""
    ids = (name for photo in photos if photo for name in photo.ids)
    return tuple(dict.fromkeys(ids)) or None
