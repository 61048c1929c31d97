"""Checks between images: the same file, picture or group of siblings twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from boxpromptiml.records import Sample
from data_prep.checks.findings import Finding
from data_prep.checks.near_duplicates import PictureHash, near_duplicates
from data_prep.checks.one_image import Inspection


class Inspected(NamedTuple):
    """An image of a manifest and its inspection."""

    sample: Sample
    inspection: Inspection


class Twins(NamedTuple):
    """Two images of different splits that show nearly the same picture.

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
        return Finding("warning", self.second.inspection.path, "near_duplicate", message)


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


def twins(inspected: Sequence[Inspected]) -> list[Twins]:
    """Near-duplicates across splits, the most alike first; equal files are left to `duplicates`."""
    by_split: dict[str, list[Inspected]] = {"train": [], "val": [], "test": []}
    for one in inspected:
        if one.inspection.picture_hash is not None:
            by_split[one.sample.split].append(one)
    found = [
        Twins(ours[pair.first], theirs[pair.second], pair.distance, pair.correlation)
        for ours, theirs in combinations(by_split.values(), 2)
        for pair in near_duplicates(_picture_hashes(ours), _picture_hashes(theirs))
        if ours[pair.first].inspection.sha256 != theirs[pair.second].inspection.sha256
    ]
    return sorted(found, key=lambda two: -two.correlation)


def _picture_hashes(inspected: Sequence[Inspected]) -> list[PictureHash]:
    return [
        one.inspection.picture_hash for one in inspected if one.inspection.picture_hash is not None
    ]
