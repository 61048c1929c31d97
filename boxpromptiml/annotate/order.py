"""The order in which photographs are shown: by name, shuffled, or most useful first.

Useful is where student and teacher disagree (ours; a kind of query by committee, Seung, Opper,
Sompolinsky: "Query by Committee", COLT 1992): the student's region around its highest probability
becomes a box, the teacher proposes a mask for that box, and what the two do not share counts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import TypeAdapter

from boxpromptiml.annotate.photographs import Album, Photograph
from boxpromptiml.errors import RejectedInput
from boxpromptiml.geometry import as_array, from_mask
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import fingerprint, hash_order, write_json
from boxpromptiml.io.progress import track
from boxpromptiml.io.strict_json import read_as
from boxpromptiml.records import ImageArray, MaskArray, ProbArray, Teacher

Order = Literal["name", "random", "useful"]

_HALF = 0.5  # of the highest probability: what is above belongs to the region
_SAVED_EVERY = 50  # photographs
_SCORES = TypeAdapter(dict[str, dict[str, float]])


def shuffled(photographs: Sequence[Photograph]) -> list[Photograph]:
    """The same shuffled order every time; photographs that are added change no other's turn."""
    return [photographs[place] for place in hash_order(one.name for one in photographs)]


def disagreement(student: ProbArray, image: ImageArray, teacher: Teacher) -> float:
    """How little a student's map (H, W) and the teacher's mask of the same place share, in [0, 1].

    1 minus the intersection over union of the student's region and the teacher's mask; 0 for a map
    without contrast.
    """
    region = _region(student)
    box = from_mask(region)
    if box is None or region.all():
        return 0.0
    mask = next(iter(teacher.propose(image, as_array([box])))).mask
    union = np.count_nonzero(region | mask)
    return 1.0 - np.count_nonzero(region & mask) / union


def _region(student: ProbArray) -> MaskArray:
    """The connected region around the highest probability, above half of it."""
    top = float(student.max())
    _, labels = cv2.connectedComponents((student > _HALF * top).astype(np.uint8), connectivity=8)
    found: MaskArray = (labels == labels[student == top][0]) & (labels > 0)
    return found


def most_useful_first(
    album: Album, student: Localizer, weights: str, teacher: Teacher, scores: Path
) -> list[Photograph]:
    """The photographs of an album by descending disagreement; unreadable ones last.

    Args:
        album: The photographs.
        student: Localizes them.
        weights: Hash of its weights.
        teacher: Proposes the masks.
        scores: File that keeps the disagreements, so that the same order is found at once.
    """
    photographs = [album[number] for number in range(len(album))]
    key = fingerprint({"weights": weights, "teacher": teacher.settings})
    kept = read_as(_SCORES, scores) if scores.exists() else {}
    known = kept.setdefault(key, {})
    todo = [n for n, one in enumerate(photographs) if one.sha256 not in known]
    for done, number in enumerate(track(todo, "looking for what is useful", len(todo)), start=1):
        known[photographs[number].sha256] = _looked_at(album, number, student, teacher)
        if done % _SAVED_EVERY == 0 or done == len(todo):
            write_json(scores, kept)
    return sorted(photographs, key=lambda one: (-known[one.sha256], one.name))


def _looked_at(album: Album, number: int, student: Localizer, teacher: Teacher) -> float:
    try:
        image = album.pixels(number)
    except RejectedInput:
        return -1.0
    (found,) = student.localize([image])
    return disagreement(found.prob, image, teacher)
