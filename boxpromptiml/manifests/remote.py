"""Images in object stores: read through fsspec once, kept in a folder of this machine.

Nothing here decodes: what is fetched is a file like any other, and as little trusted.
"""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import sha256_bytes, sha256_file, write_bytes
from boxpromptiml.io.images import DEFAULT_LIMITS

_PROTOCOLS = ("s3", "gs", "memory")
_SECONDS = 120.0  # for an answer, with the retries of the store's own package
_MAX_SILENCES = 3  # answers in a row that did not come; no more is asked of that store then

_silences: Counter[str] = Counter()  # by root, in this process
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # tracebacks of what becomes a rejection


def is_remote(root: str) -> bool:
    """Whether a root of a manifest is an address, such as s3://bucket/folder."""
    return "://" in root


def check_root(root: str) -> None:
    """Accept `PROTOCOL://BUCKET/FOLDER` of a known protocol, and nothing that fsspec would chain.

    Raises:
        UserError: For any other address.
    """
    protocol, _, place = root.partition("://")
    parts = place.strip("/").split("/")
    if protocol not in _PROTOCOLS or not parts[0] or {".", ".."} & set(parts) or ":" in place:
        known = ", ".join(f"{name}://" for name in _PROTOCOLS)
        raise UserError(f"{root!r} is no address of a folder below {known}")


def require_package(root: str) -> None:
    """Import what reads a remote root, before a job starts.

    Raises:
        UserError: Naming the package that is to be installed.
    """
    import fsspec  # noqa: PLC0415

    try:
        fsspec.get_filesystem_class(root.partition("://")[0])
    except ImportError as error:
        raise UserError(f"{root}: {error}") from error


def address_of(root: str, relative: str) -> str:
    """Address of the file `relative` (forward slashes) below a remote root."""
    return f"{root.rstrip('/')}/{relative}"


def fetched(root: str, relative: str, sha256: str | None) -> Path:
    """A copy of a remote file on this machine, below $XDG_CACHE_HOME/boxpromptiml.

    It is found by its SHA-256 where the manifest has one, without asking the store, and checked;
    else by what the store says about it (its ETag). Nothing removes copies but their owner.

    Args:
        root: Address of the manifest's images, as `check_root` accepts it.
        relative: Path below it, as `check_relative` accepts it.
        sha256: Of the file, where it is known.

    Raises:
        RejectedInput: `missing`, `permission`, `unreachable` (also after some
            requests that were not answered in time), `too_many_bytes`, `empty`, `cut`
            (fewer bytes than announced), `changed` (not the SHA-256). Nothing is kept then.
    """
    address = address_of(root, relative)
    if sha256 and (copy := _place(sha256, relative)).is_file() and sha256_file(copy) == sha256:
        return copy
    try:
        system, waiting = _store(root, address)
        facts = system.info(address, **waiting)
        known = sorted((key, str(value)) for key, value in facts.items())
        copy = _place(sha256 or sha256_bytes(f"{address} {known}".encode()), relative)
        if sha256 is None and copy.is_file():
            return copy
        _refuse_size(address, facts["size"])
        data = system.cat_file(address, start=0, end=facts["size"], **waiting)
        _silences.pop(root, None)
    except RejectedInput:
        raise
    except FileNotFoundError as error:
        raise RejectedInput(address, "missing", "is not there") from error
    except PermissionError as error:
        message = f"the store denies access: {error}"
        raise RejectedInput(address, "permission", message) from error
    except TimeoutError as error:
        _silences[root] += 1
        message = f"no answer in {_SECONDS:g} s; run it again"
        raise RejectedInput(address, "unreachable", message) from error
    except Exception as error:  # of the store's package, which has its own retries
        message = f"cannot be fetched: {str(error)[:200]} ({type(error).__name__}); run it again"
        raise RejectedInput(address, "unreachable", message) from error
    if len(data) != facts["size"]:
        message = f"{len(data)} of {facts['size']} bytes came; run it again"
        raise RejectedInput(address, "cut", message)
    if sha256 not in (None, sha256_bytes(data)):
        raise RejectedInput(address, "changed", "its SHA-256 is not the manifest's")
    write_bytes(copy, data)
    return copy


def _store(root: str, address: str) -> tuple[Any, dict[str, float]]:
    """The store of a root, and the options of a request that bound its time.

    Raises:
        RejectedInput: If it has not answered several times.
    """
    import fsspec  # noqa: PLC0415

    if _silences[root] >= _MAX_SILENCES:
        message = f"the store left {_MAX_SILENCES} requests unanswered; run it again"
        raise RejectedInput(address, "unreachable", message)
    system = fsspec.filesystem(root.partition("://")[0])
    return system, {"timeout": _SECONDS} if system.async_impl else {}


def _place(key: str, relative: str) -> Path:
    """Of a copy; its ending stays, and so does the name, for messages."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "boxpromptiml" / key[:2] / key / relative.rpartition("/")[2]


def _refuse_size(address: str, size: int) -> None:
    if size == 0:
        raise RejectedInput(address, "empty", "has no bytes")
    if size > DEFAULT_LIMITS.max_bytes:
        message = f"has {size} bytes, more than the limit of {DEFAULT_LIMITS.max_bytes}"
        raise RejectedInput(address, "too_many_bytes", message)
