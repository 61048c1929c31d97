"""COCO JSON: `images`, `annotations` and, for labels, `categories`.

`bbox` is [x, y, width, height] in pixels of the stored image; where it is missing, the box is that
of `segmentation` (polygons or run lengths). A listed image without annotations was annotated as
empty, unless its `annotated` says false, as `export-boxes` writes it. Images that share an id or a
name are all rejected: nobody knows which one an annotation means.

The file is read whole, for its ids may point anywhere: some seven times its size in memory, eleven
with boxes alone. COCO's own instances_train2017.json, 450 MB, is below the limit.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, get_args

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.records import Box, BoxOrigin
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.rle import rle_corners
from data_prep.annotations.screen import (
    boxes_of,
    hull,
    image_name,
    number,
    read_json,
    screening,
    size_of,
)

_MAX_BYTES = 512 * 2**20


def read(path: Path) -> Annotations:
    """All images of a COCO file; one bad annotation does not lose the rest.

    Raises:
        UserError: If the file as a whole is not COCO.
    """
    content = read_content(path)
    rejected: list[RejectedInput] = []
    entries: dict[Any, AnnotatedImage] = {}  # by COCO's image id
    twice = repeated(content["images"], path)
    for index, image in enumerate(content["images"]):
        place = f"{path}#images[{index}]"
        with screening(place, rejected):
            name, size = name_and_size(image, twice)
            annotated = image.get("annotated") is not False
            origin = _common_origin({_origin(image)})
            entries[image["id"]] = AnnotatedImage(place, name, size, [], [], annotated, origin)
    labels = _labels(content, path)
    origins: dict[Any, set[str | None]] = {}
    for index, annotation in enumerate(content["annotations"]):
        place = f"{path}#annotations[{index}]"
        with screening(place, rejected):
            if annotation["image_id"] not in entries:
                raise ValueError(f"there is no sound image {annotation['image_id']!r:.40}")
            entry = entries[annotation["image_id"]]
            origins.setdefault(annotation["image_id"], set()).add(
                _origin(annotation.get("attributes"))
            )
            with screening(place, entry.rejected):
                label = labels.get(annotation.get("category_id"), "")
                entry.shapes.append(Shape(place, label, _corners(annotation, entry)))
    return Annotations(
        [
            entry._replace(origin=_common_origin(origins[key])) if key in origins else entry
            for key, entry in entries.items()
        ],
        rejected,
    )


def read_content(path: Path) -> dict[str, Any]:
    """The object of a COCO file, of which `images` and `annotations` are lists; or `UserError`."""
    content = read_json(path, _MAX_BYTES)
    if not all(isinstance(content.get(key), list) for key in ("images", "annotations")):
        raise UserError(f"{path}: not COCO: needs the lists `images` and `annotations`")
    return content


def repeated(images: list[Any], path: Path) -> set[tuple[str, Any]]:
    """Every `("id", …)` and `("file_name", …)` that more than one image has."""
    unread: list[RejectedInput] = []  # whoever reads the image itself reports it
    seen: Counter[tuple[str, Any]] = Counter()
    place = f"{path}#images"
    for image in images:
        with screening(place, unread):
            seen["id", image["id"]] += 1
        with screening(place, unread):
            seen["file_name", image_name(image["file_name"])] += 1
    return {key for key, count in seen.items() if count > 1}


def name_and_size(
    image: dict[str, Any], twice: set[tuple[str, Any]]
) -> tuple[str, tuple[float, float]]:
    """Name and (H, W) of an image with an id and a name of its own.

    Raises:
        KeyError, TypeError, ValueError: Where it has not; for `screening`.
    """
    name = image_name(image["file_name"])
    if ("id", image["id"]) in twice or ("file_name", name) in twice:
        raise ValueError("another image has the same id or file_name")
    return name, size_of(image["width"], image["height"])


def _labels(content: dict[str, Any], path: Path) -> dict[Any, str]:
    unlabelled: list[RejectedInput] = []  # a label is only needed where labels are chosen
    labels: dict[Any, str] = {}
    categories = content.get("categories")
    for category in categories if isinstance(categories, list) else ():
        with screening(f"{path}#categories", unlabelled):
            labels[category["id"]] = str(category["name"])
    return labels


def _corners(annotation: dict[str, Any], entry: AnnotatedImage) -> Corners:
    bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    if bbox or not segmentation:
        if not isinstance(bbox, list):
            raise TypeError("bbox is not a list")
        x, y, width, height = (number(value) for value in bbox)
        return x, y, x + width, y + height
    if isinstance(segmentation, dict):
        return rle_corners(segmentation, entry.size or (0, 0))
    points = [number(value) for polygon in segmentation for value in polygon]
    if any(len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon has an odd number of coordinates")
    return hull(points[::2], points[1::2])


def _origin(attributes: object) -> str | None:
    origin = attributes.get("box_origin", "") if isinstance(attributes, dict) else ""
    return origin if origin is None else str(origin)


def _common_origin(origins: set[str | None]) -> BoxOrigin | None:
    """What all boxes of an image say; where they say nothing or differ, a person drew them."""
    known: tuple[BoxOrigin | None, ...] = (*get_args(BoxOrigin), None)
    return next((origin for origin in known if origins == {origin}), "human")


class Annotated(NamedTuple):
    """What an annotation file says of one image."""

    size: tuple[float, float]  # (H, W) that the boxes refer to
    boxes: tuple[Box, ...]


def read_coco(path: Path) -> tuple[dict[str, Annotated], list[RejectedInput]]:
    """Boxes by image file name from COCO JSON; one bad annotation does not lose the rest.

    Boxes may overshoot the image by 2 pixels and are cut. An image of the list without annotations
    has an empty tuple; one of which every box is bad is left out, as is one that was not annotated.

    Returns:
        The boxes, and what was rejected.

    Raises:
        UserError: If the file as a whole is not COCO.
    """
    found = read(path)
    annotated: dict[str, Annotated] = {}
    rejected: list[RejectedInput] = []
    for entry in found.entries:
        height, width = entry.size or (0, 0)
        boxes, bad = boxes_of(entry, (int(height), int(width)))
        rejected += bad
        if entry.annotated and (boxes or not bad):
            annotated[entry.name] = Annotated((height, width), boxes)
    return annotated, rejected + found.rejected
