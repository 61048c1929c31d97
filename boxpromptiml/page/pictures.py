"""Pictures and texts of the page, independent of Gradio."""

from html import escape

import numpy as np

from boxpromptiml.page.service import Marked, OpenedImage, Point
from boxpromptiml.records import MANIPULATED, UNSURE, ImageArray
from boxpromptiml.visualization.overlays import (
    BOX,
    BOX_EDGE,
    TRIMAP_COLOURS,
    draw_boxes,
    heat,
    overlay,
    thumbnail,
)

SHOWN_SIDE = 1200  # pixels; a larger picture is reduced for the browser
_UNSURE_TINT = 0.6


def photograph(image: ImageArray, marked: Marked | None, corner: Point | None) -> ImageArray:
    """The image (H, W, 3) as displayed, with its box, or a cross at the box's first corner."""
    if marked is not None:
        return thumbnail(draw_boxes(image, [marked.box]), SHOWN_SIDE)
    shown = thumbnail(image, SHOWN_SIDE)
    return shown if corner is None else _crossed(shown, corner)


def student_pictures(opened: OpenedImage, threshold: float) -> tuple[ImageArray, ImageArray]:
    """Pictures of the flagged pixels and of the probabilities."""
    flagged = overlay(opened.image, opened.prob, (), threshold)
    return thumbnail(flagged, SHOWN_SIDE), thumbnail(heat(opened.prob), SHOWN_SIDE)


def teacher_picture(image: ImageArray, marked: Marked) -> ImageArray:
    """The pseudo-mask on the image: manipulated pixels outlined, unsure ones blue, with the box."""
    canvas = overlay(image, marked.levels == MANIPULATED)
    unsure = marked.levels == UNSURE
    blue = np.array(TRIMAP_COLOURS[UNSURE])
    canvas[unsure] = np.round((1 - _UNSURE_TINT) * image[unsure] + _UNSURE_TINT * blue)
    return thumbnail(draw_boxes(canvas, [marked.box]), SHOWN_SIDE)


def student_words(opened: OpenedImage, threshold: float) -> str:
    """The student's figures as HTML."""
    height, width = opened.image.shape[:2]
    flagged = float((opened.prob > threshold).mean())
    return _figures(
        {
            "Image score": f"{opened.score:.3f}",
            "Area flagged": f"{flagged:.1%}",
            "Threshold": f"{threshold:g}",
            "Image": f"{width} x {height}",
        }
    )


def teacher_words(marked: Marked) -> str:
    """The teacher's figures as HTML."""
    values = {
        "Teacher's score": f"{marked.score:.3f}",
        "Area of the mask": f"{float((marked.levels == MANIPULATED).mean()):.1%}",
        "Unsure": f"{float((marked.levels == UNSURE).mean()):.1%}",
    }
    return _figures(values | ({"Note": marked.note} if marked.note else {}))


def message(text: str, is_error: bool = False) -> str:
    """The next step or an error as HTML, announced by screen readers."""
    kind = ' class="wrong" role="alert"' if is_error else ' role="status"'
    return f"<p{kind}>{escape(text)}</p>"


def _figures(values: dict[str, str]) -> str:
    rows = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in values.items()
    )
    return f"<dl>{rows}</dl>"


def _crossed(image: ImageArray, corner: Point) -> ImageArray:
    """A copy with lines through a pixel, the first corner of a box."""
    canvas = image.copy()
    column, row = (int(v) for v in corner)
    canvas[max(row - 1, 0) : row + 2] = BOX_EDGE
    canvas[:, max(column - 1, 0) : column + 2] = BOX_EDGE
    canvas[row], canvas[:, column] = BOX, BOX
    return canvas
