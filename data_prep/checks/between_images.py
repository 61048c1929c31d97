"""Checks between images: the same file, picture or group of siblings twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple, get_args

from boxpromptiml.records import Sample, Split
from data_prep.checks.findings import Finding
from data_prep.checks.near_duplicates import PictureHash, near_duplicates
from data_prep.checks.one_image import Inspection


class Inspected(NamedTuple):
    """A row of a manifest, and what was found in its files."""

    sample: Sample
    inspection: Inspection


class Twins(NamedTuple):
    """Two images of different splits or datasets that show nearly the same picture.

    Attributes:
        first: The image of the split that comes first in the order train, val, test.
        second: The other image.
        distance: Number of bits, of 64, in which the closer pair of hashes differs.
        correlation: Correlation of the thumbnails, at most 1.
    """

    first: Inspected
    second: Inspected
    distance: int
    correlation: float

    def finding(self) -> Finding:
        """The finding for these twins, listed under the second image."""
        message = (
            f"({self.second.sample.split}) shows nearly what {self.first.inspection.path} "
            f"({self.first.sample.split}) shows: distance {self.distance} of 64, "
            f"correlation {self.correlation:.2f}"
        )
        across = self.first.sample.split != self.second.sample.split
        reason = "near_duplicate" if across else "near_duplicate_across_datasets"
        return Finding("warning", self.second.inspection.path, reason, message)


def duplicates(inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """Images whose files have the same bytes as an earlier one."""
    first: dict[str, Inspected] = {}
    for one in inspected:
        if one.inspection.sha256 is None:
            continue
        other = first.setdefault(one.inspection.sha256, one)
        if other is one:
            continue
        across = other.sample.split != one.sample.split
        where = f" ({other.sample.split}, this is {one.sample.split})" if across else ""
        label = "" if other.sample.label == one.sample.label else ", with another label"
        message = f"is the same file as {other.inspection.path}{where}{label}"
        reason = "duplicate_across_splits" if across else "duplicate"
        yield Finding("warning", one.inspection.path, reason, message)


def shared_groups(inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """One finding for every group of siblings that is in several splits, across datasets too."""
    splits: defaultdict[str, dict[str, Inspected]] = defaultdict(dict)
    for one in inspected:
        splits[one.sample.group].setdefault(one.sample.split, one)
    for group, members in splits.items():
        if len(members) > 1:
            first, *others = members.values()
            names = ", ".join(f"{other.inspection.path} ({other.sample.split})" for other in others)
            message = f"is in {first.sample.split}; of its group {group!r} are also {names}"
            yield Finding("warning", first.inspection.path, "group_across_splits", message)


def made_across_splits(inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """Synthetic images that are made from an image of another split."""
    splits = {one.sample.id: one.sample.split for one in inspected}
    for one in inspected:
        for name in one.sample.made_from or ():
            if splits.get(name, one.sample.split) != one.sample.split:
                message = f"is in {one.sample.split}; it is made from {name}, of {splits[name]}"
                yield Finding("warning", one.inspection.path, "made_from_another_split", message)


def twins(inspected: Sequence[Inspected]) -> list[Twins]:
    """Near-duplicates across splits, and across datasets within a split, the most alike first.

    Equal files are left to `duplicates`. Within a split, images of one group, or of which one is
    made from the other, are siblings that stay together.
    """
    parts: defaultdict[tuple[Split, str], list[Inspected]] = defaultdict(list)
    for one in sorted(inspected, key=lambda one: get_args(Split).index(one.sample.split)):
        if one.inspection.picture_hash is not None:
            parts[one.sample.split, one.sample.dataset].append(one)
    found = [
        Twins(ours[pair.first], theirs[pair.second], pair.distance, pair.correlation)
        for ours, theirs in combinations(parts.values(), 2)
        for pair in near_duplicates(_picture_hashes(ours), _picture_hashes(theirs))
        if not _are_siblings(ours[pair.first], theirs[pair.second])
    ]
    return sorted(found, key=lambda two: -two.correlation)


def _are_siblings(one: Inspected, other: Inspected) -> bool:
    """Whether two images are the same file, or known to belong together in their common split."""
    if one.inspection.sha256 == other.inspection.sha256:
        return True
    ours, theirs = ({s.id, *(s.made_from or ())} for s in (one.sample, other.sample))
    together = one.sample.group == other.sample.group or bool(ours & theirs)
    return together and one.sample.split == other.sample.split


def _picture_hashes(inspected: Sequence[Inspected]) -> list[PictureHash]:
    return [
        one.inspection.picture_hash for one in inspected if one.inspection.picture_hash is not None
    ]
