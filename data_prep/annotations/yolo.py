"""YOLO: one text file an image, one shape a line, in fractions of the image.

A line is `class x y w h` (x, y: the centre), with a confidence behind it or not, or a polygon
`class x y x y x y ...` of three or more corners. An empty file is an image annotated as empty. The
label of a shape is its class number. The image's ending and size are not told.
"""

from pathlib import Path

from boxpromptiml.errors import RejectedInput
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.screen import hull, image_name, number, read_text, screening

_MAX_BYTES = 16 * 2**20
_LISTS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt")  # of names, not shapes


def read(path: Path, location: str = "") -> Annotations:
    """The image of a YOLO file; its name is without ending.

    Raises:
        UserError: If the file cannot be read.
    """
    lines = [line.split() for line in read_text(path, _MAX_BYTES).splitlines()]
    if path.name in _LISTS and any(line and not _is_number(line[-1]) for line in lines):
        return Annotations([], [])
    shapes: list[Shape] = []
    rejected: list[RejectedInput] = []
    for index, words in enumerate(lines, start=1):
        place = f"{path}#{index}"
        if words:
            with screening(place, rejected):
                shapes.append(Shape(place, words[0], _corners([number(w) for w in words[1:]])))
    name = image_name(path.stem, location)
    return Annotations([AnnotatedImage(str(path), name, None, shapes, rejected)], [])


def _corners(values: list[float]) -> Corners:
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"a line has 4, 5 or an even number of values, not {len(values)}")
    return hull(values[::2], values[1::2])


def _is_number(word: str) -> bool:
    try:
        number(word)
    except ValueError:
        return False
    return True
