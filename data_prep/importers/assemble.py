"""From the layout of a source to a manifest's samples and notes."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Sample
from data_prep.importers import Imported, NothingImported
from data_prep.importers.checking import Checked, ImportOptions, Placed, check, place
from data_prep.importers.layout import DatasetLayout, RawItem, Tree
from data_prep.importers.raw import RawData

_THREADS = min(4, os.cpu_count() or 1)
_BATCH = 512  # items in flight, so that memory does not grow with the dataset
_SHOWN = 5  # names in a message
_MAX_COVERED = 0.5  # forgeries are small; masks that cover more on average are likely inverted
_LARGE_GROUP = 0.2  # a split cannot be finer than its largest group


def assemble(dataset: DatasetLayout, source: RawData, options: ImportOptions) -> Imported:
    """Turn the files of a dataset into samples, and say what was left out or corrected.

    Args:
        dataset: Where its files lie and what is known about them.
        source: The folder or archive.
        options: What the user decided.

    Returns:
        The samples, the rejected files, and the notes for the manifest's header.

    Raises:
        NothingImported: If nothing in the source looks like the dataset, or all of it is rejected.
    """
    tree = Tree(source)
    items = _unique(dataset.find(tree), tree)
    archives = ", ".join(tree.archives()[:_SHOWN])
    where = source.shown("").rstrip("/")
    if not items:
        hint = f"; unpack {archives} first" if archives else ""
        message = f"{where}: nothing of {dataset.name} ({dataset.layout}){hint}"
        raise NothingImported(message, tree.rejected)
    tree.reject_unclaimed(dataset.layout, dataset.ignored)
    samples: list[Sample] = []
    names: dict[str, str] = {}
    covered: list[float] = []
    excused: Counter[str] = Counter()
    all_checked = _check_all(dataset, source, options, items)
    for item, checked in zip(items, all_checked, strict=True):
        if isinstance(checked, RejectedInput):
            tree.rejected.append(checked)
            if item.key in dataset.known and checked.reason == "size_mismatch":
                excused.update(filter(None, (_label(item.label), item.kind)))
            continue
        samples.append(checked.sample)
        names[checked.sample.id] = item.image
        if checked.covered is not None:
            covered.append(checked.covered)
    if not samples:
        raise NothingImported(f"{where}: no image can be used", tree.rejected)
    counts = _counts(samples)
    warnings = [
        *tree.warnings,
        *_unexpected(counts, dataset.expected, excused),
        *_suspicious(samples, covered),
        *([f"archives in the source are not opened: {archives}"] if archives else []),
    ]
    given = options.mask_threshold
    notes: dict[str, Any] = {
        "masks": dataset.polarity if given is None else f"above {given}, as the user said",
        "verified": options.verify,
        "counts": counts,
        "warnings": warnings,
        "corrections": tree.corrections,
    }
    return Imported(samples, tree.rejected, notes, names)


def _unique(items: Iterable[RawItem], tree: Tree) -> list[RawItem]:
    """Items in the order of their keys; of two with one key the later is rejected."""
    kept: dict[str, RawItem] = {}
    for item in items:
        if item.key in kept:
            tree.reject(item.image, "duplicate", f"has the same id as {kept[item.key].image}")
        else:
            kept[item.key] = item
    return [kept[key] for key in sorted(kept)]


def _check_all(
    dataset: DatasetLayout, source: RawData, options: ImportOptions, items: Sequence[RawItem]
) -> Iterator[Checked | RejectedInput]:
    """Check every item, in order. Hashing and decoding run outside Python's lock, in threads."""

    def run(placed: Placed | RejectedInput) -> Checked | RejectedInput:
        if isinstance(placed, RejectedInput):
            return placed
        try:
            return check(dataset, source, options, placed)
        except RejectedInput as error:
            return error

    def put(item: RawItem) -> Placed | RejectedInput:
        try:
            return place(source, item)
        except RejectedInput as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(items), _BATCH):
            yield from pool.map(run, [put(item) for item in items[start : start + _BATCH]])


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    labels = Counter(_label(sample.label) for sample in samples)
    kinds = Counter(sample.kind for sample in samples if sample.kind)
    return dict(sorted((labels + kinds).items()))


def _label(label: int | None) -> str:
    return "unknown" if label is None else ("authentic", "manipulated")[label]


def _unexpected(
    counts: Mapping[str, int], expected: Mapping[str, int], excused: Mapping[str, int]
) -> list[str]:
    """A sentence for every count that differs from the published one, known errors aside."""
    return [
        f"{counts.get(what, 0)} {what} images, {number - excused.get(what, 0)} expected"
        for what, number in expected.items()
        if counts.get(what, 0) != number - excused.get(what, 0)
    ]


def _suspicious(samples: Sequence[Sample], covered: Sequence[float]) -> list[str]:
    """Warnings about the dataset as a whole, though every single image passed."""
    found = []
    if covered and (mean := sum(covered) / len(covered)) > _MAX_COVERED:
        found.append(f"masks cover {mean:.0%} of their images on average: are they inverted?")
    if samples:
        group, size = Counter(sample.group for sample in samples).most_common(1)[0]
        if size > max(_LARGE_GROUP * len(samples), 20):
            found.append(f"group {group} holds {size} of {len(samples)} images: shared sources")
    return found
