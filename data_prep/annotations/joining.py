"""Which image of a manifest an annotation means: by path, never by position."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Sample
from data_prep.annotations import AnnotatedImage

_Parts = tuple[str, ...]  # of a path


def join_images(
    samples: Iterable[Sample], entries: Iterable[AnnotatedImage], with_ending: bool = True
) -> tuple[dict[str, AnnotatedImage], list[RejectedInput]]:
    """Find the image of every entry: one path must end the other, in whole parts.

    `x.jpg` and `mine/tampered/x.jpg` mean `tampered/x.jpg`; `authentic/x.jpg` does not. A path that
    is the same goes before one that only ends alike.

    Args:
        samples: The images of the manifest.
        entries: The annotations.
        with_ending: False if the entries do not tell the ending of their images (YOLO).

    Returns:
        Entries by sample id, and what names no image, more than one image, or one that another
        entry names too.
    """
    images: dict[str, list[tuple[_Parts, Sample]]] = defaultdict(list)
    for sample in samples:
        path = PurePosixPath(sample.image)
        parts = _parts(str(path if with_ending else path.with_suffix("")))
        images[parts[-1]].append((parts, sample))
    rejected: list[RejectedInput] = []
    named: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for entry in entries:
        parts = _parts(entry.name)
        found = _matching(parts, images.get(parts[-1], []))
        if len(found) == 1:
            named[found[0].id].append(entry)
        elif found:
            paths = ", ".join(repr(sample.image) for sample in found[:3])
            message = f"{entry.name!r} is ambiguous: it names {paths}; give more of the path"
            rejected.append(RejectedInput(entry.place, "ambiguous", message))
        else:
            message = f"no image of the manifest is named {entry.name!r}"
            rejected.append(RejectedInput(entry.place, "no_image", message))
    for same in named.values():
        if len(same) > 1:
            message = f"{len(same)} annotations name one image: {same[0].place}, {same[1].place}"
            rejected += [RejectedInput(entry.place, "duplicate", message) for entry in same]
    return {key: same[0] for key, same in named.items() if len(same) == 1}, rejected


def _parts(path: str) -> _Parts:
    """A path in its parts, in one Unicode form: file systems differ in it."""
    return PurePosixPath(unicodedata.normalize("NFC", path)).parts


def _matching(wanted: _Parts, images: list[tuple[_Parts, Sample]]) -> list[Sample]:
    near = [
        (parts, sample)
        for parts, sample in images
        if parts[-len(wanted) :] == wanted[-len(parts) :]
    ]
    return [sample for parts, sample in near if parts == wanted] or [sample for _, sample in near]
