"""Descriptions of public datasets: which file is what, by a few patterns.

An importer is a `DatasetLayout` whose `find` looks at the names in a `Tree` and yields one
`RawItem` per image. Names are joined by key, never by position. An image that no pattern matches is
rejected, so that nothing is lost silently.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.manifests.manifest import join_by_key
from boxpromptiml.records import MaskArray, Split
from data_prep.importers.raw import IMAGE, RawData

_IMAGE_NAME = re.compile(f".*{IMAGE}", re.IGNORECASE | re.DOTALL)
_ARCHIVE_NAME = re.compile(r".*\.(?:zip|rar|7z|tar|tgz|gz|bz2)", re.IGNORECASE | re.DOTALL)


class RawItem(NamedTuple):
    """One image found by a layout, before any of its bytes are read.

    Attributes:
        key: Unique within the dataset; what follows the dataset's name in a sample's id.
        image: Name of the image in the source.
        label: 0 authentic, 1 manipulated; None if it is unknown, or up to the mask: an image is
            manipulated if its mask marks a pixel.
        mask: Name of the mask in the source.
        kind: `splice`, `copymove`, `removal`, where known.
        group: Source image that siblings share; the item alone when None.
        split: What the dataset itself says.
        mask_threshold: Overrides the dataset's threshold, where layouts differ.
        more_masks: Names of further masks, of other regions of the image; all are united.
    """

    key: str
    image: str
    label: int | None
    mask: str | None = None
    kind: str | None = None
    group: str | None = None
    split: Split | None = None
    mask_threshold: int | None = None
    more_masks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """Facts about a public dataset, independent of any copy of it.

    Attributes:
        name: Default name in the manifest, and in `--dataset`.
        layout: Where the files lie, for error messages and help.
        polarity: What the masks' values mean, for the header's notes.
        find: Yields the items of a tree.
        expected: Number of images by `manipulated`, `authentic` or kind, as published.
        mask_threshold: A mask value above this is manipulated; None for lossless 0 | 255.
        convert: Reads a file that no threshold describes, such as polygons in JSON, as a boolean
            mask of the size of its image; it is then written as PNG. Raises RejectedInput for a
            file that it cannot use.
        unites: Whether an image may have several masks; their union is then written anew.
        ignored: Pattern of images that belong to the archive, not to the dataset.
        known: What is known to be wrong with single items, by key; said where their sizes differ.
    """

    name: str
    layout: str
    polarity: str
    find: "Callable[[Tree], Iterable[RawItem]]"
    expected: Mapping[str, int] = field(default_factory=dict)
    mask_threshold: int | None = None
    convert: Callable[[Path], MaskArray] | None = None
    unites: bool = False
    ignored: str | None = None
    known: Mapping[str, str] = field(default_factory=dict)


class Tree:
    """The names in a source, and their use by an importer.

    Attributes:
        source: Folder or archive.
        names: Names in the source, sorted, with forward slashes.
        rejected: Unusable items.
        corrections: Known errors of a dataset that were corrected, for the header's notes.
        warnings: What the user should look at, for the header's notes.
    """

    def __init__(self, source: RawData) -> None:
        self.source = source
        self.names: Sequence[str] = source.names
        self.rejected: list[RejectedInput] = list(source.rejected)
        self.corrections: list[str] = []
        self.warnings: list[str] = []
        self._claimed: set[str] = set()
        self._folded: dict[str, list[str]] = {}

    def by_key(self, pattern: str) -> dict[str, str]:
        """Names that end in `pattern`, by its groups joined with `/`; each key once.

        The pattern starts at a folder or file name, at any depth, and ignores case. Of two names
        with one key the later is rejected.
        """
        compiled = re.compile(f"(?:.*?/)??{pattern}", re.IGNORECASE | re.DOTALL)
        found: dict[str, str] = {}
        for name in self.names:
            match = compiled.fullmatch(name)
            if match is None:
                continue
            self._claimed.add(name)
            key = "/".join(group for group in match.groups() if group is not None)
            if key in found:
                self.reject(name, "duplicate", f"stands for the same as {found[key]}")
            else:
                found[key] = name
        return found

    def pair(
        self,
        images: Mapping[str, str],
        masks: Mapping[str, str],
        mask_key: Callable[[str], str] = lambda key: key,
    ) -> Iterator[tuple[str, str, str]]:
        """Yield key, image and mask of every image with a mask; reject leftovers of both.

        Args:
            images: Name of every image by its key.
            masks: Name of every mask by its key.
            mask_key: Turns an image's key into its mask's; several images may share a mask.
        """
        wanted = {key: mask_key(key) for key in images}
        present = {key: masks[other] for key, other in wanted.items() if other in masks}
        pairs, without_mask, _ = join_by_key(images, present)
        for key in without_mask:
            self.reject(images[key], "no_mask", f"no mask is named {wanted[key]!r}")
        for key in sorted(masks.keys() - set(wanted.values())):
            self.reject(masks[key], "no_image", "no image belongs to this mask")
        for key, (image, mask) in pairs.items():
            yield key, image, mask

    def look_up(self, name: str) -> str | None:
        """The name in the source that a list means, exactly or ignoring case; else None."""
        if not self._folded:
            for present in self.names:
                self._folded.setdefault(present.casefold(), []).append(present)
        same = self._folded.get(name.casefold(), [])
        found = name if name in same else same[0] if len(same) == 1 else None
        if found is not None:
            self._claimed.add(found)
        return found

    def reject(self, name: str, reason: str, message: str) -> None:
        """Reject a name of the source: errors.jsonl gets the reason code and the message."""
        self.rejected.append(RejectedInput(self.source.shown(name), reason, message))

    def correct(self, text: str) -> None:
        """Record that a known error was corrected."""
        self.corrections.append(text)

    def reject_unclaimed(self, layout: str, ignored: str | None) -> None:
        """Reject every image that no pattern has matched, except those matching `ignored`."""
        excused = re.compile(f"(?:.*?/)??{ignored or '(?!)'}", re.IGNORECASE | re.DOTALL)
        for name in self.names:
            left = name not in self._claimed and not excused.fullmatch(name)
            if left and _IMAGE_NAME.fullmatch(name):
                self.reject(name, "unmatched", f"matches none of: {layout}")

    def archives(self) -> list[str]:
        """Those of `names` that are archives; they are not opened."""
        return [name for name in self.names if _ARCHIVE_NAME.fullmatch(name)]


def connected(chains: Iterable[Sequence[str]]) -> dict[str, str]:
    """Name of the component of every node, given chains of nodes that belong together.

    Example:
        >>> connected([["a", "b"], ["c"], ["d", "b"]])
        {'a': 'a', 'b': 'a', 'c': 'c', 'd': 'a'}
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for chain in chains:
        roots = sorted({root(node) for node in chain})
        for other in roots[1:]:
            parent[other] = roots[0]
    return {node: root(node) for node in parent}
