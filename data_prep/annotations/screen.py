"""Shared by the annotation readers: bounded files, JSON, XML without DTD, tables, numbers."""

import csv
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import files
from boxpromptiml.io.strict_json import parse_json
from data_prep.annotations import Corners

T = TypeVar("T")

_MAX_REJECTED = 100_000  # of one list; some 60 MB
_MAX_NAME = 4096  # characters; the longest path of Linux in bytes
_MAX_XML_BYTES = 32 * 2**20  # the tree in memory is some twenty times the file


def read_text(path: Path, max_bytes: int) -> str:
    """A UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: As `files.read_text`.
    """
    return files.read_text(path, max_bytes).removeprefix("\ufeff")


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """A JSON object, by the strict rules of `strict_json.parse_json`.

    Raises:
        UserError: If the file cannot be read or is not a JSON object.
    """
    return _json(path, max_bytes, dict, "object")


def read_json_list(path: Path, max_bytes: int) -> list[Any]:
    """A JSON array, by the strict rules of `strict_json.parse_json`.

    Raises:
        UserError: If the file cannot be read or is not a JSON array.
    """
    return _json(path, max_bytes, list, "array")


def _json(path: Path, max_bytes: int, kind: type[T], name: str) -> T:
    content = parse_json(read_text(path, max_bytes), str(path))
    if not isinstance(content, kind):
        raise UserError(f"{path}: not a JSON {name}")
    return content


def read_xml(path: Path, root: str, max_bytes: int = _MAX_XML_BYTES) -> Element:
    """The root element of an XML file, which must be named `root`; any DTD is refused.

    Raises:
        UserError: If it is not XML, has a DTD, or another root element.
    """
    data = files.read_bytes(path, max_bytes)
    try:
        element: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{path}: not acceptable XML: {error} ({type(error).__name__})") from error
    if element.tag != root:
        raise UserError(f"{path}: the outermost element is <{element.tag:.40}>, not <{root}>")
    return element


def read_table(
    path: Path,
    max_bytes: int,
    required: Collection[str],
    optional: Collection[str],
    other_names: Mapping[str, str],
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column of each row of a CSV file with a header.

    Args:
        path: The file.
        max_bytes: Larger files are refused.
        required: Columns that must be there.
        optional: Columns that may be there.
        other_names: Further names of columns, with the name used here.

    Raises:
        UserError: If the file cannot be read, columns are missing or unknown, or a row has another
            number of cells than the header.
    """
    rows = csv.reader(read_text(path, max_bytes).splitlines(keepends=True), strict=True)
    try:
        header = [other_names.get(name, name) for name in map(str.strip, next(rows, []))]
        known = [*required, *optional]
        wrong = [f"no column {name!r}" for name in required if name not in header]
        wrong += [f"unknown column {name!r:.40}" for name in header if name not in known]
        if wrong or len(set(header)) < len(header):
            why = wrong[0] if wrong else "a column is there twice"
            raise UserError(f"{path}: line 1: {why}; the columns are {', '.join(known)}")
        for row in rows:
            if row and len(row) != len(header):
                message = f"{len(row)} cells, but {len(header)} columns"
                raise UserError(f"{path}: line {rows.line_num}: {message}")
            if row:
                yield rows.line_num, dict(zip(header, map(str.strip, row), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num}: {error}") from error


@contextmanager
def screening(place: str, rejected: list[RejectedInput]) -> Iterator[None]:
    """Turn errors of malformed content into a rejection, and continue.

    Raises:
        UserError: If so much was rejected that the file must be of another format.
    """
    if len(rejected) == _MAX_REJECTED:
        raise UserError(f"{place}: {_MAX_REJECTED} entries are broken, the first: {rejected[0]}")
    try:
        yield
    except KeyError as error:
        rejected.append(RejectedInput(place, "bad_annotation", f"no {error}"))
    except (TypeError, ValueError) as error:
        rejected.append(RejectedInput(place, "bad_annotation", str(error)[:300]))


def number(value: object) -> float:
    """A finite number from JSON or text.

    Raises:
        ValueError: If it is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    try:
        result = float(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{str(value)[:40]!r} is not a number") from error
    if not math.isfinite(result):
        raise ValueError(f"{result} is not a finite number")
    return result


def size_of(width: object, height: object) -> tuple[float, float]:
    """(H, W) of an image from what a file says of its width and height, numbers or text.

    Raises:
        ValueError: If it is missing or not positive.
    """
    size = number(height), number(width)
    if min(size) <= 0:
        raise ValueError(f"an image cannot be of {size[1]:g} x {size[0]:g}")
    return size


def turned(corners: Corners, degrees: float, about: tuple[float, float] | None = None) -> Corners:
    """The upright box around a box rotated, by default, about its centre.

    Args:
        corners: x0 y0 x1 y1 before the rotation.
        degrees: Clockwise, since y runs down.
        about: The centre (x, y) of the rotation.
    """
    x0, y0, x1, y1 = corners
    if degrees == 0:
        return corners
    x, y = about or ((x0 + x1) / 2, (y0 + y1) / 2)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points = [(a - x, b - y) for a in (x0, x1) for b in (y0, y1)]
    return hull(
        [x + a * cosine - b * sine for a, b in points],
        [y + a * sine + b * cosine for a, b in points],
    )


def around_ellipse(
    middle: tuple[float, float], radii: tuple[float, float], degrees: float
) -> Corners:
    """The upright box around an ellipse.

    Args:
        middle: Centre (x, y).
        radii: Of the ellipse along x and y before it is rotated.
        degrees: Rotation about the centre; its sign makes no difference.
    """
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right = math.hypot(radii[0] * cosine, radii[1] * sine)
    down = math.hypot(radii[0] * sine, radii[1] * cosine)
    return middle[0] - right, middle[1] - down, middle[0] + right, middle[1] + down


def hull(x: Sequence[float], y: Sequence[float]) -> Corners:
    """The upright box x0 y0 x1 y1 around points.

    Raises:
        ValueError: If there are no points.
    """
    return min(x), min(y), max(x), max(y)


def image_name(name: object, location: str = "") -> str:
    r"""The path by which an annotation is joined.

    A bare file name lies where its annotation lies (`location`, the folder relative to what the
    user gave); a path is used as it is. Windows paths are converted, `..` and roots are dropped.

    Raises:
        TypeError, ValueError: If it is not a text, empty or too long.

    Example:
        >>> image_name("x.jpg", "b"), image_name("..\\a\\x.jpg", "b")
        ('b/x.jpg', 'a/x.jpg')
    """
    if not isinstance(name, str):
        raise TypeError("the image's name is not text")
    if len(name) > _MAX_NAME:
        raise ValueError(f"the image's name has {len(name)} characters")
    turned = name.replace("\\", "/")
    path = turned if "/" in turned else f"{location}/{turned}"
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if not parts:
        raise ValueError("the image's name is empty")
    return "/".join(parts)
