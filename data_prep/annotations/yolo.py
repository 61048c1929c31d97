"""YOLO: one text file per image, one shape per line, in fractions of the image.

A line is `class x y w h` (x, y: the centre), optionally followed by a confidence, or a polygon
`class x y x y x y ...` of three or more corners. Corners lie in [0, 1], or a
little outside; a line with others is something else, such as a pose with its visible points marked
by 2, and is rejected. An empty file is an image annotated as empty. The
label of a shape is its class number. The image's suffix and size are unknown.

Trackers write `class x y w h confidence id`, which have as many values as triangles.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import RejectedInput, UserError
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.screen import hull, image_name, number, read_text, screening

Lines = Literal["polygons", "tracks"]

_MAX_BYTES = 16 * 2**20
_LISTS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt")  # of names, not shapes
_OUTSIDE = 0.1  # of an image, that a polygon may reach beyond it
_TRACK_WORDS = 7  # class x y w h confidence id


def read(path: Path, location: str = "", lines: Lines | None = None) -> Annotations:
    """Read a YOLO label file (text, of one image), whose image is named alike, of any ending.

    Args:
        path: The file.
        location: Its folder, relative to the user's path.
        lines: Meaning of lines of seven values.

    Raises:
        UserError: If the file cannot be read, or `lines` is None and all its lines of seven values
            end in an integer, as tracks do.
    """
    rows = [line.split() for line in read_text(path, _MAX_BYTES).splitlines()]
    name = path.name.lower()
    may_be_text = name in _LISTS or name.startswith("readme")
    if may_be_text and any(words and not _is_number(words[-1]) for words in rows):
        return Annotations([], [])
    if lines is None and _may_be_tracks(rows):
        raise UserError(
            f"{path}: seven values a line with an integer at the end: are they polygons of three "
            "corners, or boxes with a confidence and a track's id? Say --yolo polygons or tracks"
        )
    shapes: list[Shape] = []
    rejected: list[RejectedInput] = []
    for index, words in enumerate(rows, start=1):
        place = f"{path}#{index}"
        if words:
            with screening(place, rejected):
                values = [number(word) for word in words[1:]]
                if lines == "tracks" and len(words) == _TRACK_WORDS:
                    values = values[:4]
                shapes.append(Shape(place, words[0], _corners(values)))
    image = image_name(path.stem, location)
    return Annotations([AnnotatedImage(str(path), image, None, shapes, rejected)], [])


def _may_be_tracks(rows: Sequence[Sequence[str]]) -> bool:
    ends = [words[-1] for words in rows if len(words) == _TRACK_WORDS]
    return bool(ends) and all(re.fullmatch(r"[0-9]+", end) for end in ends)


def _corners(values: list[float]) -> Corners:
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"a line has 4, 5 or an even number of values, not {len(values)}")
    if outside := [value for value in values if not -_OUTSIDE <= value <= 1 + _OUTSIDE]:
        raise ValueError(f"{outside[0]:g} is no corner of a polygon in fractions: is it a pose?")
    return hull(values[::2], values[1::2])


def _is_number(word: str) -> bool:
    try:
        number(word)
    except ValueError:
        return False
    return True
