"""Reading parts of a file by their place, by many processes at once."""

import os
import weakref
from pathlib import Path
from typing import IO


class PositionalFile:
    """A file that is read at offsets, through one descriptor that is kept open.

    By `pread`, not through a memory map: both share the system's page cache among all processes,
    but where somebody cuts the file short a map kills the process with SIGBUS, and this returns
    fewer bytes. There is no position to share, so a forked worker uses the descriptor it inherits;
    a pickled copy opens the path again. A file that is replaced (as ours are written) stays as it
    was for whoever has it open.

    Args:
        path: Of the file.
        stream: The file, where it is open already; its descriptor is duplicated.
    """

    def __init__(self, path: Path, stream: IO[bytes] | None = None) -> None:
        self.path = path
        self._descriptor = os.dup(stream.fileno()) if stream else os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`; fewer at the end of the file."""
        return os.pread(self._descriptor, length, start)

    def __reduce__(self) -> tuple[type["PositionalFile"], tuple[Path]]:
        return PositionalFile, (self.path,)
