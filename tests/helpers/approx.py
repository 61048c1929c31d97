"""`pytest.approx` inside containers, for a type checker."""

from typing import Any

import pytest


def approx(expected: Any, **options: Any) -> Any:
    """`pytest.approx`, of no type: it equals what it is close to, a box as well as a tuple."""
    return pytest.approx(expected, **options)
