"""Order of the images, which does not depend on the number of workers, processes or restarts.

Both samplers are DistributedSamplers because Lightning does not replace those when it runs several
processes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from boxpromptiml.data.dataset import Key


class EpochSampler(DistributedSampler[Any]):
    """Shuffled (epoch, position) keys; the order depends on seed and epoch only.

    Lightning calls `set_epoch`, also after a restart, so a resumed run goes on with the order that
    the uninterrupted run would have seen. Every process gets equally many keys; the order wraps
    around where the length does not divide.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, rank: int, world_size: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.skipped = 0  # keys of this process at the start of the epoch that are left out

    def __iter__(self) -> Iterator[Key]:
        length = len(self.dataset)  # type: ignore[arg-type]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(length)
        order = np.resize(order, self.total_size)
        for position in order[self.rank :: self.num_replicas][self.skipped :]:
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


class EpochLoader(DataLoader[Any]):
    """Loader of an `EpochSampler` that starts when the first batch is asked for.

    PyTorch's workers begin to load as soon as the loader is iterated. Lightning does that before it
    tells the sampler the epoch of a resumed run, which would then load images of epoch 0.

    Its arguments are those of `DataLoader`: Lightning makes a copy for `overfit_batches`.

    Attributes:
        batches_done: Number of batches of the current epoch that a resumed run has already trained
            on; they are not loaded again.
    """

    batches_done: Callable[[], int] = staticmethod(lambda: 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override] # any iterator will do
        """Batches of the sampler's epoch; a generator, so nothing is done before the first one."""
        if isinstance(self.sampler, EpochSampler):  # Lightning's overfit_batches replaces it
            self.sampler.skipped = self.batches_done() * (self.batch_size or 1)
        yield from super().__iter__()
