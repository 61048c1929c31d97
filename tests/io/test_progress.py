"""`parallel`: order, memory, early stops, and what becomes of workers."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import progress
from boxpromptiml.io.progress import parallel, track


def double(value: int) -> int:
    return 2 * value


def slow_at_first(value: int) -> int:
    time.sleep(0.2 if value == 0 else 0)
    return value


def die_at_three(value: int) -> int:
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def refuse(value: int) -> int:
    raise RejectedInput("a.png", "odd", f"is {value}")


def full_disk(value: int) -> int:
    raise OSError(28, "No space left on device", f"/full/{value}")


def pid_after(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_results_come_in_the_order_of_the_items(workers: int, chunk: int) -> None:
    assert list(parallel(double, range(21), workers, "doubling", chunk=chunk)) == [*range(0, 42, 2)]
    assert list(parallel(slow_at_first, range(9), workers, "waiting")) == [*range(9)]
    assert not list(parallel(double, [], workers, "nothing"))


def test_the_work_is_done_in_other_processes() -> None:
    assert set(parallel(pid_after, range(2), 0, "asking")) == {os.getpid()}
    pids = set(parallel(pid_after, range(12), 2, "asking"))
    assert os.getpid() not in pids


class Counted(list[int]):
    """Remembers how far it was read."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read = max(self.read, index.stop)
        return super().__getitem__(index)


def test_workers_run_a_bounded_number_of_items_ahead() -> None:
    items = Counted(range(1000))
    results = parallel(double, items, 2, "doubling")
    assert next(results) == 0
    time.sleep(0.2)
    assert items.read <= 2 * 4
    assert isinstance(results, Generator)
    results.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_caller_that_has_enough_may_stop(workers: int) -> None:
    for result in parallel(double, range(10**6), workers, "doubling", total=3):
        if result == 4:
            break


def test_a_killed_worker_is_one_clear_error() -> None:
    results = parallel(die_at_three, range(9), 1, "counting")
    with pytest.raises(UserError, match=r"counting: a worker was killed.*fewer --num_workers"):
        list(results)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_work_arrive_as_they_are(workers: int) -> None:
    with pytest.raises(RejectedInput, match="is 0"):
        list(parallel(refuse, range(3), workers, "refusing"))
    with pytest.raises(OSError, match="No space left") as caught:
        list(parallel(full_disk, range(3), workers, "writing"))
    assert caught.value.filename == "/full/0"


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(UserError, match="num_workers must be 0 or more, got -1"):
        list(parallel(double, [1], -1, "doubling"))


_JOB = """
import os, signal, sys, time
from pathlib import Path
from boxpromptiml.io.progress import parallel

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def work(item):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(0.05)
    return item

for _ in parallel(work, range(10**4), 2, "working"):
    pass
"""


def _job(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A job with two workers that are at work, and their process ids."""
    process = subprocess.Popen(
        [sys.executable, "-c", _JOB, str(folder)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process, [int(path.name) for path in folder.iterdir()]


def _ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_job(tmp_path: Path, how: signal.Signals) -> None:
    process, workers = _job(tmp_path)
    assert len(workers) == 2
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert _ended(workers)
    if how == signal.SIGINT:
        assert said.count("Traceback") == 1  # the job's own; this program does not catch it
        assert said.rstrip().endswith("KeyboardInterrupt")


def test_without_a_terminal_a_line_appears_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    assert list(track(range(7), "resizing", 7)) == [*range(7)]
    assert capsys.readouterr().err.splitlines() == [
        "resizing 3/7, 0.2/s",
        "resizing 6/7, 0.2/s",
    ]


def test_quiet_commands_show_no_progress(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("boxpromptiml"), "level", logging.ERROR)
    monkeypatch.setattr(progress, "_SECONDS_PER_LINE", 0.0)
    assert list(track(range(7), "resizing", 7)) == [*range(7)]
    progress.note("runtime: torch")
    assert not capsys.readouterr().err
