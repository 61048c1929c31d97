"""The pictures of one gallery image, small enough for a page of a thousand images.

A photograph is embedded once; boxes and outlines are drawn over it as SVG lines.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup

from boxpromptiml.io import images
from boxpromptiml.io.orientation import upright_box, upright_image
from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Box,
    ImageArray,
    MaskArray,
    ProbArray,
    TrimapArray,
)
from boxpromptiml.report.text import amount
from boxpromptiml.visualization import overlays

PSEUDO_MASK = "Pseudo-mask"  # caption
_QUALITIES = (85, 70, 50, 30)  # of a photograph, the best first
_HEAT_QUALITY = 70  # a heat map is smooth
_MIN_SIDE = 64
_MAX_OUTLINES = 100


@dataclass(frozen=True)
class Views:
    """The pixels of one image; all arrays have its size (H, W).

    Attributes:
        image: (H, W, 3) RGB.
        boxes: The coarse boxes, float pixels, half-open.
        pseudo_mask: The teacher's pseudo-mask; None if there is none.
        prob: The prediction in [0, 1]; None if there is none.
        truth: True = manipulated; None for an authentic image.
    """

    image: ImageArray
    boxes: tuple[Box, ...]
    pseudo_mask: TrimapArray | None
    prob: ProbArray | None
    truth: MaskArray | None

    def upright(self, orientation: int) -> "Views":
        """The views turned as people see the file, by its EXIF orientation (1 to 8)."""
        if orientation == 1:
            return self
        size = (self.image.shape[0], self.image.shape[1])
        return Views(
            np.ascontiguousarray(upright_image(self.image, orientation)),
            tuple(upright_box(box, size, orientation) for box in self.boxes),
            *(
                None if pixels is None else np.ascontiguousarray(upright_image(pixels, orientation))
                for pixels in (self.pseudo_mask, self.prob, self.truth)
            ),
        )


class Panel(NamedTuple):
    """One picture of a gallery.

    Attributes:
        caption: What it shows, such as `Pseudo-mask`.
        alt: Text for readers who cannot see it; why there is nothing to show if `uri` is empty.
        uri: The picture as a `data:` address.
        width: Of the coordinates of `lines`, with `height`; the page scales both.
        height: See `width`.
        lines: SVG elements of boxes and outlines, drawn over the picture.
    """

    caption: str
    alt: str
    uri: str = ""
    width: int = 3
    height: int = 2
    lines: Markup = Markup()

    @property
    def cost(self) -> int:
        """Number of characters that it takes in the page."""
        return len(self.uri) + len(self.lines)


def draw_panels(views: Views, side: int = 400, most: int = 90_000) -> tuple[Panel, ...]:
    """Draw the pictures of an image, at the best quality at which they fit.

    Args:
        views: Its pixels.
        side: The longer side of every picture, in pixels; smaller images stay as they are.
        most: Maximum number of characters of all pictures together; exceeded only if a side of 64
            pixels does not fit.
    """
    photo = overlays.thumbnail(views.image, side)
    others = _others(views, (photo.shape[0], photo.shape[1]))
    room = most - sum(panel.cost for panel in others)
    panel = _photo_panel(views, photo, _QUALITIES[0])
    for quality in _QUALITIES[1:]:
        if panel.cost <= room:
            break
        panel = _photo_panel(views, photo, quality)
    if panel.cost > room and side > _MIN_SIDE:
        return draw_panels(views, max(3 * side // 4, _MIN_SIDE), most)
    return (panel, *others)


def _photo_panel(views: Views, photo: ImageArray, quality: int) -> Panel:
    count = len(views.boxes)
    alt = "The image" + (f" with {amount(count, 'coarse box', 'coarse boxes')}" if count else "")
    caption = f"Image and {'box' if count == 1 else 'boxes'}" if count else "Image"
    lines = _box_lines(views.boxes, photo.shape[1] / views.image.shape[1])
    return _picture(caption, alt, photo, jpeg_uri(photo, quality), lines)


def _others(views: Views, size: tuple[int, int]) -> list[Panel]:
    """Pseudo-mask, prediction and ground truth at a thumbnail's (H, W), if there are any."""
    shown = []
    if views.pseudo_mask is not None:
        shown.append(_pseudo_panel(views.pseudo_mask, max(size)))
    if views.prob is not None:
        outline = Markup() if views.truth is None else _outline(views.truth, size)
        shown.append(_heat_panel(views.prob, size, outline))
    if views.truth is not None:
        shown.append(_truth_panel(views.truth, max(size)))
    return shown


def _heat_panel(prob: ProbArray, size: tuple[int, int], outline: Markup) -> Panel:
    alt = f"Heat map of the prediction, highest probability {prob.max():.2f}"
    small = cv2.resize(prob, size[::-1], interpolation=cv2.INTER_AREA)
    heat = overlays.heat(np.clip(small, 0, 1).astype(np.float32, copy=False))
    return _picture("Prediction", alt, heat, jpeg_uri(heat, _HEAT_QUALITY), outline)


def _pseudo_panel(levels: TrimapArray, side: int) -> Panel:
    sure, unsure = (levels == MANIPULATED).mean(), (levels == UNSURE).mean()
    alt = f"Pseudo-mask: {sure:.1%} of the pixels manipulated, {unsure:.1%} unsure"
    small = overlays.thumbnail(overlays.trimap_image(levels), side)
    return _picture(PSEUDO_MASK, alt, small, _png(small))


def _truth_panel(truth: MaskArray, side: int) -> Panel:
    alt = f"Ground truth: {truth.mean():.1%} of the pixels are manipulated"
    grey = np.where(truth, np.uint8(MANIPULATED), np.uint8(AUTHENTIC))
    small = overlays.thumbnail(grey, side)
    return _picture("Ground truth", alt, small, _png(small))


def _picture(
    caption: str, alt: str, small: ImageArray, uri: str, lines: Markup = Markup()
) -> Panel:
    return Panel(caption, alt, uri, small.shape[1], small.shape[0], lines)


def jpeg_uri(small: ImageArray, quality: int) -> str:
    """A picture (H, W, 3) as the address of an image in the page."""
    data = base64.b64encode(images.encode_jpeg(small, quality)).decode()
    return f"data:image/jpeg;base64,{data}"


def _png(small: ImageArray) -> str:
    return f"data:image/png;base64,{base64.b64encode(images.encode_png(small)).decode()}"


def _box_lines(boxes: Sequence[Box], scale: float) -> Markup:
    """Every box as two SVG rectangles: a dark edge below a bright line."""
    shapes = Markup()
    for box in boxes:
        x, y, width, height = (
            round(v * scale, 1) for v in (box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0)
        )
        place = Markup('x="{}" y="{}" width="{}" height="{}"').format(x, y, width, height)
        shapes += Markup('<rect class="under" {0}/><rect class="box" {0}/>').format(place)
    return shapes


def _outline(truth: MaskArray, size: tuple[int, int]) -> Markup:
    """Outline of the manipulated regions, as an SVG path twice: a dark edge, a bright line."""
    grey = truth.astype(np.uint8) * 255
    small = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)
    found, _ = cv2.findContours(
        (small > 0).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    largest = sorted(found, key=cv2.contourArea, reverse=True)[:_MAX_OUTLINES]
    path = "".join(_subpath(cv2.approxPolyDP(contour, 0.8, closed=True)) for contour in largest)
    return Markup('<path class="under" d="{0}"/><path class="truth" d="{0}"/>').format(path)


def _subpath(contour: cv2.typing.MatLike) -> str:
    first, *others = (f"{x + 0.5:g} {y + 0.5:g}" for x, y in contour.reshape(-1, 2).tolist())
    return f"M{first}{'L' if others else ''}{'L'.join(others)}Z"
