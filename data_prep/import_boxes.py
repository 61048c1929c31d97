"""`python -m data_prep import-boxes`: boxes drawn in an annotation tool to a manifest."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.records import Box, Sample
from data_prep.annotations import AnnotatedImage, Annotations, coco, cvat, labelme, voc, yolo
from data_prep.annotations.joining import join_images
from data_prep.annotations.screen import boxes_of
from data_prep.derive import derive, write_rejections

Format = Literal["coco", "voc", "yolo", "cvat", "labelme"]
# Ending of the files, and how to read one that lies in a folder below --annotations.
_READERS: dict[Format, tuple[str, Callable[[Path, str], Annotations]]] = {
    "coco": (".json", lambda path, _: coco.read(path)),
    "voc": (".xml", voc.read),
    "yolo": (".txt", yolo.read),
    "cvat": (".xml", lambda path, _: cvat.read(path)),
    "labelme": (".json", labelme.read),
}
_ANY_LABEL: list[str] = []
_SAME = 1e-3  # pixels: what x + width and decimals may do to a box that nobody touched


def import_boxes(
    manifest: Path,
    annotations: Path,
    format: Format,  # noqa: A002 - the name of the option
    out: Path,
    labels: list[str] = _ANY_LABEL,
    empty: Literal["annotated", "unannotated"] = "annotated",
) -> int:
    """Give the images of a manifest the boxes of an annotation tool.

    Images are joined by path: that of the annotation must end that of the manifest or the other way
    round, so a bare file name will do where it is unique. Below a folder of VOC, YOLO or LabelMe
    files, subfolders are part of the name. Images that no annotation names stay as they are and are
    listed in <out stem>.unannotated.jsonl where they have no boxes. What cannot be used is listed
    in <out stem>.errors.jsonl, and the exit status is 3. Labels of images never change.
    An image whose boxes are those it has, to a thousandth of a pixel, keeps its boxes, their origin
    and its pseudo-mask.

    Args:
        manifest: The images.
        annotations: A file, or a folder of files, subfolders included.
        format: coco (JSON), voc (XML), yolo (TXT), cvat (CVAT for images 1.1, XML), labelme (JSON).
        out: Manifest to write (.jsonl).
        labels: Keep only boxes of these labels (YOLO: class numbers); all by default.
        empty: What an image is that is listed without any shape. CVAT and YOLO exports list images
            that nobody has opened yet: unannotated keeps those apart.
    """
    source = read_manifest(manifest)
    found, rejected = _read_all(annotations, format)
    _check_labels(labels, found)
    joined, left_over = join_images(source.samples, found, with_ending=format != "yolo")
    rejected += left_over
    samples: list[Sample] = []
    for sample in source.samples:
        entry = joined.get(sample.id)
        if entry and entry.annotated and (empty == "annotated" or entry.shapes or entry.rejected):
            answer, bad = _annotate(sample, entry, labels)
            rejected += bad
            samples.append(answer)
        else:
            samples.append(sample)
    without = [
        RejectedInput(sample.image, "not_annotated", "no annotation gives this image boxes")
        for sample in samples
        if sample.boxes is None
    ]
    write_rejections(out.with_name(f"{out.stem}.unannotated.jsonl"), without)
    notes = {"boxes": {"origin": "import-boxes", "format": format, "labels": labels}}
    status = derive(source, out, samples, rejected, notes)
    boxes = sum(len(sample.boxes or ()) for sample in samples)
    sys.stdout.write(
        f"{out}: {len(samples)} images, {len(joined)} named by {annotations}, {boxes} boxes, "
        f"{len(without)} not annotated, {len(rejected)} rejected\n"
    )
    return status


def _read_all(source: Path, kind: Format) -> tuple[list[AnnotatedImage], list[RejectedInput]]:
    """Every image of every file; a bad file of a folder does not lose the others."""
    suffix, read = _READERS[kind]
    if not source.is_dir():
        single = read(source, "")
        return single.entries, single.rejected
    entries: list[AnnotatedImage] = []
    rejected: list[RejectedInput] = []
    count = 0
    for path in _files(source, suffix):
        count += 1
        try:
            if path.is_symlink():
                raise UserError(f"{path}: is a symbolic link, which is not followed")
            found = read(path, path.parent.relative_to(source).as_posix())
        except UserError as error:
            message = str(error).removeprefix(f"{path}: ")
            rejected.append(RejectedInput(path, "bad_file", message))
        else:
            entries += found.entries
            rejected += found.rejected
    if not count:
        raise UserError(f"{source}: holds no {suffix} file of format {kind}")
    return entries, rejected


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Files with an ending below a folder, in sorted order; links to folders are not followed."""
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield Path(here, name)


def _check_labels(labels: Sequence[str], entries: Iterable[AnnotatedImage]) -> None:
    """A misspelt label would make every image one without boxes."""
    known = Counter(shape.label for entry in entries for shape in entry.shapes)
    unknown = sorted(set(labels) - known.keys())
    if unknown:
        some = ", ".join(repr(label) for label, _ in known.most_common(10))
        raise UserError(f"--labels {unknown[0]!r}: no box has this label; there are {some}")


def _annotate(
    sample: Sample, entry: AnnotatedImage, labels: Sequence[str]
) -> tuple[Sample, list[RejectedInput]]:
    """The sample with the entry's boxes, or as it is if they cannot be trusted."""
    height, width = sample.size
    if entry.size not in (sample.size, None):
        says = f"{entry.size[1]:g} x {entry.size[0]:g}" if entry.size else ""
        message = (
            f"says {says}, {sample.image} is {width} x {height}: were the boxes drawn on a rotated "
            "(EXIF) or resized copy?"
        )
        return sample, [RejectedInput(entry.place, "size_mismatch", message)]
    boxes, rejected = boxes_of(entry, sample.size, labels)
    if rejected and not boxes:  # an image whose boxes are all bad is not one without boxes
        return sample, rejected
    if sample.label == 0 and boxes:
        message = f"{sample.image} is authentic in the manifest but has boxes; correct one of them"
        return sample, [*rejected, RejectedInput(entry.place, "authentic_has_boxes", message)]
    if sample.label == 0:
        return replace(sample, boxes=()), rejected
    if sample.boxes is not None and _same(boxes, sample.boxes):
        return sample, rejected
    return replace(sample, boxes=boxes, box_origin=entry.origin, pseudo_mask=None), rejected


def _same(boxes: Sequence[Box], others: Sequence[Box]) -> bool:
    return len(boxes) == len(others) and all(
        abs(side - other) <= _SAME
        for pair in zip(boxes, others, strict=True)
        for side, other in zip(*pair, strict=True)
    )
