"""Hashes, signatures and writes that are either whole or absent."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 20
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.[0-9]+\.tmp")


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces (weights are gigabytes)."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_order(texts: Iterable[str]) -> npt.NDArray[np.intp]:
    """Positions of texts in the order of their SHA-256: shuffled, and one more moves no other.

    Example:
        >>> hash_order(["a", "b", "c"]).tolist()  # digests begin with ca, 3e and 2e
        [2, 1, 0]
    """
    digests = [hashlib.sha256(text.encode(errors="surrogatepass")).digest() for text in texts]
    return np.argsort(np.array(digests, "S32"), kind="stable")


def signature(description: Any) -> str:
    """Stable hash of a JSON-serialisable value, independent of key order.

    Example:
        >>> signature({"a": 1, "b": 2}) == signature({"b": 2, "a": 1})
        True
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256_bytes(text.encode())


@contextmanager
def atomic_writer(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path`; on success fsync it and move it into place.

    On any exception, Ctrl-C included, `path` is as it was and the temporary file is gone. The
    temporary file lies in the same folder, so the move never crosses file systems.

    Args:
        durable: Whether the file must outlive a power cut. Without, ten thousand small files that
            can be made again take seconds instead of minutes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = sha256_bytes(os.fsencode(path.name))[:16]  # a long name has no room for more
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _DISK:
            error.filename = str(path)  # a failed write does not know its file
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _fsync_folder(path.parent)


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
    """Write a UTF-8 file atomically; undecodable file names inside survive as escapes."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value, indented, atomically. NaN is refused: it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically."""
    with atomic_writer(path) as stream:
        for row in rows:
            stream.write(json_line(row))


def json_line(row: Any) -> bytes:
    """One JSON value as a line of UTF-8; undecodable file names inside survive as escapes."""
    line = json.dumps(row, allow_nan=False, ensure_ascii=False)
    return line.encode("utf-8", errors="backslashreplace") + b"\n"


def remove_temporaries(folder: Path) -> int:
    """Delete what killed processes left of `atomic_writer` below a folder; how many files.

    Only for a folder that nobody else is writing into.
    """
    left = [path for path in folder.rglob(".*.tmp") if _TEMPORARY.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
