import inspect
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.synth.variety import DEFAULT_VARIETY, Variety, drawn


def test_every_field_is_explained() -> None:
    text = inspect.getdoc(Variety) or ""
    assert [field.name for field in fields(Variety) if f"\n    {field.name}: " not in text] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kinds", (0.5, 0.5, 0.5)),
        ("regions", (1.5, -0.5, 0.0)),
        ("unaltered", 1.5),
        ("alike", -1),
        ("scale", (2.0, 0.5, 1.0)),
        ("scale", (0.5, 1.5, 1.0)),
        ("rotation", (0.5, 0.0, 200.0)),
        ("feather", (0.5, 0.0, 3.0)),
        ("quality", (90, 60)),
        ("quality", (0, 60)),
        ("host_quality", (60, 101)),
        ("area", (0.0, 0.5)),
        ("sides", (1100, 256)),
    ],
)
def test_an_impossible_value_is_named(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"varied.{field} must"):
        replace(DEFAULT_VARIETY, **{field: value})


def test_a_chance_comes_as_often_and_as_strong_as_it_says() -> None:
    rng = np.random.default_rng(0)
    values = [drawn((0.3, 2.0, 5.0), rng) for _ in range(4000)]
    strengths = [value for value in values if value is not None]
    assert len(strengths) / len(values) == pytest.approx(0.3, abs=0.03)
    assert min(strengths) == pytest.approx(2, abs=0.1)
    assert max(strengths) == pytest.approx(5, abs=0.1)
    assert drawn((0, 1, 2), rng) is None
