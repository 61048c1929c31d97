"""`python -m data_prep import-boxes`: boxes drawn in an annotation tool to a manifest."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.folders import files_below
from boxpromptiml.io.options import needs
from boxpromptiml.io.outputs import REJECTIONS
from boxpromptiml.manifests.manifest import read_manifest
from data_prep.annotations import (
    AnnotatedImage,
    Annotations,
    coco,
    cvat,
    labelme,
    labelstudio,
    table,
    voc,
)
from data_prep.annotations.applying import AppliedBoxes
from data_prep.annotations.fitting import View
from data_prep.annotations.joining import JoinBy, join_images
from data_prep.annotations.yolo import Lines
from data_prep.annotations.yolo import read as read_yolo
from data_prep.derive import derive, require_outputs, unannotated_path, write_rejections

Format = Literal["coco", "voc", "yolo", "cvat", "labelme", "labelstudio", "csv"]
_Read = Callable[[Path, str], Annotations]
# Ending of the files, and how to read one that lies in a folder below --annotations.
_READERS: dict[Format, tuple[str, _Read]] = {
    "coco": (".json", lambda path, _: coco.read(path)),
    "voc": (".xml", voc.read),
    "yolo": (".txt", read_yolo),
    "cvat": (".xml", lambda path, _: cvat.read(path)),
    "labelme": (".json", labelme.read),
    "labelstudio": (".json", lambda path, _: labelstudio.read(path)),
    "csv": (".csv", lambda path, _: table.read(path)),
}
_ANY_LABEL: list[str] = []


@needs("yolo", "format", "yolo")
def import_boxes(
    manifest: Path,
    annotations: Path,
    format: Format,  # noqa: A002 - the name of the option
    out: Path,
    labels: list[str] = _ANY_LABEL,
    empty: Literal["annotated", "unannotated"] = "annotated",
    join: JoinBy = "path",
    view: View | None = None,
    yolo: Lines | None = None,
) -> int:
    """Give the images of a manifest the boxes of an annotation tool.

    Images are joined by path: one path must end with the other, so a bare file name is enough if it
    is unique. Below a folder of VOC, YOLO or LabelMe files, subfolders are part of the name. Images
    without an annotation are unchanged and, if they have no boxes, listed in <out
    stem>.unannotated.jsonl. What cannot be used is listed in <out stem>.errors.jsonl, and the exit
    status is 3; an image with an unusable shape is unchanged, since its other boxes may be
    incomplete. A box that extends beyond its image is clipped. Labels of images never change. An
    image whose boxes are the same to a thousandth of a pixel keeps its boxes, their origin and its
    pseudo-mask.

    Args:
        manifest: The images.
        annotations: A file, or a folder of files, subfolders included.
        format: coco (JSON), voc (XML), yolo (TXT), cvat (CVAT for images 1.1, XML), labelme (JSON),
            labelstudio (its own JSON), csv (a row per box: image, x0, y0, x1, y1, in pixels).
        out: Manifest to write (.jsonl).
        labels: Keep only boxes of these labels (YOLO: class numbers); all by default.
        empty: Meaning of an image without shapes: `annotated` as empty, or `unannotated`, for CVAT
            and YOLO exports, which also list images that nobody has opened yet.
        join: `name` also joins by the bare file name, if it is unique, without the escapes and
            hashes that Label Studio and Roboflow add, and without a suffix if the annotation has
            none.
        view: For images with an EXIF orientation: whether boxes were drawn on the `upright` picture
            (as viewers and most tools show it) or on the `stored` pixels.
        yolo: Meaning of lines of seven values that end in an integer: `polygons` of three corners,
            or `tracks` (class x y w h confidence id).

    Raises:
        UserError: If manifest or annotations cannot be read, or options contradict the format.
    """
    require_outputs(out)
    REJECTIONS.require_ours(unannotated_path(out))
    source = read_manifest(manifest)
    suffix, read = _READERS[format]
    if yolo is not None:
        read = partial(read_yolo, lines=yolo)
    found, rejected = _read_all(annotations, format, suffix, read)
    _check_labels(labels, found)
    joined, left_over = join_images(source.samples, found, format != "yolo", join)
    rejected += left_over
    result = AppliedBoxes(source.image_path, labels, view)
    for sample in source.samples:
        annotated = joined.get(sample.id)
        if annotated is None or not _counts(annotated, empty):
            result.samples.append(sample)
        else:
            result.add(sample, annotated)
    result.warn()
    samples, rejected = result.samples, rejected + result.rejected
    without = [
        RejectedInput(sample.image, "not_annotated", "no annotation gives this image boxes")
        for sample in samples
        if sample.boxes is None
    ]
    write_rejections(unannotated_path(out), without)
    notes = {
        "origin": "import-boxes",
        "format": format,
        "labels": labels,
        "view": view,
        "clipped": result.clipped,
    }
    status = derive(source, out, samples, rejected, {"boxes": notes})
    boxes = sum(len(sample.boxes or ()) for sample in samples)
    sys.stdout.write(
        f"{out}: {len(samples)} images, {len(joined)} named by {annotations}, {boxes} boxes, "
        f"{len(without)} not annotated, {len(rejected)} rejected\n"
    )
    return status


def _read_all(
    source: Path, kind: Format, suffix: str, read: _Read
) -> tuple[list[AnnotatedImage], list[RejectedInput]]:
    """Read every image of every file; a bad file in a folder does not affect the others."""
    if not source.is_dir():
        single = read(source, "")
        return single.images, single.rejected
    found: list[AnnotatedImage] = []
    rejected: list[RejectedInput] = []
    count = 0
    for path in _files(source, suffix):
        count += 1
        try:
            if path.is_symlink():
                raise UserError(f"{path}: is a symbolic link, which is not followed")
            annotations = read(path, path.parent.relative_to(source).as_posix())
        except UserError as error:
            message = str(error).removeprefix(f"{path}: ")
            rejected.append(RejectedInput(path, "bad_file", message))
        else:
            found += annotations.images
            rejected += annotations.rejected
    if not count:
        raise UserError(f"{source}: holds no {suffix} file of format {kind}")
    return found, rejected


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield files with a suffix below a folder, sorted; links to folders are not followed."""
    yield from (path for path in files_below(folder) if path.name.lower().endswith(suffix))


def _check_labels(labels: Sequence[str], annotated: Iterable[AnnotatedImage]) -> None:
    """Refuse unknown labels: a misspelled one would leave every image without boxes."""
    known = Counter(shape.label for image in annotated for shape in image.shapes)
    unknown = sorted(set(labels) - known.keys())
    if unknown:
        some = ", ".join(repr(label) for label, _ in known.most_common(10))
        raise UserError(f"--labels {unknown[0]!r}: no box has this label; there are {some}")


def _counts(annotated: AnnotatedImage, empty: str) -> bool:
    """Whether a person has annotated an image."""
    has_shapes = bool(annotated.shapes or annotated.rejected)
    return annotated.annotated and (empty == "annotated" or has_shapes)
