"""Pascal VOC: one XML file per image.

Coordinates are taken as written, x0 y0 x1 y1 from 0, as CVAT, Label Studio and globox write them.
The original VOC counts from 1; its boxes come out one pixel to the right and below. CVAT stores the
rotation of a box in an attribute `rotation` of its object.
"""

from pathlib import Path
from xml.etree.ElementTree import Element

from boxpromptiml.errors import RejectedInput, UserError
from data_prep.annotations import AnnotatedImage, Annotations, Shape
from data_prep.annotations.screen import image_name, number, read_xml, screening, size_of, turned

_MAX_BYTES = 16 * 2**20


def read(path: Path, location: str = "") -> Annotations:
    """Read a Pascal VOC file (XML, of one image), with the `bndbox` of every `object`.

    Args:
        path: The file.
        location: Its folder, relative to the user's path.

    Raises:
        UserError: If the file as a whole is not VOC.
    """
    root = read_xml(path, "annotation", _MAX_BYTES)
    try:
        name = image_name(root.findtext("filename"), location)
        size = size_of(root.findtext("size/width"), root.findtext("size/height"))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: not VOC: needs <filename> and <size>: {error}") from error
    shapes: list[Shape] = []
    rejected: list[RejectedInput] = []
    for index, node in enumerate(root.findall("object")):
        place = f"{path}#object[{index}]"
        with screening(place, rejected):
            x0, y0, x1, y1 = (
                number(node.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            corners = turned((x0, y0, x1, y1), _rotation(node))
            shapes.append(Shape(place, node.findtext("name") or "", corners))
    return Annotations([AnnotatedImage(str(path), name, size, shapes, rejected)], [])


def _rotation(node: Element) -> float:
    """Degrees of the attribute `rotation` of an object, 0 without one."""
    for attribute in node.findall("attributes/attribute"):
        if attribute.findtext("name") == "rotation":
            return number(attribute.findtext("value"))
    return 0.0
