"""`python -m data_prep export-boxes`: boxes or masks of a manifest for annotation tools."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from boxpromptiml.data.leaks import refuse_stale_pseudo_masks
from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import (
    atomic_writer,
    locked,
    sha256_bytes,
    sha256_file,
    write_json,
    write_text,
)
from boxpromptiml.io.options import needs
from boxpromptiml.io.orientation import upright_box, upright_image, upright_size
from boxpromptiml.io.outputs import REJECTIONS, boxes_for_others
from boxpromptiml.io.strict_json import read_as
from boxpromptiml.manifests.manifest import Manifest, check_relative, read_manifest
from boxpromptiml.manifests.sources import Source, check_size, ground_truth
from boxpromptiml.records import MANIPULATED, MaskArray, Sample
from data_prep.annotations.fitting import View
from data_prep.annotations.parts import split_parts
from data_prep.annotations.writing import WRITERS, Drawn, WrittenFormat, refuse_same_file
from data_prep.derive import errors_path, write_rejections

_logger = logging.getLogger(__name__)

Shapes = Literal["boxes", "pseudo", "truth"]

_LIST = "exported.json"  # the files of the last export into a folder, with their hashes
_FILES = TypeAdapter(dict[str, list[str]] | list[str])  # early ones have names alone
_BREAKS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


@needs("of", "format", "coco", "yolo", "cvat", "labelstudio")
def export_boxes(
    manifest: Path,
    out: Path,
    format: WrittenFormat = "coco",  # noqa: A002 - the name of the option
    of: Shapes = "boxes",
    view: View = "stored",
    class_name: str = "manipulated",
) -> int:
    """Write the boxes or masks of a manifest for CVAT, Label Studio, FiftyOne, YOLO and others.

    Authentic images are images without shapes. Images that nobody has annotated are marked as such
    (COCO: `annotated`; Label Studio: a task without annotations) or left out (VOC, YOLO); CVAT
    cannot tell the two apart. What cannot be written is listed in <out stem>.errors.jsonl, and the
    exit status is 3. A later export replaces the files of an earlier one, unless they were edited
    since, and no others. Paths are relative to the manifest's image root. Images are not copied:
    VOC and YOLO folders hold a link to that root.

    In COCO, `box_origin` in the attributes of a box says who drew it, `box_origin` of an image
    without boxes who found none. import-boxes reads these keys, other tools ignore them.

    Args:
        manifest: Images and boxes.
        out: File to write, or folder for voc and yolo.
        format: coco (JSON, also for FiftyOne), voc (XML), yolo (TXT and data.yaml), cvat (CVAT for
            images 1.1, XML), labelstudio (tasks, JSON).
        of: boxes; or masks, one shape for each connected part, of the `pseudo` masks (pixels that
            the teacher is unsure of do not count) or the ground `truth`. Masks are run lengths in
            COCO and CVAT; in YOLO and Label Studio polygons around the outside, gaps filled.
        view: Pixels that the coordinates refer to: those `stored` in the file, or the `upright`
            picture that most tools show of a photograph with an EXIF orientation.
        class_name: The one class of all shapes.

    Raises:
        UserError: If the manifest cannot be read, pseudo-masks are stale, or a file of somebody
            else, or one that was edited after an earlier export, is in the way.
    """
    if not class_name or _BREAKS.search(class_name) or ":" in class_name:
        raise UserError(f"--class_name {class_name!r}: give a name of one line without colons")
    writer = WRITERS[format]
    if writer.images is None:
        boxes_for_others(writer.ending).require(out, manifest)
    REJECTIONS.require_ours(errors_path(out))
    source = read_manifest(manifest)
    if of == "pseudo":
        refuse_stale_pseudo_masks((Source(source, s) for s in source.samples), None)
    root = (source.path.parent / source.header.image_root).resolve()
    below = _folder_of_yolo(source) if format == "yolo" else ""
    rejected = refuse_same_file(source.samples) if writer.images else []
    drawn = _Images(source, of, view, rejected, any_name=format == "coco")
    texts = writer.texts(drawn.below(below), class_name)
    if writer.images is None:
        for _, text in texts:
            write_text(out, text)
    else:
        _write_folder(out, dict(texts), writer.images, root / below)
    write_rejections(errors_path(out), rejected)
    if of == "pseudo" and drawn.unannotated and not drawn.shapes:
        _logger.warning("%s has no pseudo-masks: export the manifest that they came with", manifest)
    sys.stdout.write(
        f"{out}: {drawn.count} images below {root}, {drawn.shapes} "
        f"{'boxes' if of == 'boxes' else 'parts of masks'}, "
        f"{drawn.unannotated} not annotated, {len(rejected)} rejected\n"
    )
    return EXIT_REJECTED if rejected else EXIT_OK


def _folder_of_yolo(manifest: Manifest) -> str:
    """The folder to link as `images`: `images/` itself if all images lie there, else the root.

    YOLO's trainers find the labels of an image by its path, where they replace the last `images`.
    """
    paths = [sample.image for sample in manifest.samples]
    below = "images/" if all(path.startswith("images/") for path in paths) else ""
    if inner := sum("/images/" in f"/{path.removeprefix(below)}" for path in paths):
        _logger.warning("%d images lie in another folder `images`, where trainers miss them", inner)
    return below


class _Images:
    """The images of a manifest one after another, counted, with what is rejected.

    Args:
        manifest: The manifest.
        of: Which shapes.
        view: Pixels that they refer to.
        rejected: Images that are left out; further ones are added.
        any_name: Whether the format can hold names with control characters.
    """

    def __init__(
        self,
        manifest: Manifest,
        of: Shapes,
        view: View,
        rejected: list[RejectedInput],
        any_name: bool,
    ) -> None:
        self._manifest, self._of, self._view = manifest, of, view
        self._any_name = any_name
        self._left_out = {error.path for error in rejected}
        self._rejected = rejected
        self.count = self.shapes = self.unannotated = 0

    def below(self, folder: str) -> Iterator[Drawn]:
        """Yield the images, with paths relative to a folder of the image root."""
        for sample in self._manifest.samples:
            if sample.image in self._left_out:
                continue
            try:
                if not self._any_name and _BREAKS.search(sample.image):
                    message = "its name holds characters that XML or lists of names cannot hold"
                    raise RejectedInput(repr(sample.image), "name", message)
                drawn = self._drawn(sample)
            except RejectedInput as error:
                self._rejected.append(error)
                continue
            self.count += 1
            self.shapes += len(drawn.sample.boxes or ())
            self.unannotated += drawn.sample.boxes is None
            image = drawn.sample.image.removeprefix(folder)
            yield drawn._replace(sample=replace(drawn.sample, image=image))

    def _drawn(self, sample: Sample) -> Drawn:
        """An image with its shapes in the wanted view.

        Raises:
            RejectedInput: If its mask or, for the upright view, the image cannot be read.
        """
        orientation = 1
        if self._view == "upright":
            orientation = images.probe(self._manifest.image_path(sample)).orientation
        size = upright_size(sample.size, orientation)
        if sample.label == 0:
            return Drawn(replace(sample, size=size, boxes=()))
        if self._of == "boxes":
            boxes = sample.boxes and tuple(
                upright_box(box, sample.size, orientation) for box in sample.boxes
            )
            return Drawn(replace(sample, size=size, boxes=boxes))
        mask = self._mask(sample)
        if mask is None:
            return Drawn(replace(sample, size=size, boxes=None, box_origin=None))
        parts = split_parts(upright_image(mask, orientation))
        shapes = replace(
            sample,
            size=size,
            boxes=tuple(box for box, _ in parts),
            box_origin="mask" if self._of == "truth" else None,
        )
        return Drawn(shapes, tuple(part for _, part in parts))

    def _mask(self, sample: Sample) -> MaskArray | None:
        if self._of == "truth":
            has_mask = self._manifest.mask_path(sample) is not None
            return ground_truth(Source(self._manifest, sample)) if has_mask else None
        path = self._manifest.pseudo_mask_path(sample)
        if path is None:
            return None
        trimap = images.read_trimap(path)
        check_size(trimap.shape, sample, str(path))
        return np.asarray(trimap == MANIPULATED)


def _write_folder(out: Path, texts: dict[str, str], link: str, root: Path) -> None:
    """Write files into a folder, replace and remove those of earlier exports, and no others.

    Raises:
        UserError: If a file to write or to remove is of no earlier export, or was edited since.
    """
    with locked(out):
        earlier = _earlier_files(out)
        new = {name: [sha256_bytes(text.encode())] for name, text in texts.items()} | {link: []}
        paths = {name: _inside(out, name) for name in (new | earlier)}
        for name, path in paths.items():
            _refuse_foreign(path, earlier.get(name), new.get(name, []))
        # Whatever happens next, the next export may replace the files of both.
        write_json(out / _LIST, {n: [*earlier.get(n, []), *new.get(n, [])] for n in sorted(paths)})
        for name, text in texts.items():
            with atomic_writer(paths[name], durable=False) as stream:
                stream.write(text.encode())
        _link(paths[link], root)
        for name in paths.keys() - new.keys():
            paths[name].unlink(missing_ok=True)
        write_json(out / _LIST, dict(sorted(new.items())))


def _earlier_files(out: Path) -> dict[str, list[str]]:
    """The files of earlier exports, with what they may hold: hashes, or none for anything."""
    if not (out / _LIST).exists():
        return {}
    found = read_as(_FILES, out / _LIST)
    return found if isinstance(found, dict) else {name: [] for name in found}


def _refuse_foreign(path: Path, earlier: list[str] | None, new: list[str]) -> None:
    if not os.path.lexists(path):
        return
    if earlier is None:
        raise UserError(f"{path}: is not of an earlier export; move it, or name another --out")
    if earlier and sha256_file(path) not in (*earlier, *new):
        raise UserError(
            f"{path}: was edited after it was exported; import it first (import-boxes), or remove "
            "it, or name another --out"
        )


def _inside(out: Path, name: str) -> Path:
    """The path of a file of an export, which must lie in its folder.

    Raises:
        UserError: If it does not.
    """
    check_relative(name)
    path = out / name
    if not path.parent.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{path}: lies outside of {out} through a link; name another --out")
    return path


def _link(path: Path, root: Path) -> None:
    """Make or replace a link to the folder of the images, which may move together with it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.symlink_to(os.path.relpath(root, path.parent.resolve()))
    temporary.replace(path)
