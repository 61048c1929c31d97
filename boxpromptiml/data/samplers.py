"""Samplers whose order does not depend on the number of workers, processes or restarts.

Both are DistributedSamplers because Lightning does not replace those when it runs several
processes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from boxpromptiml.data.dataset import Key


class EpochSampler(DistributedSampler[Any]):
    """Shuffled (epoch, position) keys; the order depends on seed and epoch only.

    Lightning calls `set_epoch`, also after a restart, so a resumed run goes on with the order that
    the uninterrupted run would have seen. Every process gets equally many keys; the order wraps
    around where the length does not divide.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, rank: int, world_size: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[Key]:
        length = len(self.dataset)  # type: ignore[arg-type]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(length)
        order = np.resize(order, self.total_size)
        for position in order[self.rank :: self.num_replicas]:
            yield Key(self.epoch, int(position))


class ShardSampler(DistributedSampler[Any]):
    """Every index exactly once over all processes.

    PyTorch's own sampler repeats indices so that all processes get equally many; repeated images
    would count twice in the metrics.
    """

    def __init__(self, dataset: Dataset[Any], rank: int, world_size: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)

    def _indices(self) -> range:
        length = len(self.dataset)  # type: ignore[arg-type]
        return range(self.rank, length, self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices())

    def __len__(self) -> int:
        return len(self._indices())
