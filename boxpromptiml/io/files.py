"""Hashes, bounded and positional reads, atomic writes, CSV, local paths."""

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import stat
import weakref
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from boxpromptiml.errors import UserError
from boxpromptiml.io.folders import files_below, make_folder

_CHUNK = 1 << 20
_MAX_SMALL = 2**26  # bytes of a file that is read whole
# zipfile unpacks the other two, bzip2 and LZMA, into memory without a bound, whatever is declared.
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.[0-9]+\.tmp")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:[:/]", re.IGNORECASE)  # Path("http://x") reads http:/x
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Where a cell begins for a program that takes ; or a tab for the separator, or a line for a row.
_CELL_BEGINS = re.compile(r"""([;|\t\r\n]"*)(?=['=+\-@\t\r])""")
_GUARDED = re.compile(r"""([;|\t\r\n]"*)'""")


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces (weights are gigabytes).

    Raises:
        OSError: If it cannot be read, or is not a regular file.
    """
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_order(texts: Iterable[str]) -> npt.NDArray[np.intp]:
    """Positions of texts in the order of their SHA-256: shuffled, unaffected by added texts.

    Example:
        >>> hash_order(["a", "b", "c"]).tolist()  # digests begin with ca, 3e and 2e
        [2, 1, 0]
    """
    digests = [hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in texts]
    return np.argsort(np.array(digests, "S32"), kind="stable")


def fingerprint(description: Any) -> str:
    """Stable hash of a JSON-serialisable value, independent of key order.

    Example:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())


def read_bytes(path: Path, max_bytes: int = _MAX_SMALL) -> bytes:
    """All bytes of a file that may be untrusted.

    Raises:
        UserError: Naming the file, if it is missing, not a regular file (a pipe would never end),
            larger than `max_bytes`, or cannot be read.
    """
    try:
        with open_regular(path) as stream:
            large = os.fstat(stream.fileno()).st_size > max_bytes  # others may grow meanwhile
            data = b"" if large else b"".join(_pieces(stream, max_bytes + 1))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if large or len(data) > max_bytes:
        raise UserError(f"{path}: is larger than {max_bytes} bytes, which no such file needs")
    return data


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading, without waiting for a pipe's other end.

    Raises:
        OSError: If it is a folder, a pipe or a device, or cannot be opened.
    """
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except ValueError as error:  # NUL or a lone surrogate in the path
        raise OSError(errno.EINVAL, "is no path of a file", str(path)) from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return stream


def _pieces(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """Up to `length` bytes; a single read would set aside memory for all of them at once."""
    while length and (piece := stream.read(min(length, _CHUNK))):
        length -= len(piece)
        yield piece


def bounded_lines(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of a file that may be untrusted, with their ends.

    Raises:
        UserError: Naming the file, if a line is larger than 64 MiB.
    """
    while line := stream.readline(_MAX_SMALL + 1):
        if len(line) > _MAX_SMALL:
            raise UserError(f"{path}: a line is larger than {_MAX_SMALL} bytes, which none needs")
        yield line


def read_text(path: Path, max_bytes: int = _MAX_SMALL) -> str:
    """The text of a UTF-8 file that may be untrusted.

    Raises:
        UserError: As `read_bytes`, and if it is not UTF-8.
    """
    try:
        return read_bytes(path, max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error


class PositionalFile:
    """A file that is read at offsets, through one descriptor that is kept open.

    It uses `pread`, not a memory map: both share the system's page cache among all processes, but
    if the file is cut short a map kills the process with SIGBUS, while `pread` returns fewer bytes.
    There is no position to share, so a forked worker uses the descriptor it inherits; a pickled
    copy opens the path again. When a file is replaced (which is how ours are written), readers that
    have it open keep reading the old one.

    Args:
        path: The file's path.
        stream: The file if it is already open; its descriptor is duplicated.
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


def generator(seed: int, key: str | bytes) -> np.random.Generator:
    """A random generator of the seed and a key alone, whatever was drawn for other keys before.

    Args:
        seed: 0 or more.
        key: What is drawn for: a sample's id, or bytes such as those of an array.

    Example:
        >>> generator(0, "a").random() == generator(0, b"a").random()
        True
    """
    data = key.encode(errors="surrogatepass") if isinstance(key, str) else key
    return np.random.default_rng([seed, int(sha256_bytes(data)[:16], 16)])


@contextmanager
def atomic_writer(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and move it into place.

    On any exception, Ctrl-C included, `path` is unchanged and the temporary file is removed. The
    temporary file lies in the same folder, so the move never crosses file systems.

    Args:
        path: The file to write or to replace; its folder is made if necessary.
        durable: Whether the file must survive a power cut. False is for many small files that can
            be made again: ten thousand take seconds instead of minutes.

    Yields:
        The temporary file, open for writing bytes.

    Raises:
        OSError: If the file cannot be written; its `filename` names `path` where the disk is full.
    """
    if not path.name:  # `.` and `/`
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _refuse_special(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{_short(path)}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as stream:  # never through a link that lies there
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and (
            str(error.filename) == str(temporary)
            or (error.filename is None and error.errno in _DISK)
        ):
            error.filename = str(path)  # a failed write does not know its file
        with suppress(OSError):  # of a read-only disk
            temporary.unlink(missing_ok=True)
        raise
    if durable:
        _fsync_folder(path.parent)


def _refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a device such as /dev/null, a pipe or a socket."""
    with suppress(FileNotFoundError):
        if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise FileExistsError(errno.EEXIST, "is no regular file; name another", str(path))


def _short(path: Path) -> str:
    """Part of a temporary file's name; a long name of the file itself has no room for more."""
    return sha256_bytes(os.fsencode(path.name))[:16]


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_writer(path) as stream:
        stream.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically; undecodable file names in it are kept as escapes."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, atomically. NaN is refused: it is not JSON."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """One JSON value, indented by two spaces, with a line break at its end.

    Raises:
        ValueError: For NaN and infinity, which are not JSON.
    """
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value per line, atomically."""
    with atomic_writer(path) as stream:
        for row in rows:
            stream.write(json_line(row))


def json_line(row: Any) -> bytes:
    """One JSON value as a line of UTF-8; undecodable file names in it are kept as escapes."""
    line = json.dumps(row, allow_nan=False, ensure_ascii=False)
    return line.encode("utf-8", errors="backslashreplace") + b"\n"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and hold it: one job at a time may write into it.

    The lock ends with the process, however it ends.

    Raises:
        UserError: If another job holds it.
    """
    make_folder(folder)
    with _held(folder / ".lock", f"{folder}: another job is writing into this folder"):
        yield


@contextmanager
def locked_file(path: Path, *others: Path) -> Iterator[None]:
    """Hold one output file, and delete temporary files that killed processes left of it.

    The lock ends with the process, however it ends.

    Args:
        path: The file.
        others: Files that only the holder of `path` writes.

    Raises:
        UserError: If another job holds it.
    """
    _refuse_special(path)
    make_folder(path.parent)
    with _held(path.parent / f".{path.name}.lock", f"{path}: another job is writing this file"):
        for one in (path, *others):
            for left in one.parent.glob(f".{_short(one)}.*.tmp"):
                left.unlink(missing_ok=True)
        yield


@contextmanager
def _held(lock: Path, taken: str) -> Iterator[None]:
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"{taken}; wait for it, or name another") from error


def remove_temporaries(folder: Path) -> int:
    """Delete temporary files of killed processes below a folder and return their number.

    Call it only while no other process writes into the folder. Folders below it that hold a job's
    lock of their own are left to that job.
    """
    found = files_below(folder, hidden=True)
    others = {path.parent for path in found if path.name == ".lock"} - {folder}
    left = [
        path
        for path in found
        if _TEMPORARY.fullmatch(path.name) and others.isdisjoint(path.parents)
    ]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file without formulas: what a spreadsheet would run gets a leading '.

    That holds whether the program splits cells at commas, semicolons, tabs or bars. None and nan
    become empty cells; `plain_cell` gives a text back as it was.
    """
    text = io.StringIO()
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    # Before Python 3.13 the writer leaves a cell with a lone \r unquoted, and no reader takes that.
    has_return = any("\r" in cell for line in lines for cell in line if isinstance(cell, str))
    if has_return:
        csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
    else:
        csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _cell(value: object) -> object:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        return value
    # A ' in such a place is doubled, so that reading gives back what was written.
    guarded = _CELL_BEGINS.sub(r"\1'", value)
    return f"'{guarded}" if value.startswith((*_FORMULA, "'")) else guarded


def plain_cell(cell: str) -> str:
    """The text that `csv_text` wrote as this cell."""
    return _GUARDED.sub(r"\1", cell.removeprefix("'"))


def require_local_file(path: Path) -> None:
    """Require a regular file on this machine; links are followed.

    Raises:
        UserError: If `path` is an address, a folder, missing, or not a regular file.
    """
    refuse_address(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the weights file inside it")
    if not path.exists():
        raise UserError(f"{path}: no such weights file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: is not a regular file; copy the weights to one")


def refuse_address(path: Path | str) -> None:
    """Refuse addresses such as http://host/file, s3://..., simplecache::http://...

    Raises:
        UserError: If `path` looks like one.
    """
    if _ADDRESS.match(str(path)):
        raise UserError(f"{path}: addresses are not opened; download it and give the local path")
