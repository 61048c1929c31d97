"""Images of one's own, in folders: a layout by name, by patterns with {id}, or photographs alone.

```
tampered/<kind>_<n>.jpg   masks/<stem>.png (0 | 255)   authentic/*.jpg   boxes.json (COCO, XYWH)
```
Masks join images by id, never by position. A tampered image without a mask is kept: it can be
trained on with boxes.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from boxpromptiml.errors import UserError
from boxpromptiml.records import Sample
from data_prep.annotations import Annotations, coco, table
from data_prep.annotations.applying import AppliedBoxes
from data_prep.annotations.fitting import View
from data_prep.annotations.joining import join_images
from data_prep.importers import Imported
from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import IMAGE, RawData

BOXES = "boxes.json"
_KINDS = ("splice", "copymove", "removal")
_LAYOUT = f"tampered/, authentic/, masks/ and {BOXES}"
_PHOTOGRAPH = rf"(?:{IMAGE}|\.(?:gif|avif|hei[cf]|jp2|dng|cr2|nef|arw))"  # others are rejected
_READERS: dict[str, Callable[[Path], Annotations]] = {".json": coco.read, ".csv": table.read}


@dataclass(frozen=True, slots=True)
class Patterns:
    """Where images and masks lie, as paths with {id}; `*` is anything within a name.

    Attributes:
        images: Images whose mask says whether they are manipulated.
        masks: Their masks.
        authentic: Authentic images.

    Raises:
        UserError: If one has no {id} or more than one, or no pattern gives images.
    """

    images: str | None = None
    masks: str | None = None
    authentic: str | None = None

    def __post_init__(self) -> None:
        for option in ("images", "masks", "authentic"):
            pattern = getattr(self, option)
            if pattern is not None and pattern.count("{id}") != 1:
                raise UserError(
                    f"--{option} {pattern}: must contain {{id}} once, as in x/{{id}}.jpg"
                )
        if self.masks and not self.images:
            raise UserError("--masks needs --images, the pattern of their images")

    def __bool__(self) -> bool:
        return bool(self.images or self.authentic)


def folder_layout(name: str, patterns: Patterns) -> DatasetLayout:
    """The layout of a folder.

    Args:
        name: Name of the dataset; images of one id share the group `name/id`.
        patterns: Where the files lie; without patterns it is tampered/, authentic/ and masks/, or
            photographs of unknown label if neither tampered/ nor authentic/ is there.
    """

    def find(tree: Tree) -> Iterator[RawItem]:
        if patterns:
            return _by_patterns(tree, name, patterns)
        if any(re.search("(?:^|/)(?:tampered|authentic)/", one, re.I) for one in tree.names):
            return _by_label(tree, name)
        return _photographs(tree)

    texts = (patterns.images, patterns.masks, patterns.authentic)
    return DatasetLayout(
        name="folder",
        layout=", ".join(filter(None, texts)) or f"{_LAYOUT}, or photographs alone",
        polarity="white is manipulated: lossless 0 | 1 or 0 | 255",
        find=find,
        ignored=None if patterns else ".*",
    )


def _by_patterns(tree: Tree, dataset: str, patterns: Patterns) -> Iterator[RawItem]:
    masks = _matches(tree, patterns.masks)
    authentic = _matches(tree, patterns.authentic)
    others = {*masks.values(), *authentic.values()}  # `{id}.jpg` matches them as well
    images = {k: n for k, n in _matches(tree, patterns.images).items() if n not in others}
    for key in sorted(masks.keys() - images.keys()):
        reason = f"no image has its id {key!r}"
        if key in authentic:
            reason += f"; {authentic[key]} is authentic by --authentic, so the mask is not used"
        tree.reject(masks[key], "no_image", reason)
    for found, label in ((images, None), (authentic, 0)):
        for key, image in found.items():
            mask = masks.get(key) if label is None else None
            group = f"{dataset}/{key}"
            yield RawItem(_stem(image), image, label, mask, group=group)


def _matches(tree: Tree, pattern: str | None) -> dict[str, str]:
    """Names of a pattern by id."""
    if pattern is None:
        return {}
    joined = re.sub(r"\*+", "*", str(PurePosixPath(pattern)))  # a regex of many would not end
    parts = re.split(r"(\{id\}|\*)", joined)
    meant = {"{id}": "(.+?)", "*": "[^/]*"}
    return tree.by_key("".join(meant.get(part) or re.escape(part) for part in parts))


def _by_label(tree: Tree, dataset: str) -> Iterator[RawItem]:
    ending = r"(?:\.[^/.]*)?"
    tampered, authentic, masks = (
        tree.by_key(rf"{folder}/(.+?){ending}") for folder in ("tampered", "authentic", "masks")
    )
    read = {_top(name) for found in (tampered, authentic, masks) for name in found.values()}
    others = sorted({_top(name) for name in tree.names} - read - {BOXES})
    if others:
        some = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        tree.warnings.append(f"not read: {some}; this layout is {_LAYOUT}")
    for key in sorted(masks.keys() - tampered.keys()):
        tree.reject(masks[key], "no_image", "no tampered image is named so")
    for key, image in tampered.items():
        kind = key.rpartition("/")[2].partition("_")[0]
        kind_known = kind if kind in _KINDS else None
        yield RawItem(f"tampered/{key}", image, 1, masks.get(key), kind_known, f"{dataset}/{key}")
    for key, image in authentic.items():
        yield RawItem(f"authentic/{key}", image, 0, group=f"{dataset}/{key}")


def _photographs(tree: Tree) -> Iterator[RawItem]:
    """All images; the id keeps the suffix where two differ in it alone."""
    names = tree.by_key(rf"(.*{_PHOTOGRAPH})").values()
    twins = Counter(map(_stem, names))
    for name in names:
        yield RawItem(_stem(name) if twins[_stem(name)] == 1 else name, name, None)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _top(name: str) -> str:
    """The first folder of a name, with a slash, or the file."""
    top, slash, _ = name.partition("/")
    return top + slash


def with_boxes(
    imported: Imported, source: RawData, boxes: Path | None, root: Path, view: View | None
) -> Imported:
    """Give imported images their boxes, and list manipulated images first.

    An image of unknown label that has a box is manipulated; one without is still unknown.

    Args:
        imported: The images.
        source: Where they lie; its boxes.json is used if `boxes` is None.
        boxes: File of the boxes: COCO (.json) or a table (.csv).
        root: Folder that the samples' paths are relative to.
        view: The picture that the boxes were drawn on, for images with an EXIF orientation.

    Raises:
        UserError: If the boxes cannot be read.
    """
    samples, rejected, clipped = imported.samples, imported.rejected, 0
    if (found := _annotations(source, boxes)) is not None:
        rejected_already = {str(one.path) for one in source.rejected}
        left_out = set(source.names) - set(imported.names.values())
        joined, left_over = join_images(
            [replace(sample, image=imported.names[sample.id]) for sample in samples],
            [
                one
                for one in found.images
                if one.name not in left_out and source.shown(one.name) not in rejected_already
            ],
        )
        applied = AppliedBoxes(lambda sample: root / sample.image, view=view, unsaid=None)
        for sample in samples:
            if sample.id in joined and joined[sample.id].annotated:
                applied.add(sample, joined[sample.id])
            else:
                applied.samples.append(sample)
        applied.warn()
        places = {e.path for e in applied.rejected if e.reason == "authentic_has_boxes"}
        wrong = {key for key, one in joined.items() if one.place in places}
        samples = [_labelled(sample) for sample in applied.samples if sample.id not in wrong]
        rejected = [*rejected, *found.rejected, *left_over, *applied.rejected]
        clipped = applied.clipped
    notes = imported.notes | {"clipped_boxes": clipped}
    samples = sorted(samples, key=lambda sample: sample.label != 1)
    return imported._replace(samples=samples, rejected=rejected, notes=notes)


def _annotations(source: RawData, boxes: Path | None) -> Annotations | None:
    """What a file of boxes says, by default the source's boxes.json; None without one."""
    if boxes is None:
        return coco.read(source.place(BOXES, BOXES)) if BOXES in source.names else None
    if (read := _READERS.get(boxes.suffix.lower())) is None:
        raise UserError(f"--boxes {boxes}: must be COCO (.json) or a table (.csv)")
    return read(boxes)


def _labelled(sample: Sample) -> Sample:
    return replace(sample, label=1) if sample.label is None and sample.boxes else sample
