"""Pictures of what a job made, to look at before anything is trained on it."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from boxpromptiml import geometry
from boxpromptiml.io.images import probe, read_image, read_trimap
from boxpromptiml.io.orientation import upright_image
from boxpromptiml.manifests.sidecars import read_sidecar
from boxpromptiml.manifests.sources import Source, ground_truth, stored_image
from boxpromptiml.records import MANIPULATED, UNSURE, ImageArray
from boxpromptiml.visualization.overlays import overlay, thumbnail, trimap_image

MAX_SHOWN = 300  # 100 rows; a JPEG holds 65,500 pixels
_SIDE, _CAPTION, _GAP = 288, 20, 6  # pixels: of a picture, a line of text, between pictures
_COLUMNS = 3


class Cell(NamedTuple):
    """An entry of a contact sheet: two pictures side by side under a line of text.

    Attributes:
        caption: The text; what does not fit is cut off.
        left: (h, w, 3) RGB, at most 288 pixels a side.
        right: The same size.
        order: For sorting.
    """

    caption: str
    left: ImageArray
    right: ImageArray
    order: float = 0.0


def contact_sheet(cells: Sequence[Cell]) -> ImageArray:
    """One picture (H, W, 3) RGB of cells, one or more, in rows of three."""
    rows = [_row(cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS)]
    return np.vstack(rows)


def forgery_cell(source: Source) -> Cell:
    """A forgery as it is, and with its ground truth and boxes.

    Raises:
        RejectedInput: If the image or the mask cannot be read.
    """
    sample = source.sample
    image = read_image(source.manifest.image_path(sample))[0]
    mask = ground_truth(source)
    size = f"{image.shape[1]} x {image.shape[0]}"
    return Cell(
        f"{sample.id}  {sample.kind}  {size}  {mask.mean():.1%}",
        thumbnail(image, _SIDE),
        thumbnail(overlay(image, mask, sample.boxes or ()), _SIDE),
    )


def pseudo_mask_cell(source: Source) -> Cell:
    """A photograph with its boxes, and its pseudo-mask: white sure, blue unsure, black outside.

    `order` is the fraction of the boxes' area that is surely manipulated, in [0, 1].

    Args:
        source: A sample with boxes and a pseudo-mask.

    Raises:
        RejectedInput: If the image or the pseudo-mask cannot be read.
        UserError: If the pseudo-mask has no sidecar.
    """
    sample = source.sample
    path = source.manifest.pseudo_mask_path(sample)
    if path is None:
        raise ValueError(f"{sample.id!r} has no pseudo-mask")
    image, trimap = stored_image(source), read_trimap(path)
    orientation = probe(source.manifest.image_path(sample)).orientation
    boxes = sample.boxes or ()
    inside = trimap[geometry.union_mask(geometry.as_array(boxes), sample.size)]
    sure, unsure = (float(np.mean(inside == value)) for value in (MANIPULATED, UNSURE))
    status = read_sidecar(path).status
    note = "" if status == "ok" else f"  {status}"
    nothing = np.zeros(sample.size, np.bool_)
    return Cell(
        f"sure {sure:.0%}, unsure {unsure:.0%} of the boxes{note}  {sample.id}",
        upright_image(thumbnail(overlay(image, nothing, boxes), _SIDE), orientation),
        upright_image(thumbnail(overlay(trimap_image(trimap), nothing, boxes), _SIDE), orientation),
        sure,
    )


def _row(cells: Sequence[Cell]) -> ImageArray:
    height = max(len(picture) for cell in cells for picture in (cell.left, cell.right))
    row = np.full((_CAPTION + height + _GAP, _COLUMNS * 2 * (_SIDE + _GAP), 3), 255, np.uint8)
    for cell, drawn in zip(cells, np.split(row, _COLUMNS, axis=1), strict=False):
        for place, picture in enumerate((cell.left, cell.right)):
            left = place * (_SIDE + _GAP)
            drawn[_CAPTION : _CAPTION + len(picture), left : left + picture.shape[1]] = picture
        text = np.full((_CAPTION, drawn.shape[1], 3), 255, np.uint8)  # contiguous, unlike `drawn`
        font, black = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)
        cv2.putText(text, cell.caption, (2, 14), font, 0.42, black, 1, cv2.LINE_AA)
        drawn[:_CAPTION] = text
    return row
