"""Inference service behind the page."""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.geometry import as_array, clip
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.sandbox import Decoder
from boxpromptiml.records import Box, ImageArray, ProbArray, Teacher, TrimapArray
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask

Point = tuple[float, float]  # x, y


class OpenedImage(NamedTuple):
    """An uploaded image and the student's prediction."""

    image: ImageArray  # (H, W, 3)
    prob: ProbArray  # (H, W)
    score: float  # [0, 1], that the image is manipulated anywhere


class Marked(NamedTuple):
    """A teacher's pseudo-mask for a box."""

    box: Box  # within the image
    levels: TrimapArray  # (H, W)
    score: float  # [0, 1], the teacher's own, of the box as it was drawn
    note: str  # why the answer is not its plain one, else empty


@dataclass(frozen=True)
class Desk:
    """Serves requests from any thread, one after the other.

    Attributes:
        localizer: The student.
        teacher: Proposes masks for boxes.
        consensus: How its proposals become a pseudo-mask.
        decode: Decodes an uploaded file.
        lock: Held during a request, since networks and decoder handle one at a time.
    """

    localizer: Localizer
    teacher: Teacher
    consensus: Consensus
    decode: Decoder
    lock: Lock

    def open(self, path: Path) -> OpenedImage:
        """Decode an uploaded file and localize.

        Raises:
            RejectedInput: If the file cannot be used; the error names it without its folder.
        """
        with self.lock:
            try:
                image, _ = self.decode(path)
            except RejectedInput as error:
                raise RejectedInput(path.name, error.reason, error.message) from error
            (found,) = self.localizer.localize([image])
        return OpenedImage(image, found.prob, found.score)

    def mark(self, image: ImageArray, box: Box) -> Marked:
        """The pseudo-mask of a box.

        Raises:
            UserError: If the box is not finite, inverted, or outside the image.
        """
        size = (image.shape[0], image.shape[1])
        inside = Box(*(float(v) for v in clip(as_array([box]), size)[0]))
        if not np.isfinite(box).all() or inside.x0 >= inside.x1 or inside.y0 >= inside.y1:
            raise UserError(
                f"The box must have x0 < x1 and y0 < y1, inside the image of {size[1]} x {size[0]}."
            )
        with self.lock:
            levels, judgements = pseudo_mask(
                self.teacher, image, as_array([inside]), self.consensus
            )
        return Marked(inside, levels, judgements[0].score, judgements[0].note)


def box_between(first: Point, second: Point, shown: tuple[int, int], size: tuple[int, int]) -> Box:
    """The box whose opposite corners are two clicked pixels; both pixels lie inside.

    Args:
        first: Clicked pixel of the displayed picture.
        second: The opposite corner of the box, in pixels.
        shown: (h, w) of that picture.
        size: (H, W) of the stored image, in whose pixels the box is.

    Example:
        >>> box_between((49, 9), (0, 0), (50, 100), (100, 200))
        Box(x0=0.0, y0=0.0, x1=100.0, y1=20.0)
    """
    right, down = size[1] / shown[1], size[0] / shown[0]
    (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(first, second, strict=True))
    return Box(x0 * right, y0 * down, (x1 + 1) * right, (y1 + 1) * down)
