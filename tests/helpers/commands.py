"""Commands in processes of their own: signalled, killed, two at once.

The processes are forked by a server that has imported everything once, so that starting one takes
milliseconds instead of seconds.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["boxpromptiml.cli.lightning", "boxpromptiml.inference.localize",
     "boxpromptiml.annotate.command",
     "boxpromptiml.inference.checkpoint", "boxpromptiml.tasks.distill",
     "data_prep.import_dataset", "data_prep.check", "data_prep.pseudo_masks",
     "data_prep.__main__"]
)  # fmt: skip

Fault = Callable[[], None]  # called in the child before the command; must be importable
Words = Sequence[str] | Callable[[], object]  # `boxpromptiml …`, `data_prep …`, or such a function


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Exit status; -N: killed by signal N; None: it hung and was killed.
        said: What it wrote to stdout and stderr.
        seconds: Wall clock.
    """

    status: int | None
    said: str
    seconds: float

    @property
    def crashed(self) -> bool:
        """Whether it hung, died of a signal or left a traceback."""
        return self.status is None or self.status < 0 or "Traceback" in self.said


class Command:
    """A command that runs in the background: `signal`, `wait`."""

    def __init__(
        self,
        words: Words,
        fault: Fault | None = None,
        environment: Mapping[str, str] | None = None,
        path: Path | None = None,
    ) -> None:
        """Start it.

        Args:
            words: `boxpromptiml …`, `data_prep …`, or a function to call instead.
            fault: Called in the child first.
            environment: Variables that it gets besides those of this process.
            path: A folder with modules that the command may import.
        """
        handle, name = tempfile.mkstemp(suffix=".log")
        os.close(handle)
        self._log = Path(name)
        self._began = time.monotonic()
        variables = dict(os.environ) | dict(environment or {})
        self._process = _CONTEXT.Process(target=_child, args=(words, name, fault, variables, path))
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    @property
    def said(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            with suppress(ProcessLookupError):  # it ended since, or its end is not yet noticed
                os.kill(self.pid, number)

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
        said = self.said
        self._log.unlink()
        return Ended(status, said, time.monotonic() - self._began)


def run(
    words: Words,
    fault: Fault | None = None,
    seconds: float = 600,
    environment: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Ended:
    """Run a command to its end."""
    return Command(words, fault, environment, path).wait(seconds)


def run_as_torchrun(
    words: Sequence[str],
    processes: int,
    environment: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> list[Ended]:
    """Run a command in several processes, with the variables that torchrun gives them.

    Returns:
        How they ended, by rank.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = dict(environment or {}) | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    started = [
        Command(words, None, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, path)
        for rank in range(processes)
    ]
    return [command.wait(300) for command in started]


def _child(
    words: Words, log: str, fault: Fault | None, variables: dict[str, str], path: Path | None
) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.clear()
    os.environ.update(variables | {"COLUMNS": "200"})
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, errors="backslashreplace")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    multiprocessing.set_start_method("fork", force=True)  # as it is on the command line
    if path is not None:
        sys.path.insert(0, str(path))
    if fault is not None:
        fault()
    if callable(words):
        words()
        return
    if words[0] == "data_prep":
        from data_prep.__main__ import main as prepare

        sys.exit(prepare([*words[1:]]))
    from boxpromptiml.cli import main

    sys.exit(main([*words[1:]]))
