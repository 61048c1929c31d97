"""Boxes from the COCO file of a dataset that comes with one."""

from pathlib import Path
from typing import NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Box
from data_prep.annotations import coco
from data_prep.annotations.screen import boxes_of


class Annotated(NamedTuple):
    """What an annotation file says of one image."""

    size: tuple[float, float]  # (H, W) that the boxes refer to
    boxes: tuple[Box, ...]


def read_coco(path: Path) -> tuple[dict[str, Annotated], list[RejectedInput]]:
    """Boxes by image file name from COCO JSON; one bad annotation does not lose the rest.

    Boxes may overshoot the image by 2 pixels and are cut. An image of the list without annotations
    has an empty tuple; one of which every box is bad is left out, as is one that was not annotated.

    Returns:
        The boxes, and what was rejected.

    Raises:
        UserError: If the file as a whole is not COCO.
    """
    found = coco.read(path)
    annotated: dict[str, Annotated] = {}
    rejected: list[RejectedInput] = []
    for entry in found.entries:
        height, width = entry.size or (0, 0)
        boxes, bad = boxes_of(entry, (int(height), int(width)))
        rejected += bad
        if entry.annotated and (boxes or not bad):
            annotated[entry.name] = Annotated((height, width), boxes)
    return annotated, rejected + found.rejected
