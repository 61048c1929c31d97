"""What is wrong between images: the same file, the same picture or the same scene twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from boxpromptiml.records import Sample
from data_prep.checks.findings import Finding
from data_prep.checks.near_duplicates import Fingerprint, near_duplicates
from data_prep.checks.one_image import Look


class Looked(NamedTuple):
    """An image of a manifest, and what a look at it gave."""

    sample: Sample
    look: Look


class Twins(NamedTuple):
    """Two images of different splits that show nearly the same picture.

    Attributes:
        first: Of the split that comes first in train, val, test.
        second: Of the other.
        distance: Bits of 64 in which the nearer hashes differ.
        correlation: Of the thumbnails, at most 1.
    """

    first: Looked
    second: Looked
    distance: int
    correlation: float

    def finding(self) -> Finding:
        """How the twins are listed: under the second image."""
        message = (
            f"({self.second.sample.split}) shows nearly what {self.first.look.path} "
            f"({self.first.sample.split}) shows: distance {self.distance} of 64, "
            f"correlation {self.correlation:.2f}"
        )
        return Finding("warning", self.second.look.path, "near_duplicate", message)


def duplicates(looked: Sequence[Looked]) -> Iterator[Finding]:
    """Images whose files have the same bytes as an earlier one."""
    first: dict[str, Looked] = {}
    for one in looked:
        if one.look.sha256 is None:
            continue
        other = first.setdefault(one.look.sha256, one)
        if other is one:
            continue
        across = other.sample.split != one.sample.split
        where = f" ({other.sample.split}, this is {one.sample.split})" if across else ""
        label = "" if other.sample.label == one.sample.label else ", with another label"
        message = f"is the same file as {other.look.path}{where}{label}"
        reason = "duplicate_across_splits" if across else "duplicate"
        yield Finding("warning", one.look.path, reason, message)


def shared_groups(looked: Sequence[Looked]) -> Iterator[Finding]:
    """One finding for every group of siblings that is in several splits, across data sets too."""
    splits: defaultdict[str, dict[str, Looked]] = defaultdict(dict)
    for one in looked:
        splits[one.sample.group].setdefault(one.sample.split, one)
    for group, members in splits.items():
        if len(members) > 1:
            first, *others = members.values()
            names = ", ".join(f"{other.look.path} ({other.sample.split})" for other in others)
            message = f"is in {first.sample.split}; of its group {group!r} are also {names}"
            yield Finding("warning", first.look.path, "group_across_splits", message)


def twins(looked: Sequence[Looked]) -> list[Twins]:
    """Near-duplicates across splits, the most alike first; equal files are left to `duplicates`."""
    by_split: dict[str, list[Looked]] = {"train": [], "val": [], "test": []}
    for one in looked:
        if one.look.fingerprint is not None:
            by_split[one.sample.split].append(one)
    found = [
        Twins(ours[pair.first], theirs[pair.second], pair.distance, pair.correlation)
        for ours, theirs in combinations(by_split.values(), 2)
        for pair in near_duplicates(_fingerprints(ours), _fingerprints(theirs))
        if ours[pair.first].look.sha256 != theirs[pair.second].look.sha256
    ]
    return sorted(found, key=lambda two: -two.correlation)


def _fingerprints(looked: Sequence[Looked]) -> list[Fingerprint]:
    return [one.look.fingerprint for one in looked if one.look.fingerprint is not None]
