"""A CSV file with a row per box: image, x0, y0, x1, y1, and optionally label, width, height.

Corners are in pixels, half-open; width and height are those of the image. A row whose corners are
empty says that its image has no box. The names of TensorFlow's and Roboflow's tables (filename,
xmin, ymin, xmax, ymax, class) are accepted too.
"""

from pathlib import Path

from boxpromptiml.errors import RejectedInput
from data_prep.annotations import AnnotatedImage, Annotations, Shape
from data_prep.annotations.screen import image_name, number, read_table, screening, size_of

_MAX_BYTES = 512 * 2**20
_CORNERS = ("x0", "y0", "x1", "y1")
_OTHERS = ("label", "width", "height")
_NAMES = {"filename": "image", "class": "label"} | {
    f"{axis}{end}": f"{axis}{number_}"
    for axis in "xy"
    for number_, end in enumerate(("min", "max"))
}


def read(path: Path) -> Annotations:
    """Read all images of a table; a bad row leaves the boxes of its image unknown.

    Raises:
        UserError: If the file is not a table with these columns.
    """
    images: dict[str, AnnotatedImage] = {}
    rejected: list[RejectedInput] = []
    for line, row in read_table(path, _MAX_BYTES, ("image", *_CORNERS), _OTHERS, _NAMES):
        place = f"{path}:{line}"
        with screening(place, rejected):
            name = image_name(row["image"])
            image = images.setdefault(
                name, AnnotatedImage(place, name, None, [], [], in_pixels=True)
            )
            with screening(place, image.rejected):
                if row.get("width") and row.get("height"):
                    size = size_of(row["width"], row["height"])
                    if image.size not in (None, size):
                        raise ValueError("another row gives the image another size")
                    images[name] = image = image._replace(size=size)
                if any(row[corner] for corner in _CORNERS):
                    x0, y0, x1, y1 = (number(row[corner]) for corner in _CORNERS)
                    image.shapes.append(Shape(place, row.get("label", ""), (x0, y0, x1, y1)))
    return Annotations(list(images.values()), rejected)
