"""Watching processes that are nobody's child here."""

import time
from collections.abc import Callable
from pathlib import Path


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    return _state_and_parent(process)[0] not in ("Z", "gone")


def children_of(process: int) -> list[int]:
    """The running children of a process."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [n for n in numbers if _state_and_parent(n)[1] == str(process) and alive(n)]


def _state_and_parent(process: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "gone", ""
    return fields[0], fields[1]


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds, at most so long; whether it does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()
