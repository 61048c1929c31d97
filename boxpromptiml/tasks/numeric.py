"""Numbers of a training: divergence, seeds and the learning rate."""

import math
import random

import numpy as np
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.metrics.pixel import LocalizationMetrics

REMEDY = "Lower --model.lr or set --trainer.gradient_clip_val=1. Checkpoints are untouched"


class DivergedError(UserError):
    """The loss or the weights have become NaN or infinite."""


def all_scores(metrics: LocalizationMetrics) -> dict[str, torch.Tensor]:
    """Scores of the images added so far, with the best F1 of any threshold if there is one."""
    scores = metrics.compute()
    thresholds, curve = metrics.f1_curve()
    if not curve.isnan().all():
        best = int(curve.argmax())
        scores |= {"best_f1": curve[best], "best_f1_threshold": thresholds[best]}
    return scores


def finite_weights(module: torch.nn.Module) -> bool:
    """Whether all weights and running statistics are finite."""
    values = (v for v in module.state_dict().values() if v.is_floating_point())
    return all(bool(torch.isfinite(v).all()) for v in values)


def seed_generators(*words: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (GPUs included).

    Args:
        words: Non-negative integers of any size; together they determine the three seeds.
    """
    parts = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(parts[0]))
    np.random.seed(parts[1])  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(int(parts[2]))


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Learning-rate factor in [0, 1]: a linear rise from 0 to 1, then a cosine decay to 0.

    Args:
        step: Current optimiser step, from 0.
        steps: Number of steps of the whole run.
        warmup: Fraction of the steps over which the factor rises.

    Example:
        >>> [round(warmup_cosine(s, 100, 0.1), 3) for s in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1) if rising < 1 else min((step + 1) / rising, 1.0)
    done = (step - rising) / max(steps - rising, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
