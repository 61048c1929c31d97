"""Pascal VOC: one XML file an image.

Coordinates are taken as written, x0 y0 x1 y1 from 0: so write CVAT, Label Studio and globox. The
original VOC counted from 1; such boxes come out one pixel to the right and below.
"""

from pathlib import Path

from boxpromptiml.errors import RejectedInput, UserError
from data_prep.annotations import AnnotatedImage, Annotations, Shape
from data_prep.annotations.screen import image_name, number, read_xml, screening, size_of

_MAX_BYTES = 16 * 2**20


def read(path: Path, location: str = "") -> Annotations:
    """The image of a VOC file, with the `bndbox` of every `object`.

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
            shapes.append(Shape(place, node.findtext("name") or "", (x0, y0, x1, y1)))
    return Annotations([AnnotatedImage(str(path), name, size, shapes, rejected)], [])
