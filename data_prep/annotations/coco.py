"""COCO JSON: `images`, `annotations` and, for labels, `categories`.

`bbox` is [x, y, width, height] in pixels of the picture it was drawn on; where it is missing, the
box is that of `segmentation` (polygons or run lengths). CVAT stores the rotation of a box in
`attributes.rotation`. Ids are compared as text: tools disagree on 1 and "1".

A listed image without annotations was annotated as empty, unless its `annotated` is false, as
`export-boxes` writes it, or the file has annotations of no listed image, which may be its own.
Images that share an id or a name are all rejected, since annotations would be ambiguous.

The file is read as a whole, since ids may refer to anything in it; this takes about seven times its
size in memory, eleven with boxes alone. COCO's own instances_train2017.json, 450 MB, is below the
limit.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal, get_args

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.records import BoxOrigin
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.fitting import OVERSHOOT, leaves
from data_prep.annotations.rle import rle_corners
from data_prep.annotations.screen import (
    hull,
    image_name,
    number,
    read_json,
    screening,
    size_of,
    turned,
)

_MAX_BYTES = 512 * 2**20
_MAX_LEAVING = 0.2  # of a file's boxes; more were not written as width and height

_Origins = set[str | None]


def read(path: Path) -> Annotations:
    """Read all images of a COCO file; a bad annotation does not affect the others.

    Raises:
        UserError: If the file as a whole is not COCO, or its boxes are corners.
    """
    content = read_content(path)
    rejected: list[RejectedInput] = []
    images: dict[str, AnnotatedImage] = {}  # by COCO's image id
    listed: set[str] = set()  # also those that are rejected
    twice = repeated(content["images"], path)
    for index, image in enumerate(content["images"]):
        place = f"{path}#images[{index}]"
        with screening(place, rejected):
            listed.add(key := id_text(image["id"]))
            name, size = name_and_size(image, twice)
            annotated = image.get("annotated") is not False
            origin = _common_origin({_origin(image)})
            images[key] = AnnotatedImage(place, name, size, [], [], annotated, origin)
    _refuse_corners(content["annotations"], images, path)
    labels = _labels(content, path)
    origins: dict[str, _Origins] = {}
    is_left_over = False
    for index, annotation in enumerate(content["annotations"]):
        place = f"{path}#annotations[{index}]"
        image_id = _image_id(annotation)
        if image_id is None or image_id not in images:
            is_left_over |= image_id not in listed
            with screening(place, rejected):
                raise ValueError(f"there is no sound image {image_id!r:.40}")
        else:
            shown = images[image_id]
            origins.setdefault(image_id, set()).add(_origin(annotation.get("attributes")))
            with screening(place, shown.rejected):
                label = labels.get(str(annotation.get("category_id")), "")
                shown.shapes.append(Shape(place, label, _corners(annotation, shown)))
    return Annotations(
        [_finished(i, origins.get(k), is_left_over) for k, i in images.items()], rejected
    )


def _finished(
    image: AnnotatedImage, origins: _Origins | None, is_left_over: bool
) -> AnnotatedImage:
    """An image after all annotations of its file were read."""
    if origins:
        return image._replace(origin=_common_origin(origins))
    return image._replace(annotated=image.annotated and not is_left_over)


def id_text(value: object) -> str:
    """An id as text, so that 1 and "1" are equal.

    Raises:
        TypeError: If it is neither a number nor a text.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{str(value)[:40]!r} is not an id")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _image_id(annotation: object) -> str | None:
    """The image that an annotation names; None if it names none."""
    try:
        return id_text(annotation["image_id"])  # type: ignore[index] # whatever is in the file
    except (KeyError, TypeError, IndexError):
        return None


def read_content(path: Path) -> dict[str, Any]:
    """The content of a COCO file, whose `images` and `annotations` are lists.

    Raises:
        UserError: If the file cannot be read or is not COCO.
    """
    content = read_json(path, _MAX_BYTES)
    if not all(isinstance(content.get(key), list) for key in ("images", "annotations")):
        raise UserError(f"{path}: not COCO: needs the lists `images` and `annotations`")
    return content


def repeated(images: list[Any], path: Path) -> set[tuple[str, str]]:
    """Every `("id", …)` and `("file_name", …)` that more than one of the entries `images` has."""
    unread: list[RejectedInput] = []  # whoever reads the image itself reports it
    seen: Counter[tuple[str, str]] = Counter()
    place = f"{path}#images"
    for image in images:
        with screening(place, unread):
            seen["id", id_text(image["id"])] += 1
        with screening(place, unread):
            seen["file_name", image_name(image["file_name"])] += 1
    return {key for key, count in seen.items() if count > 1}


def name_and_size(
    image: dict[str, Any], twice: set[tuple[str, str]]
) -> tuple[str, tuple[float, float]]:
    """Name and (H, W) of an image in the list `images`.

    Args:
        image: The entry.
        twice: What `repeated` found.

    Raises:
        KeyError, TypeError, ValueError: If name, id or size are missing or wrong, or another image
            has the same; `screening` handles them.
    """
    name = image_name(image["file_name"])
    if ("id", id_text(image["id"])) in twice or ("file_name", name) in twice:
        raise ValueError("another image has the same id or file_name")
    return name, size_of(image["width"], image["height"])


def _refuse_corners(annotations: list[Any], images: dict[str, AnnotatedImage], path: Path) -> None:
    """Refuse a file whose boxes are [x0, y0, x1, y1]: some would fit by chance and be wrong."""
    unread: list[RejectedInput] = []
    count = leaving = 0
    for annotation in annotations:
        image = images.get(_image_id(annotation) or "")
        if image is None or image.size is None or not isinstance(annotation.get("bbox"), list):
            continue
        with screening(str(path), unread):
            a, b, c, d = (number(value) for value in annotation["bbox"])
            fits_as_corners = -OVERSHOOT <= a < c and -OVERSHOOT <= b < d
            if not fits_as_corners or leaves((a, b, c, d), image.size):
                return
            count += 1
            leaving += leaves((a, b, a + c, b + d), image.size)
    if leaving and leaving >= _MAX_LEAVING * count:
        raise UserError(
            f"{path}: {leaving} of {count} boxes leave their images as [x, y, width, height], and "
            "all fit as corners [x0, y0, x1, y1]; write `bbox` as COCO has it: x, y, width, height"
        )


def _labels(content: dict[str, Any], path: Path) -> dict[str, str]:
    unlabelled: list[RejectedInput] = []  # a label is only needed where labels are chosen
    labels: dict[str, str] = {}
    categories = content.get("categories")
    for category in categories if isinstance(categories, list) else ():
        with screening(f"{path}#categories", unlabelled):
            labels[str(category["id"])] = str(category["name"])
    return labels


def _corners(annotation: dict[str, Any], image: AnnotatedImage) -> Corners:
    bbox, segmentation = annotation.get("bbox"), annotation.get("segmentation")
    if bbox or not segmentation:
        if not isinstance(bbox, list):
            raise TypeError("bbox is not a list")
        x, y, width, height = (number(value) for value in bbox)
        attributes = annotation.get("attributes")
        degrees = attributes.get("rotation") if isinstance(attributes, dict) else None
        return turned((x, y, x + width, y + height), number(degrees or 0))
    if isinstance(segmentation, dict):
        return rle_corners(segmentation, image.size or (0, 0))
    points = [number(value) for polygon in segmentation for value in polygon]
    if any(len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon has an odd number of coordinates")
    return hull(points[::2], points[1::2])


def _origin(attributes: object) -> str | None:
    """The `box_origin` of an object; empty where it has none."""
    origin = attributes.get("box_origin", "") if isinstance(attributes, dict) else ""
    return origin if origin is None else str(origin)


def _common_origin(origins: _Origins) -> BoxOrigin | Literal["unsaid"] | None:
    """The common origin of an image's boxes; `unsaid` if they have none or differ."""
    known: tuple[BoxOrigin | None, ...] = (*get_args(BoxOrigin), None)
    return next((origin for origin in known if origins == {origin}), "unsaid")
