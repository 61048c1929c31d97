"""Readers of annotation files: what they say of images, in their own numbers, unchecked.

One module a format, each with `read`. A reader finds the shapes and reports what it cannot
understand; `screen` turns shapes into boxes once the image is known. No reader opens a path that a
file names.
"""

from typing import NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import BoxOrigin

Corners = tuple[float, float, float, float]  # x0 y0 x1 y1, half-open


class Shape(NamedTuple):
    """One shape of an image: the corners of its upright hull, not yet checked."""

    place: str  # file and position, for messages
    label: str
    corners: Corners


class AnnotatedImage(NamedTuple):
    """What a file says of one image."""

    place: str
    name: str  # path of the image with forward slashes, as far as the file tells it
    size: tuple[float, float] | None  # (H, W) of the corners; None: they are fractions
    shapes: list[Shape]
    rejected: list[RejectedInput]  # shapes that could not be read
    annotated: bool = True  # False: the file says that nobody has looked at the image
    origin: BoxOrigin | None = "human"  # None: the file says that nobody knows


class Annotations(NamedTuple):
    """The images of one file, and what belongs to no image."""

    entries: list[AnnotatedImage]
    rejected: list[RejectedInput]
