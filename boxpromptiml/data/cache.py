"""Images and supervision at the network's size, kept on disk by what they were made from.

A folder holds three files for each size:

    HxW.pixels   uint8, H * W * 4 a slot: the image (H, W, 3), then the supervision (H, W);
                 `np.memmap(path, np.uint8).reshape(-1, H * W * 4)` reads it
    HxW.index    of every slot the key and a checksum; a slot counts once its entry is there
    HxW.lock     held by the process that appends

A key is a hash of all that the pixels depend on. So nothing in here is ever stale: what has changed
has another key and is appended. Files only grow; delete the folder to shrink them.
"""

import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import PositionalFile
from boxpromptiml.records import ImageArray, TrimapArray

log = logging.getLogger(__name__)

_ENTRY = np.dtype([("key", "S32"), ("checksum", "<u4")])

Keys = npt.NDArray[np.bytes_]  # (N,) S32; b"" for what is not to be kept


class PixelStore:
    """The files of one size.

    Args:
        folder: Where they are; made when something is appended.
        size: (H, W).
    """

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder = folder
        self.size = size
        self.slot_bytes = size[0] * size[1] * 4
        name = f"{size[0]}x{size[1]}"
        self.pixels, self._index, self._lock = (
            folder / f"{name}.{part}" for part in ("pixels", "index", "lock")
        )

    def slots(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The slot of every key; -1 where there is none."""
        return _find(self._entries()["key"], keys)

    def open(self, keys: Keys) -> "CachedImages":
        """What is there of the keys, to be read by their positions."""
        entries = self._entries()
        slots = _find(entries["key"], keys)
        return CachedImages(self, slots, entries["checksum"][slots] if len(entries) else slots)

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Let no other process append meanwhile; wait for one that does.

        Raises:
            UserError: If the folder or a file in it cannot be written, or the disk is full.
        """
        lock = FileLock(self._lock)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=1)
            except Timeout:
                log.warning("waiting for another process that fills %s", self.folder)
                lock.acquire()
            try:
                yield
            finally:
                lock.release()
        except OSError as error:
            raise UserError(f"data.cache={self.folder} cannot be written: {error}") from error

    def append(self, slots: Iterable[tuple[bytes, bytes]]) -> None:
        """Add keys and what they stand for, each whole before its entry; only while `appending`."""
        count = len(self._entries())
        for path, size in ((self.pixels, self.slot_bytes), (self._index, _ENTRY.itemsize)):
            path.touch()
            os.truncate(path, count * size)  # what a killed process had not finished
        with self.pixels.open("ab") as pixels, self._index.open("ab") as index:
            for key, content in slots:
                pixels.write(content)
                pixels.flush()
                index.write(np.array((key, zlib.crc32(content)), _ENTRY).tobytes())
                index.flush()
            for stream in (pixels, index):
                os.fsync(stream.fileno())

    def require_room(self, slots: int) -> None:
        """UserError if the disk has no room for so many more slots."""
        needed, free = slots * self.slot_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"data.cache={self.folder}: {slots} images need {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free"
            )

    def _entries(self) -> npt.NDArray[np.void]:
        """Of the slots that are whole."""
        try:
            whole = self.pixels.stat().st_size // self.slot_bytes
            data = self._index.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, _ENTRY)
        return np.frombuffer(data, _ENTRY, min(whole, len(data) // _ENTRY.itemsize))


class CachedImages:
    """Pixels from a `PixelStore` by position.

    What cannot be read from there, because it is damaged or was cut off since, is no error.

    Args:
        store: Holds the pixels.
        slots: Of every position, -1 for none.
        checksums: Of their content.
    """

    def __init__(
        self, store: PixelStore, slots: npt.NDArray[np.int64], checksums: npt.NDArray[np.integer]
    ) -> None:
        self._file = PositionalFile(store.pixels) if (slots >= 0).any() else None
        self._size = store.size
        self._slot_bytes = store.slot_bytes
        self._slots = slots
        self._checksums = checksums

    def read(self, position: int) -> tuple[ImageArray, TrimapArray] | None:
        """Image (h, w, 3) and supervision (h, w), not to be written to; None if not there."""
        slot = int(self._slots[position])
        if slot < 0 or self._file is None:
            return None
        try:
            data = self._file.read(slot * self._slot_bytes, self._slot_bytes)
        except OSError as error:
            log.warning("%s: %s", self._file.path, error)
            return None
        if zlib.crc32(data) != self._checksums[position]:
            log.warning("%s: slot %d is damaged; delete the file", self._file.path, slot)
            return None
        height, width = self._size
        flat = np.frombuffer(data, np.uint8)
        image, levels = np.split(flat, [height * width * 3])
        return image.reshape(height, width, 3), levels.reshape(height, width)


def _find(known: Keys, keys: Keys) -> npt.NDArray[np.int64]:
    if not len(known):
        return np.full(len(keys), -1)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known, keys, sorter=order)
    slots = order[np.minimum(place, len(known) - 1)]
    return np.where((known[slots] == keys) & (keys != b""), slots, -1)
