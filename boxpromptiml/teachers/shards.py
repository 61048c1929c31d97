"""Parts of one pseudo-mask job that run at once: job arrays, several devices, several nodes.

A part makes masks and nothing else; the files about all images are written by a run of the whole
job afterwards, which finds the masks. So parts need to know nothing of each other.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import hash_order
from boxpromptiml.records import Sample


@dataclass(frozen=True)
class Shard:
    """Part `index`, from 0, of `count`.

    Raises:
        UserError: If there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UserError(
                f"shard must be 0 to num_shards - 1, got shard {self.index} of {self.count}"
            )

    def choose(self, samples: Sequence[Sample]) -> npt.NDArray[np.intp]:
        """Positions of the samples with boxes that belong to this part.

        Every such sample is in exactly one part, and parts differ by at most one sample. Neither
        the order of the manifest nor images without boxes matter: samples are dealt out in the
        order of a hash of their ids, which also mixes datasets of small and large images.
        """
        prompted = np.flatnonzero([bool(s.boxes) and s.label != 0 for s in samples])
        order = hash_order(samples[place].id for place in prompted.tolist())
        return prompted[order[self.index :: self.count]]


@contextmanager
def claim(out: Path, shard: Shard | None) -> Iterator[None]:
    """Keep other jobs out of a folder while the caller writes there.

    The whole job keeps out every other job; a shard keeps out the whole job and the same shard. The
    operating system drops the claim with the process, however that ends.

    Raises:
        UserError: If another job is in the way, or the file system knows no locks.
    """
    if shard is None:
        with _locked(out / ".lock", shared=False):
            yield
    else:
        own = out / f".lock-{shard.index}-of-{shard.count}"
        with _locked(out / ".lock", shared=True), _locked(own, shared=False):
            yield


@contextmanager
def _locked(path: Path, shared: bool) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # never waits for a pipe
    with os.fdopen(handle, "rb") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path.parent}: another pseudo-mask job is writing there") from error
        except OSError as error:
            raise UserError(
                f"{path}: this file system gives no locks ({error}); write to another one, or "
                "mount it with flock"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)  # workers hold the file open a little longer
