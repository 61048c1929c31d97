"""From one item of a layout to a sample: probe, compare sizes, convert or verify the mask."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
    """The user's options of an import.

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
    """An item whose files are on the disk.

    Attributes:
        item: What the layout says of it.
        image: The image.
        masks: Its masks by name; none for an image without.
    """

    item: RawItem
    image: Path
    masks: dict[str, Path]


class Checked(NamedTuple):
    """A sample, and the fraction of its image that its mask covers, where the mask was decoded."""

    sample: Sample
    covered: float | None


def place(source: RawData, item: RawItem) -> Placed:
    """Bring the files of an item onto the disk; from one thread, because members may be shared.

    Raises:
        RejectedInput: If a name or a member of an archive cannot be used.
    """
    masks = (item.mask, *item.more_masks) if item.mask else ()
    for text in (item.image, item.key, *masks):
        check_name(text, source.shown(item.image))
    image = source.place(item.image, _wanted("images", item.image))
    return Placed(item, image, {name: source.place(name, _wanted("masks", name)) for name in masks})


def _wanted(folder: str, name: str) -> str:
    """Where a member goes: a sound relative path, made from its name."""
    stem, dot, suffix = name.rpartition(".")
    return f"{folder}/{safe_name(stem)}{dot}{suffix.lower()}"


def check(
    dataset: DatasetLayout, source: RawData, options: ImportOptions, placed: Placed
) -> Checked:
    """Read the image and masks of an item and make its sample.

    Raises:
        RejectedInput: If image or mask cannot be used, in the source's names.
    """
    item, mask, covered = placed.item, None, None
    label = item.label
    with _naming(source.shown(item.image)):
        name = relative_name(placed.image, options.root)
        info = images.probe(placed.image)
        if options.verify:
            images.read_image(placed.image)
    own = dataset.mask_threshold if item.mask_threshold is None else item.mask_threshold
    threshold = own if options.mask_threshold is None else options.mask_threshold
    for mask_name, path in placed.masks.items():
        with _naming(source.shown(mask_name)):
            if dataset.convert is None:  # what is converted may be no image: see `_mask`
                _compare(images.probe(path).size, info.size, dataset.known.get(item.key))
            relative_name(path, options.root)
    is_written = bool(placed.masks) and (dataset.convert is not None or len(placed.masks) > 1)
    if placed.masks:
        mask, covered = _mask(dataset, source, options, placed, threshold, is_written, info.size)
        if label == 0 and covered:
            message = "is said to be authentic, but its mask marks pixels"
            raise RejectedInput(source.shown(item.image), "authentic_has_mask", message)
        if label != 1:
            label = int(bool(covered))
            mask = mask if label else None
    sample = Sample(
        id=f"{options.name}/{item.key}",
        dataset=options.name,
        split=options.split or item.split or "train",
        group=item.group or f"{options.name}/{item.key}",
        image=name,
        size=info.size,
        label=label,
        boxes=() if label == 0 else None,
        kind=item.kind,
        mask=mask.relative_to(options.root).as_posix() if mask else None,
        mask_threshold=threshold if mask and not is_written else None,
        image_sha256=info.sha256,
    )
    return Checked(sample, covered)


def check_name(name: str, shown: Path | str) -> None:
    """Require a name of printable text; `shown` is the file's name in messages.

    Raises:
        RejectedInput: If the name is not printable.
    """
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


def _compare(mask: tuple[int, int], image: tuple[int, int], known: str | None) -> None:
    """Reject a mask of another size, since it is unknown how to rotate or resize it."""
    if mask != image:
        message = f"the mask is {mask[1]} x {mask[0]}, its image {image[1]} x {image[0]}"
        raise RejectedInput("", "size_mismatch", f"{message}; {known}" if known else message)


def _mask(
    dataset: DatasetLayout,
    source: RawData,
    options: ImportOptions,
    placed: Placed,
    threshold: int | None,
    is_written: bool,
    size: tuple[int, int],
) -> tuple[Path, float | None]:
    """Path of the mask to use, and its fraction of the image where it was decoded."""
    first = next(iter(placed.masks.values()))
    if not is_written and not options.verify and placed.item.label == 1:
        return first, None
    parts: list[MaskArray] = []
    for name, path in placed.masks.items():
        with _naming(source.shown(name)):
            read = dataset.convert or partial(images.read_mask, threshold=threshold)
            parts.append(part := read(path))
            _compare((part.shape[0], part.shape[1]), size, dataset.known.get(placed.item.key))
    mask: MaskArray = np.logical_or.reduce(parts)
    if placed.item.label == 1 and not mask.any():
        shown = source.shown(next(iter(placed.masks)))
        raise RejectedInput(shown, "empty_mask", "marks no pixel of a manipulated image")
    if is_written:
        first = options.masks / f"{safe_name(placed.item.key)}.png"
        images.write_png(first, mask.astype(np.uint8) * MANIPULATED)
    return first, float(mask.mean())


@contextmanager
def _naming(shown: str) -> Iterator[None]:
    """Raise rejections under the name that the user knows."""
    try:
        yield
    except RejectedInput as error:
        raise RejectedInput(shown, error.reason, error.message) from error
