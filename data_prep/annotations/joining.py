"""Join annotations to the images of a manifest, by path, never by position."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Sample
from data_prep.annotations import AnnotatedImage

JoinBy = Literal["path", "name"]

_SHOWN = 3  # images in a message
_IMAGE_ENDING = re.compile(r"\.(?:jpe?g|png|tiff?|bmp|webp)$", re.IGNORECASE)
_LABEL_STUDIO = re.compile(r"[0-9a-f]{8}-(?=.)")  # before the name of an uploaded file
_UNSTORED = re.compile(r"[^-\w.]")  # dropped from names of uploads, where spaces become _
_ROBOFLOW = re.compile(r"(.+)_(jpe?g|png|tiff?|bmp|webp)\.rf\.[0-9a-zA-Z]+(?:\.\w+)?")


def join_images(
    samples: Sequence[Sample],
    annotated: Iterable[AnnotatedImage],
    with_ending: bool = True,
    by: JoinBy | None = None,
) -> tuple[dict[str, AnnotatedImage], list[RejectedInput]]:
    """Find the image of every annotation: one path must end with the other, in whole parts.

    `x.jpg` and `mine/tampered/x.jpg` mean `tampered/x.jpg`; `authentic/x.jpg` does not. An equal
    path takes precedence over an equal ending. With `name`, the remaining annotations are joined by
    bare name, if only one image has it (`base_names`).

    Args:
        samples: The images of the manifest.
        annotated: The annotated images of all files.
        with_ending: False if the annotations do not contain the suffix of their images (YOLO).
        by: Whether bare names may join what paths do not; None: no, and it is no option.

    Returns:
        Annotations by sample id, and rejections of those that match no image, several images, or
        one that another annotation matches too.
    """
    annotated = list(annotated)
    paths = _Paths(samples, annotated, with_ending)
    by_name = _by_name(samples) if by == "name" else {}
    rejected: list[RejectedInput] = []
    named: dict[str, list[AnnotatedImage]] = defaultdict(list)
    for one in annotated:
        found = paths.find(one.name) or next(
            (by_name[name] for name in base_names(one.name) if name in by_name), []
        )
        if len(found) == 1:
            named[found[0].id].append(one)
        elif found:
            some = ", ".join(repr(sample.image) for sample in found[:_SHOWN])
            message = f"{one.name!r} is ambiguous: it names {some}; give more of the path"
            rejected.append(RejectedInput(one.place, "ambiguous", message))
        else:
            hint = "; --join name also joins bare file names" if by == "path" else ""
            message = f"no image of the manifest is named {one.name!r}{hint}"
            rejected.append(RejectedInput(one.place, "no_image", message))
    for same in named.values():
        if len(same) > 1:
            message = f"{len(same)} annotations name one image: {same[0].place}, {same[1].place}"
            rejected += [RejectedInput(one.place, "duplicate", message) for one in same]
    return {key: same[0] for key, same in named.items() if len(same) == 1}, rejected


class _Paths:
    """Images by the ends of their paths. Only ends that some annotation has are kept.

    So the work grows linearly with the number of names.
    """

    def __init__(
        self, samples: Iterable[Sample], annotated: Iterable[AnnotatedImage], with_ending: bool
    ) -> None:
        wanted = {_normal(one.name) for one in annotated}
        self._same: defaultdict[str, list[Sample]] = defaultdict(list)
        self._ending: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            image = PurePosixPath(sample.image)
            path = _normal(str(image if with_ending else image.with_suffix("")))
            self._same[path].append(sample)
            for end in _ends(path):
                if end in wanted and len(self._ending[end]) <= _SHOWN:
                    self._ending[end].append(sample)

    def find(self, name: str) -> list[Sample]:
        """Images with this path, else those where one path ends with the other; at most a few."""
        path = _normal(name)
        if path in self._same:
            return self._same[path]
        longer = self._ending.get(path, [])
        return longer + [s for end in _ends(path) for s in self._same.get(end, ())]


def _by_name(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Images by bare name, as it is and as Label Studio stores it, with and without suffix."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        name = _normal(sample.image).rpartition("/")[2]
        names = [name, _UNSTORED.sub("", name.strip().replace(" ", "_"))]
        for one in {*names, *(_IMAGE_ENDING.sub("", name) for name in names)}:
            found[one].append(sample)
    return found


def base_names(path: str) -> list[str]:
    """Bare names that an annotation may refer to, the most literal first.

    Removes URL escapes (`%20`), Label Studio's eight digits and a dash before the name, and
    Roboflow's `x_jpg.rf.HASH`.

    Example:
        >>> base_names("data/0a1b2c3d-x%20y.jpg")
        ['0a1b2c3d-x%20y.jpg', '0a1b2c3d-x y.jpg', 'x y.jpg']
        >>> base_names("train/labels/x_jpg.rf.0123456789abcdef")[-1]
        'x.jpg'
    """
    names = [_normal(path).rpartition("/")[2]]
    names.append(unquote(names[0]).rpartition("/")[2])
    names.append(_LABEL_STUDIO.sub("", names[-1], count=1))
    if match := _ROBOFLOW.fullmatch(names[-1]):
        names.append(f"{match[1]}.{match[2]}")
    return list(dict.fromkeys(names))


def _normal(path: str) -> str:
    """A path in one Unicode form (file systems differ), without empty or `.` parts."""
    return str(PurePosixPath(unicodedata.normalize("NFC", path)))


def _ends(path: str) -> Iterator[str]:
    """The ends of a path after each slash, the longest first."""
    place = path.find("/")
    while place >= 0:
        yield path[place + 1 :]
        place = path.find("/", place + 1)
