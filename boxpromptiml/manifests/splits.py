"""Divide samples: nested fractions, and parts that never split a group of siblings."""

from collections import Counter
from collections.abc import Iterable

from boxpromptiml.io.files import hash_order
from boxpromptiml.records import Sample


def nested_fraction(ids: Iterable[str], fraction: float, seed: int) -> set[str]:
    """A fraction of ids, rounded to a whole number; a larger fraction contains a smaller one.

    The choice depends on seed and ids, not on their order.

    Example:
        >>> some, more = (nested_fraction("abcdefgh", part, seed=0) for part in (0.25, 0.5))
        >>> len(some), len(more), some <= more
        (2, 4, True)
    """
    ordered = _shuffled(ids, seed)
    return set(ordered[: round(fraction * len(ordered))])


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """Keys in an order that depends on seed and key alone, so that a new key moves no other."""
    kept = list(keys)
    return [kept[place] for place in hash_order(f"{seed}/{key}" for key in kept)]


def take_by_group(
    samples: Iterable[Sample], count: int, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Take about `count` samples, whole groups only.

    The result has at most `count` samples and, if there are enough, falls short by less than the
    size of the largest group: groups are drawn by `seed`, and those that no longer fit are skipped.

    Returns:
        The taken samples and the others, each in their order.
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
