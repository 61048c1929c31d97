from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.synth.forge import KINDS, ForgeryStyle
from data_prep.forgery.photographs import Photo
from data_prep.forgery.plan import ForgerySettings, plan

SETTINGS = ForgerySettings(
    count=40,
    seed=0,
    name="toy",
    split="train",
    host_quality=None,
    region_quality=(40, 70),
    quality=90,
    style=ForgeryStyle(),
    max_side=None,
)


def pool(count: int, grey: int = 0) -> list[Photo]:
    """Photographs that nobody opens; the first `grey` have no colour."""
    return [
        Photo(Path(f"{n}.png"), f"{n}.png", f"{n:064x}", "PNG", (96, 144), n < grey, ())
        for n in range(count)
    ]


def test_every_photograph_is_host_in_turn_and_never_its_own_donor() -> None:
    photos = pool(7)
    specs = plan(SETTINGS, photos, authentic=5)
    assert [spec.host.key for spec in specs] == [photos[n % 7].key for n in range(40)]
    for number, spec in enumerate(specs):
        assert (spec.donor is not None) == (spec.kind == "splice")
        assert spec.donor != spec.host
        assert spec.authentic == (number < 5)
        assert spec.jpeg.host is None
        assert spec.jpeg.region is not None
        assert 40 <= spec.jpeg.region <= 70
        assert spec.jpeg.final == 90


def test_kinds_come_in_their_fractions() -> None:
    specs = plan(replace(SETTINGS, count=2000), pool(7), 0)
    drawn = Counter(spec.kind for spec in specs)
    for kind, fraction in zip(KINDS, (0.6, 0.25, 0.15), strict=True):
        assert drawn[kind] / 2000 == pytest.approx(fraction, abs=0.04)


def test_a_larger_count_leaves_the_first_forgeries_as_they_are() -> None:
    few, many = (plan(replace(SETTINGS, count=n), pool(7), 3) for n in (10, 40))
    assert many[:10] == few
    assert [spec.fingerprint for spec in many[:10]] == [spec.fingerprint for spec in few]
    assert len({spec.fingerprint for spec in many}) == 40


def test_another_seed_draws_anew() -> None:
    one, other = (plan(replace(SETTINGS, seed=seed), pool(7), 0) for seed in (0, 1))
    assert all(a.fingerprint != b.fingerprint for a, b in zip(one, other, strict=True))


def test_a_coloured_host_gets_no_grey_donor_and_a_grey_one_any() -> None:
    specs = plan(replace(SETTINGS, count=200), pool(6, grey=3), 0)
    splices = [(spec.host.grey, spec.donor.grey) for spec in specs if spec.donor]
    assert set(splices) == {(False, False), (True, True), (True, False)}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": 0}, "--count"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
        ({"name": "a/../b"}, "--name"),
        ({"quality": (90, 80)}, "--quality"),
        ({"host_quality": 101}, "--host_quality"),
    ],
)
def test_an_impossible_setting_is_named(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        replace(SETTINGS, **wrong)
