"""CVAT for images 1.1: one XML file per task, with boxes, polygons, masks and ellipses."""

from pathlib import Path
from xml.etree.ElementTree import Element

from boxpromptiml.errors import RejectedInput, UserError
from data_prep.annotations import AnnotatedImage, Annotations, Corners, Shape
from data_prep.annotations.screen import (
    around_ellipse,
    hull,
    image_name,
    number,
    read_xml,
    screening,
    size_of,
    turned,
)


def read(path: Path) -> Annotations:
    """Read an export `CVAT for images 1.1`, an XML file with all images of a task.

    A rotated box or ellipse gives the upright box around it.

    Raises:
        UserError: If the file as a whole is not an export of images.
    """
    root = read_xml(path, "annotations")
    if root.find("track") is not None:
        raise UserError(f"{path}: is CVAT for video; export the task as `CVAT for images 1.1`")
    images: list[AnnotatedImage] = []
    rejected: list[RejectedInput] = []
    for index, image in enumerate(root.findall("image")):
        place = f"{path}#image[{index}]"
        with screening(place, rejected):
            name = image_name(image.get("name"))
            size = size_of(image.get("width"), image.get("height"))
            images.append(_annotated(place, name, size, image))
    return Annotations(images, rejected)


def _annotated(place: str, name: str, size: tuple[float, float], image: Element) -> AnnotatedImage:
    annotated = AnnotatedImage(place, name, size, [], [])
    for index, node in enumerate(image):
        if node.tag == "tag":  # says something of the whole image
            continue
        where = f"{place}/{node.tag:.40}[{index}]"
        with screening(where, annotated.rejected):
            annotated.shapes.append(Shape(where, node.get("label") or "", _corners(node)))
    return annotated


def _corners(node: Element) -> Corners:
    def numbers(*keys: str) -> list[float]:
        return [number(node.get(key)) for key in keys]

    degrees = number(node.get("rotation", "0"))
    if node.tag == "box":
        x0, y0, x1, y1 = numbers("xtl", "ytl", "xbr", "ybr")
        return turned((x0, y0, x1, y1), degrees)
    if node.tag == "ellipse":
        x, y, right, down = numbers("cx", "cy", "rx", "ry")
        return around_ellipse((x, y), (right, down), degrees)
    if node.tag == "polygon":
        points = [point.split(",") for point in node.get("points", "").split(";")]
        return hull([number(x) for x, _ in points], [number(y) for _, y in points])
    if node.tag == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        return left, top, left + width, top + height
    raise ValueError(f"a <{node.tag:.40}> has no area")
