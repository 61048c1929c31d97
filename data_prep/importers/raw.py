"""Access to raw data: names and the files behind them; here in a folder."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.folders import count_images, is_hidden, warn_of_hidden

IMAGE = r"\.(?:jpe?g|png|tiff?|bmp|webp)"
MAX_TEXT = 64 * 2**20


class RawData(Protocol):
    """A source of raw data: names and the files behind them.

    Attributes:
        root: Folder below which `place` puts files.
        names: Relative names with forward slashes, sorted; hidden files and folders left out.
        rejected: What could not be listed.
    """

    root: Path
    names: list[str]
    rejected: list[RejectedInput]

    def shown(self, name: str) -> str:
        """The name as shown in messages."""
        ...

    def read_text(self, name: str) -> str:
        """A small text file."""
        ...

    def place(self, name: str, wanted: str) -> Path:
        """The file behind a name, on the disk. An archive writes it to `wanted`, below its root."""
        ...


class RawFolder:
    """A folder, which is never written to.

    Args:
        folder: As the user named it.
        skipped: Folders below it that are not read.
        follow_links: Read what links point to, under the links' names, and place the files that
            they point to. `root` is then above all of these.
    """

    def __init__(
        self, folder: Path, skipped: Sequence[Path] = (), follow_links: bool = False
    ) -> None:
        self._folder = folder
        self._base = folder.resolve()
        self._skipped = {path.resolve() for path in skipped}
        self._follow_links = follow_links
        self.rejected: list[RejectedInput] = []
        self._hidden_images = 0
        self.names = sorted(self._walk())
        warn_of_hidden(folder, self._hidden_images)
        files = (self._base / name for name in self.names) if follow_links else ()
        self.root = common_root(self._base, files)

    def _walk(self) -> Iterator[str]:
        waiting = [""]  # folders; a tree may be deeper than Python's recursion
        entered: set[Path] = set()
        while waiting:
            prefix = waiting.pop()
            if self._follow_links:  # links may lead in a circle
                if (real := (self._base / prefix).resolve()) in entered:
                    continue
                entered.add(real)
            for entry in self._entries(prefix):
                if is_hidden(entry.name):
                    self._hidden_images += count_images(Path(entry.path))
                    continue
                name = prefix + entry.name
                try:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    is_linked_folder = not is_folder and entry.is_symlink() and entry.is_dir()
                except OSError as error:  # links in a circle
                    message = f"cannot be looked at: {error.strerror}"
                    self.rejected.append(RejectedInput(self.shown(name), "not_a_file", message))
                    continue
                if is_linked_folder and not self._follow_links:
                    message = "is a link to a folder, which is not followed; give the folder itself"
                    self.rejected.append(RejectedInput(self.shown(name), "not_a_file", message))
                elif not (is_folder or is_linked_folder):
                    yield name
                elif Path(entry.path) not in self._skipped:
                    waiting.append(f"{name}/")

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        """What a folder holds; nothing, and a rejection, if it cannot be listed."""
        try:
            entries = list(os.scandir(f"{self._base}/{prefix}"))
        except OSError as error:
            reason = "permission" if isinstance(error, PermissionError) else "unreadable"
            message = f"the folder cannot be listed: {error.strerror}"
            self.rejected.append(RejectedInput(self.shown(prefix), reason, message))
            return []
        if not entries and re.search(f"{IMAGE}/$", prefix, re.IGNORECASE):
            message = "is an empty folder, named like an image"
            self.rejected.append(RejectedInput(self.shown(prefix[:-1]), "not_a_file", message))
        return entries

    def shown(self, name: str) -> str:
        """Path below the folder as the user named it."""
        return f"{self._folder}/{name}"

    def read_text(self, name: str) -> str:
        """A text file of at most 64 MiB, byte order mark removed.

        Raises:
            UserError: If it is too large, cannot be read or is not UTF-8.
        """
        path = self._base / name
        if not path.is_file() or path.stat().st_size > MAX_TEXT:
            raise UserError(f"{path}: is not a file of at most {MAX_TEXT >> 20} MiB")
        return decode_text(path.read_bytes(), self.shown(name))

    def place(self, name: str, wanted: str) -> Path:
        """Path of the file; `wanted` is not used."""
        path = self._base / name
        return path.resolve() if self._follow_links else path


def common_root(base: Path, files: Iterable[Path]) -> Path:
    """The folder above `base` and whatever the files are once links are followed."""
    return Path(os.path.commonpath([base.resolve(), *{path.resolve().parent for path in files}]))


def decode_text(data: bytes, shown: str) -> str:
    """UTF-8 text without byte order mark.

    Raises:
        UserError: If it is not UTF-8; the message begins with `shown`.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown}: is not UTF-8 text: {error}") from error
