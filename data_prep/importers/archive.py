"""Zip archives, whose members are streamed out one by one.

Archives are untrusted. A member is written only when a layout needs it, under a name of our own,
through a temporary file. Number, size, ratio, name and type are checked first, and bytes are
counted during unpacking.
"""

import errno
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import ZIP_METHODS, atomic_writer
from boxpromptiml.io.folders import is_called_image, is_hidden, warn_of_hidden
from boxpromptiml.io.images import DEFAULT_LIMITS
from boxpromptiml.manifests.manifest import check_relative
from data_prep.importers.raw import MAX_TEXT, RawData, RawFolder, decode_text

_CHUNK = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
_DISK = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ESTALE}
_ENTRY_BYTES = 256  # of the directory, on average: 46 and the name
_ENCRYPTED = 0x1  # bit of a member's flags


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits on archives.

    Photographs and masks never compress to a hundredth of their size, nor does a whole archive; the
    latter also catches members that share their bytes.

    Attributes:
        max_members: Number of files in it.
        max_member_bytes: Unpacked size of one file.
        max_total_bytes: Unpacked size of all files.
        max_ratio: Unpacked size of a file, or of all, divided by the packed one.
        ratio_from: Unpacked bytes up to which a file may have any ratio.
    """

    max_members: int = 1_000_000
    max_member_bytes: int = DEFAULT_LIMITS.max_bytes
    max_total_bytes: int = 2**39
    max_ratio: int = 100
    ratio_from: int = 2**20


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


class RawArchive:
    """A zip archive; requested members are written below `root`.

    Raises:
        UserError: If it is damaged or has too many members.
    """

    def __init__(
        self, archive: Path, root: Path, limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS
    ) -> None:
        self._archive = archive
        self._limits = limits
        self.root = root.resolve()
        self.rejected: list[RejectedInput] = []
        try:
            with archive.open("rb") as stream:
                count, length = _directory(stream)
            if count > limits.max_members or length > limits.max_members * _ENTRY_BYTES:
                raise UserError(f"{archive}: has more than {limits.max_members} members")
            self._zip = zipfile.ZipFile(archive)
        except UserError:
            raise
        except (*_DAMAGE, OSError) as error:
            raise UserError(f"{archive}: is not a complete zip archive: {error}") from error
        members = self._zip.infolist()
        if len(members) > limits.max_members:
            raise UserError(f"{archive}: has more than {limits.max_members} members")
        self._members = self._sound(members)
        self.names = sorted(self._members)
        total, size = sum(m.file_size for m in self._members.values()), archive.stat().st_size
        most = min(limits.max_total_bytes, limits.max_ratio * max(size, limits.ratio_from))
        if total > most:
            raise UserError(f"{archive}: {size} bytes would become {total}, more than {most}")
        self._placed: dict[str, Path] = {}
        self._targets: set[str] = set()

    def _sound(self, members: Sequence[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Members that may be read, by name; the others are rejected."""
        sound: dict[str, zipfile.ZipInfo] = {}
        hidden_images = 0
        names = _names(members)
        times = Counter(names)
        for member, name in zip(members, names, strict=True):
            reason, message = self._fault(member, name)
            hidden = any(is_hidden(part) for part in name.split("/"))
            if name.endswith("/") or (hidden and reason != "bad_name"):
                hidden_images += is_called_image(name.rpartition("/")[2])
                continue
            if times[name] > 1:
                reason, message = "duplicate", "is in the archive twice; which is meant is unknown"
            if reason:
                self.rejected.append(RejectedInput(self.shown(name), reason, message))
            else:
                sound[name] = member
        warn_of_hidden(self._archive, hidden_images)
        return sound

    def _fault(self, member: zipfile.ZipInfo, name: str) -> tuple[str, str]:
        """Reason and message why a member may not be read; empty if it may."""
        kind = stat.S_IFMT(member.external_attr >> 16)
        try:
            check_relative(name)
        except UserError as error:
            return "bad_name", str(error)
        if kind not in (0, stat.S_IFREG):
            return "not_a_file", "is a link or device, not a file"
        encrypted = bool(member.flag_bits & _ENCRYPTED)
        if encrypted or member.compress_type not in ZIP_METHODS:
            what = "encrypted" if encrypted else "compressed by another method than deflate"
            reason = "encrypted" if encrypted else "compression"
            return reason, f"is {what}; unpack the archive yourself"
        if member.file_size > self._limits.max_member_bytes:
            return "too_many_bytes", f"would have {member.file_size} bytes"
        most = self._limits.max_ratio * max(member.compress_size, 1)
        if member.file_size > max(most, self._limits.ratio_from):
            return "ratio", f"{member.compress_size} bytes would become {member.file_size}"
        return "", ""

    def shown(self, name: str) -> str:
        """The name as shown in messages: the archive, then its member."""
        return f"{self._archive}/{name}"

    def read_text(self, name: str) -> str:
        """A text member of at most 64 MiB, byte order mark removed.

        Raises:
            UserError: If it is too large, damaged or not UTF-8.
        """
        member = self._members[name]
        if member.file_size > MAX_TEXT:
            raise UserError(f"{self.shown(name)}: is larger than {MAX_TEXT >> 20} MiB")
        return decode_text(b"".join(self._read(member)), self.shown(name))

    def place(self, name: str, wanted: str) -> Path:
        """Write a member to `wanted` below `root`, once, however often it is requested.

        Raises:
            RejectedInput: If its bytes are damaged, or `wanted` was taken by another member.
        """
        if name not in self._placed:
            check_relative(wanted)
            path = self.root / wanted
            if wanted.casefold() in self._targets:
                message = f"would be written over another member at {path}"
                raise RejectedInput(self.shown(name), "duplicate", message)
            try:
                with atomic_writer(path, durable=False) as stream:
                    stream.writelines(self._read(self._members[name]))
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                message = f"stands for a file and a folder: {error}"
                raise RejectedInput(self.shown(name), "duplicate", message) from error
            self._targets.add(wanted.casefold())
            self._placed[name] = path
        return self._placed[name]

    def _read(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        """Yield the bytes of a member, never more than it declares."""
        left = member.file_size
        try:
            with self._zip.open(member) as stream:
                while chunk := stream.read(_CHUNK):
                    left -= len(chunk)
                    if left < 0:
                        raise zipfile.BadZipFile("more bytes than declared")
                    yield chunk
        except (*_DAMAGE, OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise  # the disk, not the archive
            message = f"cannot be unpacked: {error}"
            shown = self.shown(member.orig_filename)
            raise RejectedInput(shown, "truncated_or_corrupt", message) from error


def _names(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    r"""The members' names; where none has a `/`, a `\` divides folders.

    Older versions of .NET and of PowerShell's Compress-Archive write archives so.
    """
    names = [member.orig_filename for member in members]
    if any("/" in name for name in names):
        return names
    return [name.replace("\\", "/") for name in names]


def _directory(stream: BinaryIO) -> tuple[int, int]:
    """Entries and bytes of the directory, as the end of an archive declares them; 0 without one.

    `ZipFile` reads the whole directory into memory, so this is checked first.
    """
    size = stream.seek(0, 2)
    start = stream.seek(max(0, size - 2**16 - 22 - 76))  # comment, end record, zip64's records
    tail = stream.read()
    plain = tail[-22:-18] == b"PK\5\6" and tail.endswith(b"\0\0")  # no comment
    end = len(tail) - 22 if plain else tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < 22:
        return 0, 0
    counts, lengths = ([number] for number in struct.unpack_from("<HL", tail, end + 10))
    if end >= 20 and tail[end - 20 : end - 16] == b"PK\6\7":
        (said,) = struct.unpack_from("<Q", tail, end - 12)
        for position in (start + end - 76, said):  # versions of Python differ in which they read
            if 0 <= position <= size - 56:
                stream.seek(position)
                record = stream.read(56)
                if record[:4] == b"PK\6\6":
                    count, length = struct.unpack_from("<QQ", record, 32)
                    counts.append(count)
                    lengths.append(length)
    return max(counts), max(lengths)


def open_source(
    path: Path, unpacked: Path, skipped: Sequence[Path] = (), follow_links: bool = False
) -> RawData:
    """Open a folder or zip archive as the source of a dataset.

    A list (.json, .csv) stands for its folder.

    Args:
        path: Folder, zip archive or list.
        unpacked: Where an archive's members are written.
        skipped: Folders below a folder that are not read.
        follow_links: Whether links that lead out of a folder are followed.

    Raises:
        UserError: If it is neither.
    """
    if path.is_dir():
        return RawFolder(path, skipped, follow_links)
    if not path.is_file():
        raise UserError(f"{path}: no such folder or archive")
    if path.suffix.lower() in (".json", ".csv"):
        return RawFolder(path.parent, skipped, follow_links)
    if path.suffix.lower() != ".zip":
        raise UserError(f"{path}: is neither a folder nor a zip archive; give the unpacked folder")
    return RawArchive(path, unpacked)
