"""From the shapes of an annotation to boxes in the stored pixels of its image.

Viewers and most annotation tools show a photograph upright, by its EXIF orientation; pixels, masks
and boxes here are those stored in the file. So boxes drawn on the upright picture are rotated back.
"""

from collections.abc import Collection
from typing import Literal, NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io.orientation import stored_box, upright_size
from boxpromptiml.records import Box
from data_prep.annotations import AnnotatedImage, Corners
from data_prep.annotations.screen import screening

View = Literal["stored", "upright"]

OVERSHOOT = 2.0  # pixels by which a box may leave its image without a note
_MAX_COORDINATE = 1e6


class FittedBoxes(NamedTuple):
    """The boxes of one image.

    Attributes:
        boxes: Inside the image, in stored pixels.
        rejected: Unusable shapes; if there are any, the boxes are incomplete.
        clipped: Number of boxes that extended more than two pixels beyond the image and were
            clipped.
    """

    boxes: tuple[Box, ...]
    rejected: list[RejectedInput]
    clipped: int


def fit_boxes(
    annotated: AnnotatedImage,
    name: str,
    size: tuple[int, int],
    orientation: int = 1,
    view: View | None = None,
    labels: Collection[str] = (),
) -> FittedBoxes:
    """The boxes of one image, clipped to it.

    Args:
        annotated: The image's annotation.
        name: Name of the image, for messages.
        size: (H, W) of the stored pixels.
        orientation: EXIF orientation of the image, 1 to 8.
        view: The picture that the boxes were drawn on, if its orientation is not 1.
        labels: Keep only boxes of these labels; all boxes if empty.

    Raises:
        RejectedInput: If the boxes refer to another size, or if `view` is needed and not given.
    """
    if orientation != 1 and view is None and annotated.shapes:
        raise RejectedInput(
            annotated.place,
            "orientation",
            f"{name} is stored turned or mirrored (EXIF orientation {orientation}); say what its "
            "boxes were drawn on: --view upright (as viewers and most tools show it) or stored",
        )
    is_upright = view == "upright" and orientation != 1
    drawn_on = upright_size(size, orientation) if is_upright else size
    if annotated.size not in (None, drawn_on):
        says = f"{annotated.size[1]:g} x {annotated.size[0]:g}" if annotated.size else ""
        message = (
            f"says {says}, {name} is {drawn_on[1]} x {drawn_on[0]}: were the boxes drawn on a "
            "rotated (EXIF) or resized copy?"
        )
        raise RejectedInput(annotated.place, "size_mismatch", message)
    boxes: list[Box] = []
    rejected = list(annotated.rejected)
    clipped = 0
    height, width = (
        (1, 1) if annotated.size or annotated.in_pixels else drawn_on
    )  # a unit of the corners
    for shape in annotated.shapes:
        if labels and shape.label not in labels:
            continue
        with screening(shape.place, rejected):
            x0, y0, x1, y1 = shape.corners
            corners = _checked((x0 * width, y0 * height, x1 * width, y1 * height))
            if is_upright:
                corners = stored_box(Box(*corners), size, orientation)
            boxes.append(_inside(corners, size))
            clipped += leaves(corners, size)
    return FittedBoxes(tuple(boxes), rejected, clipped)


def leaves(corners: Corners, size: tuple[float, float]) -> bool:
    """Whether a box extends more than two pixels beyond an image of (H, W)."""
    x0, y0, x1, y1 = corners
    return min(x0, y0) < -OVERSHOOT or x1 > size[1] + OVERSHOOT or y1 > size[0] + OVERSHOOT


def _checked(corners: Corners) -> Corners:
    x0, y0, x1, y1 = corners
    if not (x0 < x1 and y0 < y1 and max(map(abs, corners)) < _MAX_COORDINATE):
        raise ValueError(f"{_text(corners)} is empty, inverted or not finite")
    return corners


def _inside(corners: Corners, size: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = corners
    box = Box(max(x0, 0.0), max(y0, 0.0), min(x1, float(size[1])), min(y1, float(size[0])))
    if box.x0 >= box.x1 or box.y0 >= box.y1:
        raise ValueError(f"{_text(corners)} lies outside the image of {size[1]} x {size[0]}")
    return box


def _text(corners: Corners) -> str:
    return "box {:g} {:g} {:g} {:g}".format(*corners)
