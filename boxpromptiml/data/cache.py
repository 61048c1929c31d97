"""On-disk store of images and supervision at the network's size, addressed by content.

`cache_fill` decides the keys, and holds the version to raise when the processing changes.

A folder holds three files for each size:

    HxW.pixels   uint8, H * W * 4 per slot: the image (H, W, 3), then the supervision (H, W);
                 `np.memmap(path, np.uint8).reshape(-1, H * W * 4)` reads it
    HxW.index    key and checksum of every slot; a slot is valid once its entry is written
    HxW.lock     held by the process that appends

A key is a hash of everything the pixels depend on, so entries never go stale: changed inputs have
another key and are appended. Files only grow; delete the folder to free the space.
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

Keys = npt.NDArray[np.bytes_]  # (N,) S32; b"" for images that are not to be stored


class PixelStore:
    """The store of one image size.

    Args:
        folder: Holds the files; created by the first append.
        size: (H, W) of image and supervision in pixels.
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
        """The slot number (N,) of every key; -1 for keys that are not stored."""
        return _find(self._entries()["key"], keys)

    def open(self, keys: Keys) -> "CachedImages":
        """A reader of the stored images; its positions are those of the keys."""
        entries = self._entries()
        slots = _find(entries["key"], keys)
        return CachedImages(self, slots, entries["checksum"][slots] if len(entries) else slots)

    @contextmanager
    def appending(self) -> Iterator[None]:
        """Hold the lock for appending; waits while another process holds it.

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
        """Append (key, content) pairs; call it inside `appending` only.

        The content is written before the index entry, so a killed process leaves no broken slot.
        """
        count = len(self._entries())
        for path, size in ((self.pixels, self.slot_bytes), (self._index, _ENTRY.itemsize)):
            path.touch()
            os.truncate(path, count * size)  # incomplete writes of a killed process
        with self.pixels.open("ab") as pixels, self._index.open("ab") as index:
            for key, content in slots:
                pixels.write(content)
                pixels.flush()
                index.write(np.array((key, zlib.crc32(content)), _ENTRY).tobytes())
                index.flush()
            for stream in (pixels, index):
                os.fsync(stream.fileno())

    def require_room(self, slots: int) -> None:
        """Check the free space of the disk.

        Raises:
            UserError: If so many more slots do not fit.
        """
        needed, free = slots * self.slot_bytes, shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"data.cache={self.folder}: {slots} images need {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free"
            )

    def _entries(self) -> npt.NDArray[np.void]:
        """Index entries of the complete slots."""
        try:
            whole = self.pixels.stat().st_size // self.slot_bytes
            data = self._index.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return np.empty(0, _ENTRY)
        return np.frombuffer(data, _ENTRY, min(whole, len(data) // _ENTRY.itemsize))


class CachedImages:
    """Reads images of a `PixelStore` by position.

    A slot that cannot be read, because it is damaged or the file was truncated, counts as missing.

    Args:
        store: Holds the pixels.
        slots: (N,) slot number of every position, -1 for none.
        checksums: (N,) CRC-32 of the slots' content.
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
        """Image (H, W, 3) and supervision (H, W) as read-only arrays; None if not available."""
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
        image, trimap = np.split(flat, [height * width * 3])
        return image.reshape(height, width, 3), trimap.reshape(height, width)


def _find(known: Keys, keys: Keys) -> npt.NDArray[np.int64]:
    if not len(known):
        return np.full(len(keys), -1)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known, keys, sorter=order)
    slots = order[np.minimum(place, len(known) - 1)]
    return np.where((known[slots] == keys) & (keys != b""), slots, -1)
