"""What depends on the training step: random numbers and the learning rate's factor."""

import math
import random

import numpy as np
import torch


def seed_generators(*words: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators, GPUs included, from numbers of any size."""
    parts = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(parts[0]))
    np.random.seed(parts[1])  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(int(parts[2]))


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from 0 to 1 over the first `warmup` share, cosine to 0.

    Example:
        >>> [round(warmup_cosine(s, 100, 0.1), 3) for s in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1) if rising < 1 else min((step + 1) / rising, 1.0)
    done = (step - rising) / max(steps - rising, 1)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
