"""Files that nobody should feed us, each with the reasons for which it may be rejected.

`fill` writes them into a folder: damaged and foreign files, bombs, FIFOs, devices, links, names
from hell, and odd files that are sound all the same and must be taken. Equal seeds give equal
files.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.reliability.pictures import Dice, encoded, noise
from tests.reliability.wrong_bytes import DAMAGED, ODD

_NO_FILE = ("not_a_file",)
_LINK_IN_MANIFEST = ("bad_path", "not_a_file")

Reasons = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planted:
    """One file that was written, and how it may be rejected; () means that it must be taken.

    Attributes:
        path: Where it lies.
        kind: What is wrong with it.
        decoder: Reasons where only its bytes matter (`localize`).
        importer: Reasons of `import`, which also looks at names; None: it is not even listed.
        manifest: Reasons of what reads a manifest; None: no manifest can name it.
    """

    path: Path
    kind: str
    decoder: Reasons | None
    importer: Reasons | None
    manifest: Reasons | None


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero, for root
    except PermissionError:
        path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:  # the whole path may be longer than a socket's name can be
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _link_to_sibling(path: Path) -> None:
    path.with_suffix(".target.png").symlink_to("/dev/null")
    path.symlink_to(path.with_suffix(".target.png").name)


# Name, how it comes to be, reasons of the decoder, the importer, what reads a manifest.
_SPECIAL: tuple[tuple[str, Callable[[Path], None], Reasons | None, Reasons, Reasons], ...] = (
    ("fifo", _fifo, _NO_FILE, _NO_FILE, _NO_FILE),
    ("device", _device, _NO_FILE, _NO_FILE, _LINK_IN_MANIFEST),
    ("socket", _socket, _NO_FILE, _NO_FILE, _NO_FILE),
    ("link_to_device", _link_to("/dev/zero"), _NO_FILE, _NO_FILE, _LINK_IN_MANIFEST),
    ("link_out", _link_to("/etc/hostname"), _NO_FILE, _NO_FILE, _LINK_IN_MANIFEST),
    ("link_up", _link_to("../../../../../../etc/passwd"), _NO_FILE, _NO_FILE, _LINK_IN_MANIFEST),
    ("link_to_nothing", _link_to("gone.jpg"), _NO_FILE, _NO_FILE, ("not_a_file", "missing")),
    ("link_loop", _link_to_itself, _NO_FILE, _NO_FILE, _LINK_IN_MANIFEST),
    ("folder", Path.mkdir, None, _NO_FILE, _NO_FILE),
    ("long_link", _link_to("x" * 300), _NO_FILE, _NO_FILE, (*_LINK_IN_MANIFEST, "unreadable")),
)

# Name as a sound picture gets it, and whether a manifest can hold it and `import` takes it.
_NAMES: tuple[tuple[str, str, bool, bool], ...] = (
    ("not_utf8", os.fsdecode(b"n\xff\xfe"), False, False),
    ("newline", "two\nlines", True, False),
    ("escape", "red\x1b[31m\x07", True, False),
    ("right_to_left", "gpj.\u202egnp", True, False),
    ("long", "l" * 251, True, True),
    ("tab", "tab\there", True, False),
    ("backslash", "up\\..\\up", False, False),
    ("html", "<img src=x onerror=alert(1)>", True, True),
    ("quotes", "\"'`{{ 7*7 }}%s", True, True),
    ("formula", "=cmd|' !A0", True, True),
    ("dash", "-rf", True, True),
    ("glob", "[a-z]*?", True, True),
    ("blank", " ", True, True),
    ("composed", "\u00e9\u0301", True, True),
    ("emoji", "\U0001f4a3", True, True),
)


def fill(folder: Path, seed: int = 0, times: int = 1) -> list[Planted]:
    """Write every kind `times` times with other random numbers; names that exist only once.

    Returns:
        What was written, in sorted order of the paths.
    """
    dice = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    planted: list[Planted] = []
    for number in range(times):
        for kind, (ending, make, reasons) in (DAMAGED | ODD).items():
            path = folder / f"{kind}_{number:03d}.{ending}"
            path.write_bytes(make(dice))
            planted.append(Planted(path, kind, reasons, reasons, reasons))
        for kind, special, *expected in _SPECIAL:
            path = folder / f"{kind}_{number:03d}.jpg"
            special(path)
            planted.append(Planted(path, kind, *expected))
    planted += [_named(folder, dice, *row) for row in _NAMES]
    return sorted(planted, key=lambda one: str(one.path))


def _named(
    folder: Path, dice: Dice, kind: str, stem: str, in_manifest: bool, imports: bool
) -> Planted:
    path = folder / f"{stem}.jpg"
    path.write_bytes(encoded(noise(dice), "JPEG", quality=90))
    importer: Reasons = () if imports else ("bad_name",)
    return Planted(path, f"name_{kind}", (), importer, () if in_manifest else None)
