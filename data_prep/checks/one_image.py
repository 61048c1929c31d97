"""Checks of one image of a manifest: file, annotation, mask, pseudo-mask."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml import geometry
from boxpromptiml.data.leaks import refuse_stale_pseudo_masks
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.jpeg import Compression, compression
from boxpromptiml.manifests.remote import address_of, is_remote
from boxpromptiml.manifests.sources import Source, check_size, ground_truth
from boxpromptiml.records import Box, MaskArray, Sample
from data_prep.checks.findings import Finding
from data_prep.checks.near_duplicates import PictureHash, picture_hash

_WHOLE = 0.9  # a box of so much of the image
_OUTSIDE = 0.1  # so much of a mask may lie outside its boxes: coarse boxes are
_HASHED_SIDE = 64  # pixels that a thumbnail of 16 x 16 is made of, at least, for its hash
_LARGER = 10  # times the marked area; even sloppy boxes are below 4


class FileFacts(NamedTuple):
    """Facts about an image file that need no decoding.

    Attributes:
        format: JPEG, PNG, TIFF, BMP or WEBP, by content.
        mode: Pillow's name of the stored pixels.
        ending: Suffix of the file's name, in lower case.
        size: (H, W).
        bytes: Size of the file.
        jpeg: Compression settings of a JPEG.
    """

    format: str
    mode: str
    ending: str
    size: tuple[int, int]
    bytes: int
    jpeg: Compression | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of inspecting one image.

    Attributes:
        path: Path of the image.
        findings: In the order image, annotation, mask, pseudo-mask.
        sha256: Hash of the image file; None if it cannot be read.
        file: Facts about the file; None if it cannot be read.
        mask_fraction: Fraction of the image that the true mask covers, where it was decoded.
        picture_hash: Hash of the decoded pixels; None if that failed, or for a blank picture.
    """

    path: str
    findings: tuple[Finding, ...]
    sha256: str | None = None
    file: FileFacts | None = None
    mask_fraction: float | None = None
    picture_hash: PictureHash | None = None


def inspect_image(source: Source, verify: bool) -> Inspection:
    """Inspect one image; whatever its files contain ends in a finding.

    Args:
        source: The image; of its manifest only path and header are used.
        verify: Decode image and masks; else the image at a reduced size, and of masks the header.
    """
    findings: list[Finding] = []
    seen = fraction = picture = None
    image = _shown(source, source.sample.image)
    try:
        path = source.manifest.image_path(source.sample)
        seen, picture = _look_at_file(path, verify)
        findings += _compare(image, seen[0], source.sample)
    except UserError as error:
        findings.append(_rejection(image, error))
    except OSError as error:  # gone since it was read
        findings.append(Finding("rejected", image, "unreadable", str(error)))
    findings += _annotation(image, source.sample)
    if source.sample.mask is not None:
        mask_name = _shown(source, source.sample.mask)
        try:
            mask = _mask(source, verify)
            if mask is not None:
                fraction = float(mask.mean())
                findings += _mask_findings(mask_name, mask, source.sample)
        except UserError as error:
            findings.append(_rejection(mask_name, error))
    if source.sample.pseudo_mask is not None and source.sample.label != 0:
        name = _shown(source, source.sample.pseudo_mask, pseudo=True)
        try:
            _check_pseudo_mask(source, seen[0].sha256 if seen else None, verify)
        except UserError as error:
            findings.append(_rejection(name, error, "stale_pseudo_mask"))
    sha256, facts = (seen[0].sha256, seen[1]) if seen else (None, None)
    return Inspection(image, tuple(findings), sha256, facts, fraction, picture)


def _look_at_file(
    path: Path, verify: bool
) -> tuple[tuple[images.ImageInfo, FileFacts], PictureHash | None]:
    pixels, info = images.read_image(path) if verify else images.read_reduced(path, _HASHED_SIDE)
    picture = picture_hash(pixels)
    jpeg = compression(path) if info.format == "JPEG" else None
    ending, count = path.suffix.lower(), path.stat().st_size
    return (info, FileFacts(info.format, info.mode, ending, info.size, count, jpeg)), picture


def _compare(name: str, info: images.ImageInfo, sample: Sample) -> Iterator[Finding]:
    """Findings where the file differs from the manifest."""
    try:
        check_size(info.size, sample, name)
    except RejectedInput as error:
        yield _rejection(name, error)
    if sample.image_sha256 not in (None, info.sha256):
        yield Finding("rejected", name, "changed", "its SHA-256 is not the manifest's")


def _annotation(name: str, sample: Sample) -> Iterator[Finding]:
    """Findings about label and boxes, without opening files."""
    boxes = geometry.as_array(sample.boxes or ())
    area = sample.size[0] * sample.size[1]
    covered = max(((x1 - x0) * (y1 - y0) / area for x0, y0, x1, y1 in boxes), default=0)
    for failed, reason, message in (
        (sample.label is None, "unlabelled", "its label is null"),
        (
            sample.label == 1 and sample.boxes is None and sample.mask is None,
            "not_annotated",
            "has neither boxes nor a mask",
        ),
        (
            sample.label == 1 and sample.boxes == (),
            "manipulated_without_boxes",
            "its list of boxes is empty",
        ),
        (
            sample.label == 0 and len(boxes) > 0,
            "authentic_has_boxes",
            f"has {len(boxes)} boxes; correct label or boxes",
        ),
        (covered > _WHOLE, "box_covers_image", f"a box covers {covered:.0%} of the image"),
    ):
        if failed:
            yield Finding("warning", name, reason, message)


def _mask(source: Source, verify: bool) -> MaskArray | None:
    """The true mask; None if only its header was read.

    Raises:
        UserError: If it cannot be used.
    """
    path = source.manifest.mask_path(source.sample)
    if path is None:
        return None
    if not verify:
        check_size(images.probe(path).size, source.sample, str(path))
        return None
    if source.sample.label == 0:  # training takes such an image as all authentic, unseen
        mask = images.read_mask(path, source.sample.mask_threshold)
        check_size(mask.shape, source.sample, str(path))
        return mask
    return ground_truth(source)


def _mask_findings(name: str, mask: MaskArray, sample: Sample) -> Iterator[Finding]:
    if sample.label == 0 and mask.any():
        yield Finding("warning", name, "authentic_has_mask", f"marks {mask.mean():.1%} of it")
    if sample.boxes and mask.any():
        yield from _far_boxes(name, mask, sample.boxes)
        inside = geometry.union_mask(geometry.as_array(sample.boxes), sample.size)
        outside = float((mask & ~inside).sum() / mask.sum())
        if outside > _OUTSIDE:
            message = f"{outside:.0%} of the mask lies outside the boxes"
            yield Finding("warning", name, "mask_outside_boxes", message)


def _far_boxes(name: str, mask: MaskArray, boxes: Sequence[Box]) -> Iterator[Finding]:
    """Findings about boxes that do not match the mask inside them."""
    for box in boxes:
        rows, columns = np.nonzero(mask[geometry.pixel_slices(box, mask.shape)])
        x0, y0, x1, y1 = box
        text = f"box {x0:g} {y0:g} {x1:g} {y1:g}"
        if not len(rows):
            yield Finding("warning", name, "box_far_from_mask", f"{text} holds nothing of the mask")
            continue
        marked = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        times = (x1 - x0) * (y1 - y0) / marked
        if times > _LARGER:
            message = f"{text} is {times:.0f} times as large as what the mask marks in it"
            yield Finding("warning", name, "box_far_from_mask", message)


def _check_pseudo_mask(source: Source, image_sha256: str | None, verify: bool) -> None:
    path = source.manifest.pseudo_mask_path(source.sample)
    if path is None:
        return
    size = images.read_trimap(path).shape if verify else images.probe(path).size
    check_size(size, source.sample, str(path))
    known = source.sample.image_sha256 or image_sha256  # of the file, not what the sidecar says
    sample = replace(source.sample, image_sha256=known)
    refuse_stale_pseudo_masks([Source(source.manifest, sample)], None)


def _rejection(name: str, error: UserError, reason: str = "bad_path") -> Finding:
    """A rejection under the displayed name; `reason` is for an error without its own."""
    if isinstance(error, RejectedInput):
        return Finding("rejected", name, error.reason, error.message)
    return Finding("rejected", name, reason, str(error))


def _shown(source: Source, relative: str, pseudo: bool = False) -> str:
    """Path of a file, absolute or from the current folder, as the manifest was named."""
    manifest = source.manifest
    relative_root = manifest.header.pseudo_root if pseudo else manifest.header.image_root
    if is_remote(relative_root):
        return address_of(relative_root, relative)
    root = str((manifest.path.parent / relative_root).resolve())
    return os.path.normpath(
        f"{root if manifest.path.is_absolute() else os.path.relpath(root)}/{relative}"
    )
