"""Commands in processes of their own: killed, starved, measured.

The processes are forked by a server that has imported everything once, so that starting one takes
milliseconds instead of seconds.
"""

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["boxpromptiml.inference.localize", "boxpromptiml.inference.checkpoint",
     "data_prep.import_dataset", "data_prep.check", "data_prep.pseudo_masks",
     "boxpromptiml.cli", "data_prep.__main__", "jsonargparse"]
)  # fmt: skip

Fault = Callable[[], None]  # called in the child before the command; must be importable


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Exit status; -N: killed by signal N; None: it hung and was killed.
        said: What it wrote to stdout and stderr.
        seconds: Wall clock.
        peak: Largest resident size in MiB, of the process alone.
    """

    status: int | None
    said: str
    seconds: float
    peak: float

    @property
    def crashed(self) -> bool:
        """Whether it hung, died of a signal or left a traceback."""
        return self.status is None or self.status < 0 or "Traceback" in self.said


class Command:
    """A command that runs in the background: `wait`, `kill`."""

    def __init__(self, words: Sequence[str], fault: Fault | None = None) -> None:
        """Start it.

        Args:
            words: `boxpromptiml …` or `data_prep …`.
            fault: Called in the child first.
        """
        handle, name = tempfile.mkstemp(suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._began = time.monotonic()
        self._process = _CONTEXT.Process(target=_child, args=(list(words), name, fault))
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()

    def wait(self, seconds: float = 600) -> Ended:
        """Wait for its end; after that time it counts as hung and is killed."""
        self._process.join(seconds)
        hung = self._process.is_alive()
        if hung:
            self._process.kill()
            self._process.join()
        status = None if hung else self._process.exitcode
        said = self._log.read_text(errors="replace")
        peak = self._log.with_suffix(".peak")
        most = float(peak.read_text()) if peak.exists() else 0.0
        self._log.unlink()
        peak.unlink(missing_ok=True)
        return Ended(status, said, time.monotonic() - self._began, most)


def run(words: Sequence[str], fault: Fault | None = None, seconds: float = 600) -> Ended:
    """Run a command to its end."""
    return Command(words, fault).wait(seconds)


def _child(words: list[str], log: str, fault: Fault | None) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ["COLUMNS"] = "200"
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, errors="backslashreplace")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    multiprocessing.set_start_method("fork", force=True)  # as it is on the command line
    if fault is not None:
        fault()
    if words[0] == "data_prep":
        from data_prep.__main__ import main
    else:
        from boxpromptiml.cli import main
    status = main(words[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(log).with_suffix(".peak").write_text(str(peak))
    sys.exit(status)
