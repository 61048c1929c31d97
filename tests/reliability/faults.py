"""Faults that a process causes to itself in the middle of a write. Nothing of it is in the product.

`boxpromptiml.io.files.atomic_writer` is replaced in a child process: the write with a given
number dies or fails at a given point.
"""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from boxpromptiml.io import files

Point = Literal["open", "half", "moving", "moved", "full", "read_only"]
DEADLY: tuple[Point, ...] = ("open", "half", "moving", "moved")  # the first three lie inside


@dataclass(frozen=True, slots=True)
class AtWrite:
    """What happens to the write with a number, counted from 0 in each process.

    Attributes:
        number: Of the write.
        point: open: killed before the first byte; half: behind half of the bytes; moving: before
            the file gets its name; moved: right after; full, read_only: the disk refuses.
    """

    number: int
    point: Point

    def __call__(self) -> None:
        """Arm the fault in this process and those forked from it."""
        real, count = files.atomic_writer, 0

        @contextmanager
        def failing(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
            nonlocal count
            mine, count = count == self.number, count + 1
            if mine and self.point == "read_only":
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            with real(path, durable) as stream:
                yield cast(IO[bytes], _Half(stream, self.point)) if mine else stream
                if mine and self.point == "moving":
                    _die()
            if mine and self.point == "moved":
                _die()

        files.atomic_writer = failing


class _Half:
    """A stream that does not survive its first write."""

    def __init__(self, stream: IO[bytes], point: Point) -> None:
        self._stream, self._point = stream, point

    def write(self, data: bytes) -> int:
        """Like a file's."""
        if self._point == "open":
            _die()
        if self._point in ("half", "full"):
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()
        if self._point == "half":
            _die()
        if self._point == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._stream.write(data)

    def flush(self) -> None:
        """Like a file's."""
        self._stream.flush()

    def fileno(self) -> int:
        """Like a file's."""
        return self._stream.fileno()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
