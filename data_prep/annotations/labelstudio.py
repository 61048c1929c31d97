"""Label Studio's own JSON: a list of tasks, each an image with its annotations.

Coordinates are percent of the displayed picture. Label Studio puts eight digits before the name of
an uploaded file, which `import-boxes --join name` ignores.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from boxpromptiml.errors import RejectedInput
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.screen import (
    around_ellipse,
    hull,
    image_name,
    number,
    read_json_list,
    screening,
    size_of,
    turned,
)

_MAX_BYTES = 512 * 2**20
_WITHOUT_SHAPE = ("choices", "rating", "textarea", "number", "taxonomy", "datetime", "pairwise")


def read(path: Path) -> Annotations:
    """Read all images of a Label Studio export, a JSON list of tasks.

    A task without annotations counts as not annotated, not as authentic.

    Raises:
        UserError: If the file as a whole is not a list of tasks.
    """
    images: list[AnnotatedImage] = []
    rejected: list[RejectedInput] = []
    for index, task in enumerate(read_json_list(path, _MAX_BYTES)):
        place = f"{path}#[{index}]"
        with screening(place, rejected):
            images.append(_image(place, task))
    return Annotations(images, rejected)


def _image(place: str, task: Mapping[str, Any]) -> AnnotatedImage:
    if "data" not in task:
        raise ValueError("no `data`; export the project as JSON, not as JSON-MIN")
    name = _name(task["data"])
    finished = [one for one in task["annotations"] if not one.get("was_cancelled")]
    if not finished:
        return AnnotatedImage(place, name, None, [], [], annotated=False)
    if len(finished) > 1:
        raise ValueError(f"{len(finished)} annotations of one image; keep the one that counts")
    size: tuple[float, float] | None = None
    shapes: list[Shape] = []
    rejected: list[RejectedInput] = []
    for number_, result in enumerate(finished[0]["result"]):
        where = f"{place}/result[{number_}]"
        with screening(where, rejected):
            kind = str(result["type"])
            if kind in _WITHOUT_SHAPE:
                continue
            size = size_of(result["original_width"], result["original_height"])
            label = str(next(iter(result["value"].get(kind, ())), ""))
            shapes.append(Shape(where, label, _corners(kind, result["value"], size)))
    return AnnotatedImage(place, name, size, shapes, rejected)


def _name(data: Mapping[str, Any]) -> str:
    """The image of a task: its key `image`, or its only text."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get("image", texts[0] if len(texts) == 1 else None)
    if not isinstance(address, str):
        raise TypeError("`data` names no image")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")  # /data/local-files/?d=photos/x.jpg
    return image_name(local[0] if local else unquote(parts.path))


def _corners(kind: str, value: Mapping[str, Any], size: tuple[float, float]) -> Corners:
    height, width = size[0] / 100, size[1] / 100  # pixels a percent
    if kind.startswith("rectangle"):
        x, y, w, h = (number(value[key]) for key in ("x", "y", "width", "height"))
        corners = x * width, y * height, (x + w) * width, (y + h) * height
        return turned(corners, number(value.get("rotation") or 0), about=corners[:2])
    if kind.startswith("ellipse"):
        x, y, right, down = (number(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
        middle, radii = (x * width, y * height), (right * width, down * height)
        return around_ellipse(middle, radii, number(value.get("rotation") or 0))
    if kind.startswith("polygon"):
        points = [(number(x) * width, number(y) * height) for x, y in value["points"]]
        return hull([x for x, _ in points], [y for _, y in points])
    raise ValueError(f"{kind:.40} is not read; export it as COCO")
