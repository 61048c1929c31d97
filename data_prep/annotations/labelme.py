"""LabelMe: one JSON file per image; `imagePath` is relative to that file."""

import math
from pathlib import Path
from typing import Any

from boxpromptiml.errors import RejectedInput, UserError
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.screen import hull, image_name, number, read_json, screening, size_of

_MAX_BYTES = 64 * 2**20  # it may hold the image itself
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def read(path: Path, location: str = "") -> Annotations:
    """Read a LabelMe file (JSON, of one image), with a box around every shape that has an area.

    Args:
        path: The file.
        location: Its folder, relative to the user's path.

    Raises:
        UserError: If the file as a whole is not LabelMe.
    """
    content = read_json(path, _MAX_BYTES)
    try:
        name = image_name(content["imagePath"], location)
        size = size_of(content["imageWidth"], content["imageHeight"])
        nodes = content["shapes"]
        if not isinstance(nodes, list):
            raise TypeError("`shapes` is not a list")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not LabelMe: {error}") from error
    shapes: list[Shape] = []
    rejected: list[RejectedInput] = []
    for index, node in enumerate(nodes):
        place = f"{path}#shapes[{index}]"
        with screening(place, rejected):
            shapes.append(Shape(place, str(node["label"]), _corners(node)))
    return Annotations([AnnotatedImage(str(path), name, size, shapes, rejected)], [])


def _corners(node: dict[str, Any]) -> Corners:
    kind = node.get("shape_type", "polygon")
    if kind in _WITHOUT_AREA:
        raise ValueError(f"a {kind} has no area")
    points = [(number(x), number(y)) for x, y in node["points"]]
    if kind == "circle":  # its centre and a point of its edge
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    return hull([x for x, _ in points], [y for _, y in points])
