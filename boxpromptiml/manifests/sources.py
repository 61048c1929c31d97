"""Samples of several manifests as one sequence, with their images and ground truth.

The only module that opens ground-truth masks: training on pseudo-masks or boxes never calls it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.manifests.rows import repeated
from boxpromptiml.records import ImageArray, MaskArray, Sample, Split


class Source(NamedTuple):
    """A sample and the manifest that knows where its files are."""

    manifest: Manifest
    sample: Sample


def ground_truth(source: Source) -> MaskArray:
    """The true mask (H, W); all False for an authentic image.

    Raises:
        UserError: If the image is manipulated or unknown and has no mask.
        RejectedInput: If the mask is damaged, not binary, of another size than the image, or empty
            although the image is manipulated.
    """
    manifest, sample = source
    if sample.label == 0:
        return np.zeros(sample.size, bool)
    path = manifest.mask_path(sample)
    if path is None:
        raise UserError(f"{manifest.path}: sample {sample.id!r} has no ground-truth mask")
    mask = images.read_mask(path, sample.mask_threshold)
    check_size(mask.shape, sample, str(path))
    if sample.label == 1 and not mask.any():
        raise RejectedInput(path, "empty_mask", f"{sample.id!r} is manipulated, its mask is empty")
    return mask


def check_size(found: tuple[int, ...], sample: Sample, path: str) -> None:
    """Compare the size of a file's pixels with the manifest.

    Args:
        found: (H, W) of the file.
        sample: The sample.
        path: Path of the file, for the message.

    Raises:
        RejectedInput: If they differ.
    """
    if tuple(found) != tuple(sample.size):
        raise RejectedInput(
            path,
            "size_mismatch",
            f"is {found[1]} x {found[0]}, the manifest says {sample.size[1]} x {sample.size[0]}",
        )


def stored_image(source: Source) -> ImageArray:
    """The pixels (H, W, 3) of a sample, checked against the manifest.

    Raises:
        RejectedInput: If the file cannot be read, or is not the one that the manifest describes.
    """
    path = source.manifest.image_path(source.sample)
    image, info = images.read_image(path)
    check_size(image.shape[:2], source.sample, str(path))
    if source.sample.image_sha256 not in (None, info.sha256):
        raise RejectedInput(path, "changed", "the file's SHA-256 is not the manifest's")
    return image


class Sources(Sequence[Source]):
    """The rows of several manifests in order; each is read from its file on access.

    Args:
        manifests: The manifests, with the rows to use.
    """

    def __init__(self, manifests: Iterable[Manifest]) -> None:
        self.manifests = tuple(manifests)
        self._starts = [0, *accumulate(len(one.samples) for one in self.manifests)]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, index: int) -> Source: ...
    @overload
    def __getitem__(self, index: slice) -> list[Source]: ...
    def __getitem__(self, index: int | slice) -> Source | list[Source]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        number = bisect_right(self._starts, place) - 1
        manifest = self.manifests[number]
        return Source(manifest, manifest.samples[place - self._starts[number]])

    def __iter__(self) -> Iterator[Source]:
        for manifest in self.manifests:
            for sample in manifest.samples:
                yield Source(manifest, sample)

    def where(self, chosen: Iterable[bool]) -> "Sources":
        """The sources whose flag is True."""
        flags = np.fromiter(chosen, bool, len(self))
        return Sources(
            replace(manifest, samples=manifest.samples.where(flags[first:end]))
            for manifest, (first, end) in zip(self.manifests, pairwise(self._starts), strict=True)
        )


def read_sources(paths: Sequence[Path], split: Split | None = None) -> Sources:
    """The rows of a split, or all rows, in the order of the manifests.

    Raises:
        UserError: If a manifest is missing or wrong, has no such row, or shares ids with another.
    """
    sources = Sources(read_manifest(path) for path in paths)
    chosen = of_split(sources, split, ", ".join(str(path) for path in paths))
    if len(paths) > 1:
        _refuse_duplicate_ids(chosen)
    return chosen


def of_split(sources: Sources, split: Split | None, names: str) -> Sources:
    """The sources of a split, or all sources.

    Raises:
        UserError: If there are none; `names` tells which manifests were read.
    """
    if split is not None:
        sources = sources.where(source.sample.split == split for source in sources)
    if not sources:
        if split is None:
            raise UserError(f"{names}: no rows")
        raise UserError(f'no row of {names} has "split": "{split}"')
    return sources


def require_truth(sources: Sequence[Source], place: str) -> None:
    """Make sure that every image can be scored.

    Args:
        sources: The images.
        place: Option that named them, for the message.

    Raises:
        UserError: If one has neither a ground-truth mask nor the label 0.
    """
    unknown = [s.sample.id for s in sources if s.sample.label != 0 and s.sample.mask is None]
    if unknown:
        raise UserError(
            f"{len(unknown)} images of {place} can not be scored, for example {unknown[0]!r}: they "
            "have neither a ground-truth mask nor the label 0 (authentic)"
        )


def _refuse_duplicate_ids(sources: Sources) -> None:
    hashes = np.fromiter((hash(source.sample.id) for source in sources), np.int64, len(sources))
    seen: set[str] = set()
    twice: set[str] = set()
    for position in repeated(hashes).tolist():  # equal hashes, not yet equal ids
        name = sources[position].sample.id
        if name in seen:
            twice.add(name)
        seen.add(name)
    if twice:
        raise UserError(
            f"{len(twice)} ids are in more than one manifest, for example {min(twice)!r}; import "
            "them again with different --name"
        )
