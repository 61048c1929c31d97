"""Gives the images of a manifest the boxes of their annotations."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.records import Box, BoxOrigin, Sample
from data_prep.annotations import AnnotatedImage
from data_prep.annotations.fitting import FittedBoxes, View, fit_boxes

_logger = logging.getLogger(__name__)
_SAME = 1e-3  # pixels: what x + width and decimals may do to a box that nobody touched


@dataclass
class AppliedBoxes:
    """The images of a manifest with their new boxes.

    Attributes:
        path_of: Finds the file of an image.
        labels: Keep only boxes of these labels; all boxes if empty.
        view: The picture that the boxes were drawn on, for images with an EXIF orientation.
        unsaid: Origin of boxes where the annotation does not say who drew them.
        samples: All samples so far, with their new boxes.
        rejected: Unusable annotations.
        clipped: Number of clipped boxes.
        unread: Number of images whose orientation is unknown, since they cannot be read.
    """

    path_of: Callable[[Sample], Path]
    labels: Sequence[str] = ()
    view: View | None = None
    unsaid: BoxOrigin | None = "human"
    samples: list[Sample] = field(default_factory=list)
    rejected: list[RejectedInput] = field(default_factory=list)
    clipped: int = 0
    unread: int = 0
    _fitted: list[Box] = field(default_factory=list)

    def add(self, sample: Sample, annotated: AnnotatedImage) -> None:
        """Give the next sample its boxes, or leave it unchanged if they cannot be trusted."""
        orientation: int | None = 1
        if annotated.shapes and self.view != "stored":
            orientation = self._orientation(sample)
            self.unread += orientation is None
        try:
            fitted = fit_boxes(
                annotated, sample.image, sample.size, orientation or 1, self.view, self.labels
            )
            if sample.label == 0 and fitted.boxes:
                message = f"{sample.image} is authentic in the manifest but has boxes"
                message += "; correct one of them"
                raise RejectedInput(annotated.place, "authentic_has_boxes", message)
        except RejectedInput as error:
            self.rejected.append(error)
            self.samples.append(sample)
            return
        self.rejected += fitted.rejected
        self.clipped += fitted.clipped
        self.samples.append(self._with_boxes(sample, annotated, fitted))

    def warn(self) -> None:
        """Warn about what was accepted but should be looked at.

        Raises:
            UserError: If all boxes lie in the first pixel: they are fractions of their images.
        """
        if self._fitted and all(max(box) <= 1 for box in self._fitted):
            raise UserError(
                f"all {len(self._fitted)} boxes lie within the first pixel of their images: are "
                "they fractions? Their coordinates must be pixels"
            )
        if self.clipped:
            _logger.warning("%d boxes left their image and were cut to it", self.clipped)
        if self.unread:
            message = "%d images cannot be read; their boxes are taken as drawn on stored pixels"
            _logger.warning(message, self.unread)

    def _orientation(self, sample: Sample) -> int | None:
        """EXIF orientation of an image; None if its file cannot be read."""
        try:
            return images.probe(self.path_of(sample)).orientation
        except UserError:  # whoever needs its pixels rejects it
            return None

    def _with_boxes(self, sample: Sample, annotated: AnnotatedImage, fitted: FittedBoxes) -> Sample:
        """The sample with new boxes; unchanged if these may be incomplete or are not new."""
        self._fitted += fitted.boxes
        if fitted.rejected:
            return sample
        if sample.label == 0:
            return replace(sample, boxes=())
        if sample.boxes is not None and _same(fitted.boxes, sample.boxes):
            return sample
        origin = self.unsaid if annotated.origin == "unsaid" else annotated.origin
        return replace(sample, boxes=fitted.boxes, box_origin=origin, pseudo_mask=None)


def _same(boxes: Sequence[Box], others: Sequence[Box]) -> bool:
    return len(boxes) == len(others) and all(
        abs(side - other) <= _SAME
        for pair in zip(boxes, others, strict=True)
        for side, other in zip(*pair, strict=True)
    )
