"""Boxes from annotation files."""

from pathlib import Path
from typing import Any, NamedTuple

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifest import parse_json
from boxpromptiml.records import Box

_MAX_BYTES = 512 * 2**20
_OVERSHOOT = 2.0  # pixels a box may leave the image by before it is an error


class Annotated(NamedTuple):
    """What an annotation file says of one image."""

    size: tuple[float, float]  # (H, W) that the boxes refer to
    boxes: tuple[Box, ...]


def read_coco(path: Path) -> tuple[dict[str, Annotated], list[RejectedInput]]:
    """Boxes by image file name from COCO JSON; one bad annotation does not lose the rest.

    COCO's `bbox` is [x, y, width, height] in pixels of the stored image. Boxes may overshoot the
    image by 2 pixels and are cut; an image of the list without annotations has an empty tuple.

    Returns:
        The boxes, and what was rejected.

    Raises:
        UserError: If the file as a whole is not COCO.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise UserError(f"{path}: larger than {_MAX_BYTES >> 20} MiB")
    try:
        content = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise UserError(f"{path}: not COCO: needs the lists `images` and `annotations`")
    rejected: list[RejectedInput] = []
    sizes: dict[Any, tuple[str, float, float]] = {}
    boxes: dict[str, list[Box]] = {}
    for number, image in enumerate(content["images"]):
        try:
            name, width, height = image["file_name"], float(image["width"]), float(image["height"])
            if not isinstance(name, str) or name in boxes or image["id"] in sizes:
                raise ValueError("file_name or id is not unique text")
            sizes[image["id"]] = (name, width, height)
            boxes[name] = []
        except (KeyError, TypeError, ValueError) as error:
            rejected.append(_rejection(path, f"images[{number}]", error))
    for number, annotation in enumerate(content["annotations"]):
        try:
            name, width, height = sizes[annotation["image_id"]]
            boxes[name].append(_box(annotation["bbox"], width, height))
        except (KeyError, TypeError, ValueError) as error:
            rejected.append(_rejection(path, f"annotations[{number}]", error))
    annotated = {
        name: Annotated((height, width), tuple(boxes[name]))
        for name, width, height in sizes.values()
    }
    return annotated, rejected


def _box(bbox: Any, width: float, height: float) -> Box:
    x, y, w, h = (float(v) for v in bbox)
    if not (w > 0 and h > 0 and max(abs(x), abs(y), w, h) < 1e6):
        raise ValueError(f"bbox {bbox} is empty, inverted or not finite")
    if min(x, y) < -_OVERSHOOT or x + w > width + _OVERSHOOT or y + h > height + _OVERSHOOT:
        raise ValueError(f"bbox {bbox} leaves the image of {width:.0f} x {height:.0f}")
    box = Box(max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height))
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise ValueError(f"bbox {bbox} lies outside the image")
    return box


def _rejection(path: Path, place: str, error: Exception) -> RejectedInput:
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return RejectedInput(f"{path}#{place}", "bad_annotation", what)
