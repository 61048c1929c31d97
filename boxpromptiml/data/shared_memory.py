"""Loader processes pass batches through /dev/shm, which containers keep small."""

import shutil
from pathlib import Path

from boxpromptiml.errors import UserError

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
_PREFETCHED = 2  # batches of a worker, PyTorch's default


def require_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Check that the batches of all loader processes fit into shared memory.

    Without room PyTorch hangs, or its processes die of a bus error.

    Args:
        batch_bytes: Size of the largest batch.
        num_workers: Number of loader processes.

    Raises:
        UserError: If they do not fit.
    """
    if not num_workers or not _SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    needed = batch_bytes * (_PREFETCHED * num_workers + 1)
    if needed > free:
        fitting = max(free // batch_bytes - 1, 0) // _PREFETCHED
        raise UserError(
            f"{_SHARED_MEMORY} has {free / 1e6:.1f} MB free, but {num_workers} loader processes "
            f"need up to {needed / 1e6:.1f} MB: give the container more (docker run --shm-size=1g) "
            f"or set --data.num_workers={fitting}"
        )
