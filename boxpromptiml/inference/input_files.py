"""Which files a command line means, and how what is made of them is named."""

import os
from collections.abc import Sequence
from pathlib import Path


def find_inputs(patterns: Sequence[str], out: Path) -> list[tuple[Path, Path]]:
    """Files behind paths, folders and globs, as (file, folder that its name is relative to).

    A path that leads nowhere stays in the list, so that it is reported and not lost. What lies
    below `out` is what we wrote ourselves, and left out.
    """
    found: list[tuple[Path, Path]] = []
    for pattern in patterns:
        path = Path(pattern)
        if _is_folder(path):
            found += [(file, path) for file in sorted(path.rglob("*")) if not _is_folder(file)]
        elif any(c in pattern for c in "*?[") and not os.path.lexists(path):
            anchor = Path(path.anchor or ".")
            relative = str(path.relative_to(path.anchor)) if path.anchor else pattern
            matches = (file for file in sorted(anchor.glob(relative)) if not _is_folder(file))
            found += [(file, file.parent) for file in matches]
        else:
            found.append((path, path.parent))
    ours = out.resolve()
    return [pair for pair in dict.fromkeys(found) if ours not in pair[0].absolute().parents]


def _is_folder(path: Path) -> bool:
    """Like `is_dir`, which raises for a link whose target is too long a name."""
    try:
        return path.is_dir()
    except OSError:
        return False


def name_inputs(inputs: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """A distinct output name for every file: its path without ending, made longer on a clash."""
    named: dict[str, Path] = {}
    taken: set[str] = set()
    seen: set[Path] = set()
    for file, root in inputs:
        if file in seen:
            continue
        seen.add(file)
        relative = file.relative_to(root)
        stem = relative.with_suffix("").as_posix()
        candidates = (stem, relative.as_posix().replace(".", "_"), f"{stem}_{len(named)}")
        names = [_safe(name, len(named)) for name in candidates]
        name = next((n for n in names if n.casefold() not in taken), f"n{len(named)}")
        taken.add(name.casefold())
        named[name] = file
    return named


def _safe(name: str, number: int) -> str:
    printable = name.isprintable() and not any(c in name for c in '\\:*?"<>|')
    return name if printable and len(name.encode("utf-8", "surrogatepass")) < 200 else f"n{number}"
