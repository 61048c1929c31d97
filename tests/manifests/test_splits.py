"""Nested fractions, and parts that keep siblings together."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.manifests.splits import nested_fraction, take_by_group
from boxpromptiml.records import Sample

SAMPLE = Sample("a", "d", "train", "g", "x/y.jpg", (5, 6), 1, None)


@given(st.sets(st.text(max_size=4), max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_fraction_contains_a_smaller_one(
    ids: set[str], fraction: float, other: float
) -> None:
    small, large = sorted((fraction, other))
    some, more = nested_fraction(ids, small, 3), nested_fraction(ids, large, 3)
    assert some <= more <= ids
    assert len(some) == round(small * len(ids))
    assert nested_fraction(sorted(ids, reverse=True), small, 3) == some


def test_the_seed_chooses() -> None:
    ids = [str(number) for number in range(40)]
    assert nested_fraction(ids, 0.5, 0) != nested_fraction(ids, 0.5, 1)


@given(st.lists(st.integers(0, 12), max_size=60), st.integers(0, 70), st.integers(0, 5))
def test_groups_are_taken_whole_and_the_count_is_met_but_for_one_group(
    groups: list[int], count: int, seed: int
) -> None:
    samples = [replace(SAMPLE, id=str(i), group=str(g)) for i, g in enumerate(groups)]
    taken, others = take_by_group(samples, count, seed)
    assert not {s.group for s in taken} & {s.group for s in others}
    assert sorted([*taken, *others], key=lambda s: int(s.id)) == samples
    assert [taken, others] == [sorted(part, key=lambda s: int(s.id)) for part in (taken, others)]
    short = min(count, len(samples)) - len(taken)
    assert 0 <= short < max([groups.count(g) for g in groups], default=1)
    assert (taken, others) == take_by_group(samples, count, seed)


def test_single_images_are_taken_to_the_exact_count() -> None:
    samples = [replace(SAMPLE, id=str(i), group=str(i)) for i in range(40)]
    chosen = [{s.id for s in take_by_group(samples, 13, seed)[0]} for seed in (0, 1)]
    assert [len(ids) for ids in chosen] == [13, 13]
    assert chosen[0] != chosen[1]
    reversed_order = {s.id for s in take_by_group(samples[::-1], 13, 0)[0]}
    assert reversed_order == chosen[0]
