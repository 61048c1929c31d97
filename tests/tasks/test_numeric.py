"""Seeds and finite weights."""

import random

import numpy as np
import pytest
import torch

from boxpromptiml.tasks.numeric import finite_weights, seed_generators


def _draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))  # noqa: NPY002, S311


def test_the_same_words_give_the_same_draws_and_others_do_not() -> None:
    seen: set[float] = set()
    for words in ((7, 0, 0, 0), (7, 0, 1, 0), (7, 1, 0, 0), (8, 0, 0, 0), (2**70, 0, 0, 0)):
        seed_generators(*words)
        first = _draws()
        seed_generators(*words)
        assert _draws() == first
        seen.update(first)
    assert len(seen) == 15


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_running_statistics_count_as_weights(value: float) -> None:
    module = torch.nn.BatchNorm1d(2)
    assert finite_weights(module)
    assert module.running_var is not None
    module.running_var[0] = value
    assert not finite_weights(module)
