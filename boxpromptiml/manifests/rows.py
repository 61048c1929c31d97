"""The lines of a large text file as a sequence of values, parsed at each access.

Sixteen bytes per line stay in memory, in one array, so that a forked worker copies no memory by
touching reference counts.
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import PositionalFile

T = TypeVar("T")

_PACKED = struct.Struct("<qII")
_PLACE = np.dtype([("start", "<i8"), ("length", "<u4"), ("checksum", "<u4")])
_BLOCK = 4096


class Rows(Sequence[T], Generic[T]):
    """Some lines of a file, in any order, as values.

    It equals any sequence of equal values. A slice is a `Rows` too, without parsing.

    Args:
        file: The file with the lines.
        places: Where each line is, made by `Places`.
        parse: Turns a line into a value; a module-level function, so that it can be pickled.
    """

    __hash__ = None  # type: ignore[assignment] # as any sequence that compares by value

    def __init__(
        self, file: PositionalFile, places: npt.NDArray[np.void], parse: Callable[[bytes], T]
    ) -> None:
        self._file = file
        self._places = places
        self._parse = parse

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Rows[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Rows[T]":
        if isinstance(index, slice):
            return Rows(self._file, self._places[index], self._parse)
        return self._row(*self._places[index].tolist())

    def __iter__(self) -> Iterator[T]:
        for first in range(0, len(self), _BLOCK):
            for place in self._places[first : first + _BLOCK].tolist():
                yield self._row(*place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        same_length = len(self) == len(other)
        return same_length and all(a == b for a, b in zip(self, other, strict=True))

    def take(self, numbers: npt.NDArray[np.int64]) -> "Rows[T]":
        """The rows at `numbers` (N,), counted from 0, in the order of `numbers`."""
        return Rows(self._file, self._places[numbers], self._parse)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Rows[T]":
        """The rows whose flag in `chosen`, as long as this sequence, is True."""
        return Rows(self._file, self._places[chosen], self._parse)

    def _row(self, start: int, length: int, checksum: int) -> T:
        try:
            line = self._file.read(start, length)
        except OSError as error:
            raise UserError(f"{self._file.path}: cannot be read any more: {error}") from error
        if zlib.crc32(line) != checksum:
            raise UserError(
                f"{self._file.path}: was changed in place while it is in use, at byte {start}; "
                "write a new file and move it there instead"
            )
        return self._parse(line)


class Places:
    """Collects where the lines of a file are."""

    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, start: int, line: bytes) -> None:
        """Add a line that starts at byte `start`."""
        self._packed += _PACKED.pack(start, len(line), zlib.crc32(line))

    def as_array(self) -> npt.NDArray[np.void]:
        """The places as an array, for `Rows`."""
        return np.frombuffer(self._packed, _PLACE)


def repeated(hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions, ascending, of the values that occur more than once.

    Example:
        >>> repeated(np.array([5, 3, 5, 4])).tolist()
        [0, 2]
    """
    values, counts = np.unique(hashes, return_counts=True)
    return np.flatnonzero(np.isin(hashes, values[counts > 1]))
