"""Event handlers of the page: uploads, clicks, typed boxes. Needs the extra `demo`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.page import pictures
from boxpromptiml.page.service import Desk, Marked, OpenedImage, Point, box_between
from boxpromptiml.records import Box, ImageArray
from boxpromptiml.visualization.overlays import thumbnail

WELCOME = "Upload a photograph: JPEG, PNG, TIFF, BMP or WebP."
_FIRST = "Click one corner of what looks forged, or type the box below."
_SECOND = "Now click the opposite corner."
_AGAIN = "Click a corner to draw another box."


@dataclass(frozen=True)
class _Visit:
    """State of one visitor; `corner` is a pixel of the displayed picture."""

    opened: OpenedImage | None = None
    corner: Point | None = None
    marked: Marked | None = None

    def picture(self) -> ImageArray | None:
        if self.opened is None:
            return None
        return pictures.photograph(self.opened.image, self.marked, self.corner)


_Change = dict[Any, Any]  # component: its new value, or an update of it


@dataclass(frozen=True)
class Page:
    """The page's components and event handlers.

    Attributes:
        desk: The inference service.
        visit: State of the visitor.
        said: Next step, or an error.
        photo: The photograph with the box.
        sides: x0, y0, x1, y1 of the box in pixels of the stored image.
        teacher: The pseudo-mask.
        teacher_figures: Figures about the pseudo-mask.
        flagged: The pixels that the student flags.
        prob: The student's probabilities.
        student_figures: Figures about the prediction.
    """

    desk: Desk
    visit: gr.State
    said: gr.HTML
    photo: gr.Image
    sides: tuple[gr.Number, gr.Number, gr.Number, gr.Number]
    teacher: gr.Image
    teacher_figures: gr.HTML
    flagged: gr.Image
    prob: gr.Image
    student_figures: gr.HTML

    @property
    def outputs(self) -> list[Any]:
        """All components that an event may change."""
        words = (self.said, self.teacher_figures, self.student_figures)
        pictured = (self.photo, self.teacher, self.flagged, self.prob)
        return [self.visit, *words, *pictured, *self.sides]

    def upload(self, path: str | None) -> _Change:
        """A file was uploaded or removed."""
        if path is None:
            return self._cleared(pictures.message(WELCOME))
        try:
            opened = self.desk.open(Path(path))
        except RejectedInput as error:
            return self._cleared(pictures.message(str(error), is_error=True))
        threshold = self.desk.localizer.spec.threshold
        flagged, prob = pictures.student_pictures(opened, threshold)
        return self._cleared(pictures.message(_FIRST)) | {
            self.visit: _Visit(opened),
            self.photo: _Visit(opened).picture(),
            self.flagged: flagged,
            self.prob: prob,
            self.student_figures: pictures.student_words(opened, threshold),
        }

    def click(self, visit: _Visit, event: gr.SelectData) -> _Change:
        """A pixel of the photograph was clicked."""
        if visit.opened is None:
            return {self.said: pictures.message(WELCOME)}
        corner = (float(event.index[0]), float(event.index[1]))
        if visit.corner is None:
            begun = replace(visit, corner=corner, marked=None)
            said = pictures.message(_SECOND)
            return {self.visit: begun, self.photo: begun.picture(), self.said: said}
        shown = thumbnail(visit.opened.image, pictures.SHOWN_SIDE)
        sizes = [(one.shape[0], one.shape[1]) for one in (shown, visit.opened.image)]
        return self._mark(visit, visit.opened, box_between(visit.corner, corner, *sizes))

    def type_box(
        self, visit: _Visit, x0: float | None, y0: float | None, x1: float | None, y1: float | None
    ) -> _Change:
        """The button beside the numbers was pressed."""
        if visit.opened is None:
            return {self.said: pictures.message(WELCOME, is_error=True)}
        if x0 is None or y0 is None or x1 is None or y1 is None:
            text = "Fill in all four sides of the box, in pixels."
            return {self.said: pictures.message(text, is_error=True)}
        return self._mark(visit, visit.opened, Box(x0, y0, x1, y1))

    def _mark(self, visit: _Visit, opened: OpenedImage, box: Box) -> _Change:
        try:
            marked = self.desk.mark(opened.image, box)
        except UserError as error:
            return {self.said: pictures.message(str(error), is_error=True)}
        now = replace(visit, corner=None, marked=marked)
        sides = dict(zip(self.sides, (round(v, 1) for v in marked.box), strict=True))
        return sides | {
            self.visit: now,
            self.photo: now.picture(),
            self.teacher: pictures.teacher_picture(opened.image, marked),
            self.teacher_figures: pictures.teacher_words(marked),
            self.said: pictures.message(_AGAIN),
        }

    def _cleared(self, said: str) -> _Change:
        return dict.fromkeys(self.outputs) | {self.visit: _Visit(), self.said: said}
