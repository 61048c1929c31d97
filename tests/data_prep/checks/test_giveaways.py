from typing import Any

import numpy as np
import pytest

from data_prep.checks.giveaways import binned, is_leak, separation


def _groups(count: int) -> list[str]:
    return [f"g{n}" for n in range(count)]


def test_a_property_of_one_class_separates() -> None:
    labels = np.arange(200) % 2 == 0
    values = np.where(labels, "JPEG", "PNG").tolist()
    assert separation(values, labels, _groups(200)) == 1
    mixed = ["JPEG" if n % 10 == 1 else value for n, value in enumerate(values)]
    assert separation(mixed, labels, _groups(200)) == pytest.approx(0.9, abs=0.02)


def test_no_order_is_assumed() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(400) < 0.5
    values = np.where(labels, rng.choice([75, 95], 400), 85).tolist()
    assert separation(values, labels, _groups(400)) == 1


@pytest.mark.parametrize("values", [2, 30, 1000])
def test_a_property_that_says_nothing_is_chance(values: int) -> None:
    rng = np.random.default_rng(values)
    areas = []
    for _ in range(40):
        labels = rng.random(400) < 0.4
        area = separation(rng.integers(0, values, 400).tolist(), labels, _groups(400))
        assert area is not None
        areas.append(area)
        assert not is_leak(area, labels.sum(), (~labels).sum())
    assert np.mean(areas) == pytest.approx(0.5, abs=0.02)


def test_siblings_do_not_tell_on_each_other() -> None:
    """A value that only the images of one group share is no leak, for a network never sees it."""
    labels = np.arange(400) % 4 < 2
    values = [n // 2 for n in range(400)]  # pairs of one label, each with a value of its own
    assert separation(values, labels, [f"g{value}" for value in values]) == pytest.approx(0.5)
    alone = [f"g{n}" for n in range(400)]
    area = separation(values, labels, alone)
    assert area is not None
    assert area > 0.6  # what it would be if siblings were ignored


def test_too_few_images_say_nothing() -> None:
    labels = np.array([True] * 9 + [False] * 50)
    assert separation(["a"] * 59, labels, _groups(59)) is None


def test_chance_needs_more_than_a_few_images() -> None:
    assert not is_leak(0.65, 12, 12)
    assert is_leak(0.65, 200, 200)
    assert not is_leak(0.55, 20000, 20000)  # sure, but small


def test_bins() -> None:
    assert binned([]) == []
    assert binned([3.0] * 5) == [1] * 5
    found: list[Any] = [*binned(list(range(1000)))]
    assert len(set(found)) == 20
    assert found == sorted(found)
