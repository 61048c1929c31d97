"""From one item of a layout to a sample: probe, compare sizes, convert or verify the mask."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import check_relative, safe_name
from boxpromptiml.records import MANIPULATED, MaskArray, Sample, Split
from data_prep.importers.layout import DatasetLayout, RawItem
from data_prep.importers.raw import RawData


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the user decides of an import.

    Attributes:
        name: Name of the dataset in the manifest.
        split: Split of all images; the dataset's own, else `train`, when None.
        mask_threshold: Instead of the dataset's own.
        verify: Decode every image and mask, not only their headers.
        root: Folder that holds all images and masks; the manifest's `image_root`.
        masks: Folder below `root` for masks that are written anew.
    """

    name: str
    split: Split | None
    mask_threshold: int | None
    verify: bool
    root: Path
    masks: Path


class Placed(NamedTuple):
    """An item whose files are on the disk."""

    item: RawItem
    image: Path
    mask: Path | None


class Checked(NamedTuple):
    """A sample, and the share of its image that its mask covers, where the mask was decoded."""

    sample: Sample
    covered: float | None


def place(source: RawData, item: RawItem) -> Placed:
    """Bring the files of an item onto the disk; from one thread, because members may be shared.

    Raises:
        RejectedInput: If a name or a member of an archive cannot be used.
    """
    for text in (item.image, item.key, item.mask or ""):
        check_name(text, source.shown(item.image))
    image = source.place(item.image, _wanted("images", item.image))
    mask = source.place(item.mask, _wanted("masks", item.mask)) if item.mask else None
    return Placed(item, image, mask)


def _wanted(folder: str, name: str) -> str:
    """Where a member goes: a sound relative path, made from its name."""
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}/{safe_name(stem)}{dot}{suffix.lower()}"


def check(
    dataset: DatasetLayout, source: RawData, options: ImportOptions, placed: Placed
) -> Checked:
    """The sample of an item.

    Raises:
        RejectedInput: If image or mask cannot be used, in the source's names.
    """
    item, mask, covered, threshold = placed.item, None, None, None
    with _naming(source.shown(item.image)):
        name = relative_name(placed.image, options.root)
        info = images.probe(placed.image)
        if options.verify:
            images.read_image(placed.image)
    if item.mask is not None and placed.mask is not None:
        given = options.mask_threshold
        own = dataset.mask_threshold if item.mask_threshold is None else item.mask_threshold
        threshold = own if given is None else given
        with _naming(source.shown(item.mask)):
            _compare(images.probe(placed.mask).size, info.size, dataset.known.get(item.key))
            relative_name(placed.mask, options.root)
            mask, covered = _mask(dataset, options, item.key, placed.mask, threshold)
    sample = Sample(
        id=f"{options.name}/{item.key}",
        dataset=options.name,
        split=options.split or item.split or "train",
        group=item.group or f"{options.name}/{item.key}",
        image=name,
        size=info.size,
        label=item.label,
        boxes=None if item.label else (),
        kind=item.kind,
        mask=mask.relative_to(options.root).as_posix() if mask else None,
        mask_threshold=None if dataset.convert else threshold,
        image_sha256=info.sha256,
    )
    return Checked(sample, covered)


def check_name(name: str, shown: Path | str) -> None:
    """Reject a name that is no printable text; `shown` is how messages call the file."""
    if any(not c.isprintable() or 0xD800 <= ord(c) < 0xE000 for c in name):
        message = "has a name that is not printable text; rename it"
        raise RejectedInput(shown, "bad_name", message)


def relative_name(path: Path, root: Path) -> str:
    """How a manifest names a file below `root`.

    Raises:
        RejectedInput: If a manifest may not name it so.
    """
    relative = path.relative_to(root).as_posix()
    try:
        check_relative(relative)
    except UserError as error:
        raise RejectedInput(path, "bad_name", f"{error}; rename it") from error
    return relative


def refuse_empty(mask: MaskArray, path: Path | str) -> None:
    """Reject the mask of a manipulated image that marks nothing."""
    if not mask.any():
        raise RejectedInput(path, "empty_mask", "marks no pixel of a manipulated image")


def _compare(mask: tuple[int, int], image: tuple[int, int], known: str | None) -> None:
    """Refuse a mask of another size; nothing says how it would have to be turned or resized."""
    if mask != image:
        message = f"the mask is {mask[1]} x {mask[0]}, its image {image[1]} x {image[0]}"
        raise RejectedInput("", "size_mismatch", f"{message}; {known}" if known else message)


def _mask(
    dataset: DatasetLayout, options: ImportOptions, key: str, path: Path, threshold: int | None
) -> tuple[Path, float | None]:
    """Path of the mask to use, and its share of the image where it was decoded."""
    if dataset.convert is None and not options.verify:
        return path, None
    mask: MaskArray
    mask = dataset.convert(path) if dataset.convert else images.read_mask(path, threshold)
    refuse_empty(mask, "")
    if dataset.convert:
        path = options.masks / f"{safe_name(key)}.png"
        images.write_png(path, mask.astype(np.uint8) * MANIPULATED)
    return path, float(mask.mean())


@contextmanager
def _naming(shown: str) -> Iterator[None]:
    """Give a rejection the name that the user knows."""
    try:
        yield
    except RejectedInput as error:
        raise RejectedInput(shown, error.reason, error.message) from error
