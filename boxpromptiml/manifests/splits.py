"""Dividing samples: nested shares, and splits that no group of siblings straddles."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import hash_order
from boxpromptiml.records import Sample, Split


def nested_fraction(ids: Iterable[str], share: float, seed: int) -> set[str]:
    """A share of ids, rounded to a whole number; a larger share contains a smaller one.

    The choice depends on seed and ids, not on their order.

    Example:
        >>> some, more = (nested_fraction("abcdefgh", share, seed=0) for share in (0.25, 0.5))
        >>> len(some), len(more), some <= more
        (2, 4, True)
    """
    ordered = _shuffled(ids, seed)
    return set(ordered[: round(share * len(ordered))])


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """Keys in an order that depends on seed and key alone, so that one more moves no other."""
    kept = list(keys)
    return [kept[place] for place in hash_order(f"{seed}/{key}" for key in kept)]


def take_by_group(
    samples: Iterable[Sample], count: int, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Take about `count` samples, whole groups only.

    Never more than `count`. Fewer, where there are enough, by less than the size of the largest
    group: groups are drawn by `seed`, and those that no longer fit are passed over.

    Returns:
        The taken and the others, each in their order.
    """
    kept = list(samples)
    sizes = Counter(sample.group for sample in kept)
    taken: set[str] = set()
    room = count
    for group in _shuffled(sizes, seed):
        if sizes[group] <= room:
            taken.add(group)
            room -= sizes[group]
    return (
        [sample for sample in kept if sample.group in taken],
        [sample for sample in kept if sample.group not in taken],
    )


def split_by_group(
    samples: Sequence[Sample], fractions: Mapping[Split, float], seed: int
) -> list[Sample]:
    """Assign splits so that a group never straddles two of them.

    Groups are shuffled by `seed` and dealt to the split that is furthest below its share.

    Args:
        fractions: Share of the samples that each split should get; they sum to 1.

    Returns:
        The samples in their order, with `split` set.
    """
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"split fractions must sum to 1, got {dict(fractions)}")
    sizes: dict[str, int] = {}
    for sample in samples:
        sizes[sample.group] = sizes.get(sample.group, 0) + 1
    order = np.random.default_rng(seed).permutation(sorted(sizes))
    filled: dict[Split, int] = dict.fromkeys(fractions, 0)
    assigned: dict[str, Split] = {}
    for group in order:
        split = min(filled, key=lambda s: (filled[s] + 0.5) / max(fractions[s], 1e-9))
        assigned[str(group)] = split
        filled[split] += sizes[str(group)]
    return [replace(sample, split=assigned[sample.group]) for sample in samples]
