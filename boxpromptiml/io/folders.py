"""Lists and creates folders of any depth.

`Path.rglob`, `os.walk` and `Path.mkdir(parents=True)` recurse and fail beyond a thousand levels.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

_logger = logging.getLogger(__name__)
_LEFT_BEHIND = ("__macosx", "thumbs.db", "desktop.ini")  # by macOS and Windows
_PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


def files_below(folder: Path, hidden: bool = False) -> list[Path]:
    """The files below a folder, in sorted order.

    Links are not followed: they, also those to folders and broken ones, and everything else that is
    not a folder count as files. So does a folder that cannot be listed, which reading then rejects.
    A warning says how many hidden images are left out.

    Args:
        folder: The folder.
        hidden: Whether to include hidden files and folders (`is_hidden`).
    """
    found: list[Path] = []
    left_out = 0
    waiting = [str(folder)]
    while waiting:
        current = waiting.pop()
        entries = _entries(current)
        if entries is None:
            found.append(Path(current))
            continue
        for entry in entries:
            if not hidden and is_hidden(entry.name):
                left_out += count_images(Path(entry.path))
                continue
            is_folder = False
            with suppress(OSError):  # links in a circle
                is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder:
                waiting.append(entry.path)
            else:
                found.append(Path(entry.path))
    warn_of_hidden(folder, left_out)
    return sorted(found)


def count_images(path: Path) -> int:
    """Number of files called like images: the path itself, or those below it if it is a folder."""
    is_folder = path.is_dir() and not path.is_symlink()
    files = files_below(path, hidden=True) if is_folder else [path]
    return sum(is_called_image(file.name) for file in files)


def is_called_image(name: str) -> bool:
    """Whether a name is that of an image, and not of what macOS leaves beside it (`._a.jpg`)."""
    return name.lower().endswith(_PHOTOGRAPHS) and not name.startswith("._")


def warn_of_hidden(place: Path, count: int) -> None:
    """Say how many hidden images of a folder or an archive are left out, if there are any."""
    if count:
        _logger.warning("%s: %d hidden images are left out; rename them to have them", place, count)


def _entries(folder: str) -> list[os.DirEntry[str]] | None:
    """The entries of a folder; None if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        _logger.warning("%s: the folder cannot be listed: %s", folder[:200], error.strerror)
        return None


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden or system file, not data: dot files, Thumbs.db etc.

    Example:
        >>> [name for name in ("a.jpg", ".a.jpg", "Thumbs.db", "..") if is_hidden(name)]
        ['.a.jpg', 'Thumbs.db']
    """
    dot = name.startswith(".") and name not in (".", "..")
    return dot or name.casefold() in _LEFT_BEHIND


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; an existing folder is accepted.

    Raises:
        OSError: If it cannot be created.
    """
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
