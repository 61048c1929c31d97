"""Weights come from regular files on this machine, and nowhere else."""

import re
from pathlib import Path

from boxpromptiml.errors import UserError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:[:/]", re.IGNORECASE)  # Path("http://x") reads http:/x


def require_local_file(path: Path) -> None:
    """Raise UserError unless `path` is a regular file on this machine; links are followed."""
    refuse_address(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the weights file inside it")
    if not path.exists():
        raise UserError(f"{path}: no such weights file; check the path")
    if not path.is_file():
        raise UserError(f"{path}: is not a regular file; copy the weights to one")


def refuse_address(path: Path | str) -> None:
    """Raise UserError if `path` looks like http://host/file, s3://..., simplecache::http://..."""
    if _ADDRESS.match(str(path)):
        raise UserError(f"{path}: addresses are not opened; download it and give the local path")
