"""Image files named on a command line, and a distinct output name for each."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import refuse_address
from boxpromptiml.io.folders import files_below

_ENDINGS = (".png", ".jpg")  # of the files that a job writes under a name
_MAX_NAME_BYTES = 200
_MAX_PATTERN = 4096  # characters; longer ones take minutes


def find_inputs(
    patterns: Sequence[str], out: Path
) -> tuple[list[tuple[Path, Path]], list[RejectedInput]]:
    """Files behind paths, folders (with all below) and globs.

    Files below `out`, also through links, were written by the job itself and are left out.

    Args:
        patterns: Paths, folders and globs.
        out: Output folder of the job.

    Returns:
        Every file once, with the folder that its name is relative to (missing files too, which are
        reported when opened), and a rejection for every pattern without a match.
    """
    found: dict[Path, Path] = {}
    rejected: list[RejectedInput] = []
    ours = out.resolve()
    for pattern in patterns:
        try:
            files = dict(_behind(pattern))
        except RejectedInput as error:
            rejected.append(error)
            continue
        foreign = {file: root for file, root in files.items() if not _is_below(file, ours)}
        if not foreign:
            rejected.append(RejectedInput(pattern, "own_output", f"all of it lies below {out}"))
        for file, root in foreign.items():
            found.setdefault(file, root)
    return list(found.items()), rejected


def _behind(pattern: str) -> Iterator[tuple[Path, Path]]:
    if not pattern:
        raise RejectedInput(pattern, "no_match", "is no path, but an empty word")
    try:
        refuse_address(pattern)
    except UserError as error:
        raise RejectedInput(
            pattern, "address", "addresses are not opened; download it and give the local path"
        ) from error
    path = Path(pattern)
    if _is_folder(path):
        files = files_below(path)
        if not files:
            raise RejectedInput(pattern, "empty_folder", "holds no files")
        yield from ((file, path) for file in files)
    elif len(pattern) <= _MAX_PATTERN and set("*?[") & set(pattern):
        anchor = Path(path.anchor or ".")
        relative = str(path.relative_to(path.anchor)) if path.anchor else pattern
        matches = [file for file in sorted(_glob(anchor, relative)) if not _is_folder(file)]
        if os.path.lexists(path):  # a file whose name looks like a pattern
            matches.append(path)
        if not matches:
            raise RejectedInput(pattern, "no_match", "no such file, and no file matches it as glob")
        yield from ((file, file.parent) for file in dict.fromkeys(matches))
    else:
        yield path, path.parent


def _glob(anchor: Path, pattern: str) -> Iterable[Path]:
    try:
        return list(anchor.glob(pattern))
    except (ValueError, OSError):  # such as `**x`
        return []


def _is_folder(path: Path) -> bool:
    """Like `Path.is_dir`, but False where that raises: for overlong link targets and NUL."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_below(file: Path, folder: Path) -> bool:
    try:
        return file.parent.resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a loop of links
        return False


def name_inputs(
    inputs: Iterable[tuple[Path, Path]], taken: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """A distinct output name for every file: its path below its folder, without suffix.

    Names become paths of files: `x` becomes x.png, so no other name may begin with x.png/. They
    stay distinct on file systems that ignore case or the composition of accents.

    Args:
        inputs: Files, each once, and the folder that its name is relative to.
        taken: Names in use, such as by an earlier run; a file that has one keeps it, and no other
            file gets it.

    Returns:
        Files by name, in the order of the inputs.
    """
    names = _Names(taken or {})
    kept = {path: name for name, path in (taken or {}).items()}
    named: dict[str, Path] = {}
    for file, root in inputs:
        relative = file.relative_to(root)
        stem = relative.as_posix().removesuffix(relative.suffix)
        wished = (stem, relative.as_posix().replace(".", "_"), f"{stem}_{len(named)}")
        name = kept[file] if file in kept else names.first_free(wished)
        named[name] = file
    return named


class _Names:
    """The names in use, as paths of files and folders."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._count = 0
        for name in taken:
            self._take(name)

    def first_free(self, wished: Iterable[str]) -> str:
        for name in wished:
            if _is_sound(name) and self._is_free(name):
                return self._take(name)
        while True:
            self._count += 1
            if self._is_free(name := f"n{self._count}"):
                return self._take(name)

    def _is_free(self, name: str) -> bool:
        files, folders = _places(name)
        return self._files.isdisjoint(files | folders) and self._folders.isdisjoint(files)

    def _take(self, name: str) -> str:
        files, folders = _places(name)
        self._files |= files
        self._folders |= folders
        return name


def _places(name: str) -> tuple[set[str], set[str]]:
    """Paths of a name's files, and of their folders."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    parts = folded.split("/")
    folders = {"/".join(parts[:count]) for count in range(1, len(parts))}
    return {folded + ending for ending in _ENDINGS}, folders


def _is_sound(name: str) -> bool:
    printable = name.isprintable() and not any(c in name for c in '\\:*?"<>|')
    return printable and len(name.encode("utf-8", "surrogatepass")) < _MAX_NAME_BYTES
