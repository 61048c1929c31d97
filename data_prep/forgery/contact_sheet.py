"""A picture of many forgeries, to look at before anything is trained on them."""

from collections.abc import Iterable

import cv2
import numpy as np

from boxpromptiml.io.images import read_image
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.records import ImageArray
from boxpromptiml.visualization.overlays import overlay, thumbnail

_SIDE, _CAPTION, _GAP = 288, 20, 6  # pixels: of a picture, a line of text, between pictures
_COLUMNS = 3


def contact_sheet(sources: Iterable[Source]) -> ImageArray:
    """Forgeries in rows of three: each as it is and, beside it, with its mask and boxes.

    Args:
        sources: The forgeries, one or more.

    Returns:
        (H, W, 3) RGB.

    Raises:
        RejectedInput: If an image or a mask cannot be read.
    """
    cells = [_cell(source) for source in sources]
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % _COLUMNS)
    rows = [np.hstack(cells[at : at + _COLUMNS]) for at in range(0, len(cells), _COLUMNS)]
    return np.vstack(rows)


def _cell(source: Source) -> ImageArray:
    image = read_image(source.manifest.image_path(source.sample))[0]
    mask = ground_truth(source)
    cell = np.full((_CAPTION + _SIDE + _GAP, 2 * (_SIDE + _GAP), 3), 255, np.uint8)
    for place, picture in enumerate((image, overlay(image, mask, source.sample.boxes or ()))):
        small = thumbnail(picture, _SIDE)
        left = place * (_SIDE + _GAP)
        cell[_CAPTION : _CAPTION + small.shape[0], left : left + small.shape[1]] = small
    size = f"{image.shape[1]} x {image.shape[0]}"
    text = f"{source.sample.id}  {source.sample.kind}  {size}  {mask.mean():.1%}"
    cv2.putText(cell, text, (2, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
