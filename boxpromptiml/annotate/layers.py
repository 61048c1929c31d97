"""Pictures of a photograph for the browser, and what lies over it: pseudo-mask, student's map.

All are upright and reduced; the pseudo-mask is made from the stored pixels, as `pseudo-masks` does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.geometry import as_array, clip, expand, shrink
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.images import encode_jpeg, encode_png
from boxpromptiml.io.orientation import upright_box, upright_image
from boxpromptiml.records import MANIPULATED, UNSURE, Box, ImageArray, Teacher, TrimapArray
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.grabcut import GrabCutTeacher, surroundings
from boxpromptiml.visualization.overlays import BOX_EDGE, FLAGGED, TRIMAP_COLOURS, heat

SHOWN_SIDE = 1600  # pixels of the longer side of a picture; larger ones are reduced
_QUALITY = 92
_LAYER_SIDE = 1000  # pixels of a whole photograph's longer side
_TINT, _UNSURE_TINT, _HEAT = 100, 130, 150  # opacities of 255
_OUTLINE = (255, 140, 60)  # a lighter vermillion


class Layer(NamedTuple):
    """A picture with transparency that lies over a photograph.

    Attributes:
        png: The picture, RGBA.
        window: Where it lies, in pixels of the upright photograph at its full size.
        score: The teacher's own of the box, or the student's of the image, in [0, 1].
        area: Fraction of the photograph that is marked.
        note: Why a pseudo-mask is not the teacher's plain one, else empty.
    """

    png: bytes
    window: Box
    score: float
    area: float
    note: str = ""


def picture(image: ImageArray, orientation: int) -> bytes:
    """A JPEG of a stored image (H, W, 3), upright and reduced."""
    return encode_jpeg(upright_image(shrink(image, SHOWN_SIDE), orientation), _QUALITY)


@dataclass(frozen=True)
class Layers:
    """Makes layers for requests from any thread, one after the other for each network.

    Attributes:
        teacher: Proposes masks for boxes.
        consensus: How its proposals become a pseudo-mask.
        load: Loads the student, when its map is first asked for.
    """

    teacher: Teacher
    consensus: Consensus
    load: Callable[[], Localizer]
    _teaching: Lock = field(default_factory=Lock)
    _localizing: Lock = field(default_factory=Lock)

    @cached_property
    def student(self) -> Localizer:
        """The student, loaded on first use."""
        return self.load()

    def mask(self, image: ImageArray, box: Box, orientation: int) -> Layer:
        """The pseudo-mask of one box, to lay over the picture.

        Args:
            image: (H, W, 3) RGB, uint8, as stored.
            box: In pixels as stored; must overlap the image.
            orientation: EXIF orientation, by which the layer is turned.
        """
        size = (image.shape[0], image.shape[1])
        boxes = clip(as_array([box]), size)
        rows, columns = window = self._seen(boxes[0], size)
        # GrabCut sees the part that matters, so that a large photograph takes no longer; not where
        # prompts are jittered, which depends on the box's place in the photograph.
        sees_part = isinstance(self.teacher, GrabCutTeacher) and self.consensus.copies == 1
        corner = [columns.start, rows.start] if sees_part else [0, 0]
        boxes = (boxes - np.array(corner * 2)).astype(np.float32)
        with self._teaching:
            trimap, judgements = pseudo_mask(
                self.teacher, image[window] if sees_part else image, boxes, self.consensus
            )
        trimap = trimap if sees_part else trimap[window]
        area = float((trimap == MANIPULATED).sum() / (size[0] * size[1]))
        shown = _resized(trimap, _LAYER_SIDE / max(size))
        place = Box(columns.start, rows.start, columns.stop, rows.stop)
        return Layer(
            encode_png(upright_image(_coloured(shown), orientation)),
            upright_box(place, size, orientation),
            judgements[0].score,
            area,
            judgements[0].note,
        )

    def _seen(self, box: npt.NDArray[np.float32], size: tuple[int, int]) -> tuple[slice, slice]:
        """The part of an image on which the pseudo-mask of a box depends, or lies."""
        jittered = expand(box[None], self.consensus.jitter, size)[0]
        return surroundings(jittered, size)

    def map(self, image: ImageArray, orientation: int) -> Layer:
        """The student's map of a stored image.

        Raises:
            UserError: If the student cannot be loaded.
        """
        with self._localizing:
            try:
                (found,) = self.student.localize([image])
            except UserError:
                self.__dict__.pop("student", None)  # the process of an exported one has ended
                raise
        size = (image.shape[0], image.shape[1])
        area = float((found.prob > self.student.spec.threshold).mean())
        scale = min(1.0, _LAYER_SIDE / max(size))
        target = (max(1, round(size[1] * scale)), max(1, round(size[0] * scale)))
        reduced = cv2.resize(found.prob, target, interpolation=cv2.INTER_AREA)
        prob = np.clip(reduced, 0, 1).astype(np.float32)
        opacity = np.round(_HEAT * np.sqrt(prob)).astype(np.uint8)
        coloured = np.dstack([heat(prob), opacity])
        whole = upright_box(Box(0, 0, size[1], size[0]), size, orientation)
        return Layer(encode_png(upright_image(coloured, orientation)), whole, found.score, area)


def _resized(trimap: TrimapArray, scale: float) -> TrimapArray:
    """A trimap at the scale of a layer; a small one in whole pixels, for a thin outline."""
    scale = scale if scale < 1 else int(scale)
    height, width = (max(1, round(side * scale)) for side in trimap.shape)
    resized = cv2.resize(trimap, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def _coloured(trimap: TrimapArray) -> npt.NDArray[np.uint8]:
    """RGBA (h, w, 4): manipulated pixels tinted and outlined, unsure ones blue, others clear."""
    layer = np.zeros((*trimap.shape, 4), np.uint8)
    marked = (trimap == MANIPULATED).astype(np.uint8)
    kernel = np.ones((5, 5), np.uint8)
    layer[trimap == UNSURE] = (*TRIMAP_COLOURS[UNSURE], _UNSURE_TINT)
    layer[cv2.dilate(marked, kernel) > marked] = (*BOX_EDGE, 170)  # seen on any photograph
    layer[marked > 0] = (*FLAGGED, _TINT)
    layer[cv2.erode(marked, kernel, borderValue=0) < marked] = (*_OUTLINE, 255)
    return layer
