"""What every annotation passes: caps on files, strict JSON, XML without DTD, boxes inside."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.strict_json import parse_json
from boxpromptiml.records import Box
from data_prep.annotations import AnnotatedImage, Corners

_OVERSHOOT = 2.0  # pixels a box may leave the image by before it is an error
_MAX_REJECTED = 100_000  # of one list; some 60 MB
_MAX_XML_BYTES = 32 * 2**20  # the tree in memory is some twenty times the file


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """A whole regular file (never a FIFO), or `UserError`."""
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if path.stat().st_size > max_bytes:
            raise UserError(f"{path}: larger than {max_bytes >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def read_text(path: Path, max_bytes: int) -> str:
    """A UTF-8 file, with or without a byte order mark."""
    try:
        return read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: {error}") from error


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """A JSON object, by the strict rules of `strict_json.parse_json`."""
    content = parse_json(read_text(path, max_bytes), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content


def read_xml(path: Path, root: str, max_bytes: int = _MAX_XML_BYTES) -> Element:
    """The root element of an XML file, which must be named `root`; any DTD is refused."""
    data = read_bytes(path, max_bytes)
    try:
        element: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"{path}: not acceptable XML: {error} ({type(error).__name__})") from error
    if element.tag != root:
        raise UserError(f"{path}: the outermost element is <{element.tag:.40}>, not <{root}>")
    return element


@contextmanager
def screening(place: str, rejected: list[RejectedInput]) -> Iterator[None]:
    """Turn what malformed content raises inside into a rejection; the rest goes on.

    Raises:
        UserError: If so much was rejected that the file cannot be what it is taken for.
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
    """A finite number from JSON or from text; `ValueError` for all else."""
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
    """(H, W) of an image, positive; `ValueError` where a file does not tell it."""
    size = number(height), number(width)
    if min(size) <= 0:
        raise ValueError(f"an image cannot be of {size[1]:g} x {size[0]:g}")
    return size


def hull(x: Sequence[float], y: Sequence[float]) -> Corners:
    """The upright box around points; `ValueError` for none."""
    return min(x), min(y), max(x), max(y)


def image_name(name: object, location: str = "") -> str:
    r"""The path that an annotation joins by.

    A bare file name lies where its annotation lies (`location`, the folder relative to what the
    user gave); a path is taken as it is. Windows paths are turned, `..` and roots are dropped.

    Example:
        >>> image_name("x.jpg", "b"), image_name("..\\a\\x.jpg", "b")
        ('b/x.jpg', 'a/x.jpg')
    """
    if not isinstance(name, str):
        raise TypeError("the image's name is not text")
    turned = name.replace("\\", "/")
    path = turned if "/" in turned else f"{location}/{turned}"
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if not parts:
        raise ValueError("the image's name is empty")
    return "/".join(parts)


def boxes_of(
    entry: AnnotatedImage, size: tuple[int, int], labels: Collection[str] = ()
) -> tuple[tuple[Box, ...], list[RejectedInput]]:
    """The sound boxes of one image of `size` (H, W), and what was rejected.

    Args:
        labels: Keep only boxes of these labels; every box for none.
    """
    boxes: list[Box] = []
    rejected = list(entry.rejected)
    height, width = (1, 1) if entry.size else size  # what a unit of the corners is in pixels
    for shape in entry.shapes:
        if labels and shape.label not in labels:
            continue
        with screening(shape.place, rejected):
            x0, y0, x1, y1 = shape.corners
            boxes.append(_box((x0 * width, y0 * height, x1 * width, y1 * height), size))
    return tuple(boxes), rejected


def _box(corners: Corners, size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = corners
    height, width = size
    text = f"box {x0:g} {y0:g} {x1:g} {y1:g}"
    if not (x0 < x1 and y0 < y1 and max(map(abs, corners)) < 1e6):
        raise ValueError(f"{text} is empty, inverted or not finite")
    if min(x0, y0) < -_OVERSHOOT or x1 > width + _OVERSHOOT or y1 > height + _OVERSHOOT:
        raise ValueError(f"{text} leaves the image of {width} x {height}")
    box = Box(max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise ValueError(f"{text} lies outside the image")
    return box
