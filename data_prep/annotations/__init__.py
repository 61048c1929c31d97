"""Readers of annotation files; they return what a file says, unchecked.

There is one module per format, each with `read`. A reader finds the shapes and reports what it
cannot understand; `fitting` turns shapes into boxes once the image is known. No reader opens a path
that a file names.
"""

from typing import Literal, NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import BoxOrigin

Corners = tuple[float, float, float, float]  # x0 y0 x1 y1, half-open


class Shape(NamedTuple):
    """One shape of an image.

    Attributes:
        place: File and position, for messages.
        label: Its class, empty where there is none.
        corners: Of the upright box around it, not yet checked.
    """

    place: str
    label: str
    corners: Corners


class AnnotatedImage(NamedTuple):
    """The annotation of one image in a file.

    Attributes:
        place: File and position, for messages.
        name: Path of the image with forward slashes, as far as the file tells it.
        size: (H, W) that the corners refer to; None if the file does not tell it: the corners are
            then fractions of the image, or pixels if `in_pixels`.
        shapes: What was drawn.
        rejected: Shapes that could not be read.
        annotated: False if nobody has looked at the image, or if its shapes may be lost.
        origin: Who drew the boxes; None if the file says that nobody knows, `unsaid` if it says
            nothing.
        in_pixels: Whether the corners are pixels although the file does not tell the size.
    """

    place: str
    name: str
    size: tuple[float, float] | None
    shapes: list[Shape]
    rejected: list[RejectedInput]
    annotated: bool = True
    origin: BoxOrigin | Literal["unsaid"] | None = "unsaid"
    in_pixels: bool = False


class Annotations(NamedTuple):
    """The images of one file, and what belongs to no image."""

    images: list[AnnotatedImage]
    rejected: list[RejectedInput]
