"""The processes of a study, so that none outlives it."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO

from boxpromptiml.errors import UserError


class Children:
    """The processes at work, so that none outlives the study."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._starting = Lock()

    def run(self, words: Sequence[str], log: Path) -> int:
        """Run `python -m WORDS` with its output added to a file; the exit status.

        Raises:
            UserError: After `stop`.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = self._start(words, stream)
            try:
                return process.wait()
            finally:
                self._running.discard(process)

    def _start(self, words: Sequence[str], stream: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._starting:  # so that `stop` misses none
            if self._stopped:
                raise UserError("stopped before it began")
            process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                [sys.executable, "-m", *words], stdout=stream, stderr=subprocess.STDOUT
            )
            self._running.add(process)
        return process

    def stop(self) -> None:
        """Ask all to end, and start no other; training saves where it stands."""
        with self._starting:
            self._stopped = True
        for process in list(self._running):
            process.send_signal(signal.SIGTERM)
        for process in list(self._running):
            process.wait()


@contextmanager
def children_die_with_us() -> Iterator[Children]:
    """Processes that are stopped when the block is left by an exception, Ctrl-C or SIGTERM."""
    children = Children()

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield children
    except BaseException:
        children.stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
