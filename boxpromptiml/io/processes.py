"""Start our own programs as child processes that end with this process, even if it is killed.

And how this process treats its own memory.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boxpromptiml.io.trust import own_path

_PARENT = "BOXPROMPTIML_CHILD_OF"
_SECONDS = 30  # that a process has to save its work after its parent ended
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt(3)
_TIED = "from boxpromptiml.io.processes import end_with_parent; end_with_parent(); "


def python_command(*words: str) -> list[str]:
    """The command line of a Python that imports nothing from the working directory.

    An untrusted numpy.py may lie there beside the photographs; `-m` and `-c` would import it first.
    """
    return [sys.executable, "-P", *words]


def child_environment() -> dict[str, str]:
    """The environment for a child process, in which it finds the same modules.

    Those in the working directory that the person trusts are found by a child that calls `trust`
    itself, or that Python's multiprocessing starts.

    A child that calls `end_with_parent` ends with this process.
    """
    paths = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *own_path()]
    found = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return os.environ | {"PYTHONPATH": found, _PARENT: str(os.getpid())}


@contextmanager
def environment_for_children() -> Iterator[None]:
    """Give `child_environment` to the child processes that other libraries start in the block."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", _PARENT)}
    os.environ.update(child_environment())
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def start_server(
    program: str, settings: object, handles: Collection[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a process of ours that talks through its stdin and stdout and has nothing to save.

    Args:
        program: Python code of one line.
        settings: What the process finds as JSON in its first argument.
        handles: File descriptors that it inherits.
    """
    return subprocess.Popen(  # noqa: S603 - our own program, no shell
        python_command("-c", _TIED + program, json.dumps(settings)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        pass_fds=handles, start_new_session=True,
        env=child_environment() | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of `start_server`; no effect on one that has ended."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
    process.wait()


def keep_freed_memory() -> None:
    """Let this process reuse its large buffers instead of returning them to the system.

    glibc returns a buffer of megabytes when it is freed, and the kernel has to clear pages for the
    next one, which takes two thirds as long as a network's arithmetic on a CPU. The peak of memory
    rises by up to a quarter. Only for a process that is ours. No effect without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def end_with_parent() -> None:
    """End this process when its parent ends, however that ends and whatever this process is doing.

    The parent is a process that used `child_environment`, or torchrun. When it ends, this process
    gets SIGTERM, so that a training saves a checkpoint, and is killed 30 s later. Of a distributed
    training on one machine only the first process saves; the others are killed at once.
    """
    name = os.environ.get(_PARENT)
    if name is None and "TORCHELASTIC_RUN_ID" in os.environ:
        name = str(os.getppid())
    if name is None or not name.isdecimal():
        return
    parent = int(name)
    if os.getppid() == parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    elif not Path(f"/proc/{parent}").exists():  # it ended before this process came here
        _end()
    # else this is a descendant of a child, which inherited the variable


def _watch(parent: int) -> None:
    """Wait until a process has ended that was the parent, then end this one."""
    with suppress(OSError):  # it is gone already, or the kernel is older than 5.3
        poll = select.poll()
        poll.register(os.pidfd_open(parent), select.POLLIN)
        poll.poll()
    while os.getppid() == parent:
        time.sleep(1)
    _end()


def _end() -> None:
    """End this process, which may hang: the kernel acts on SIGALRM, no code of ours is needed.

    A process that waits for another in native code, or is shutting down, runs no handler in Python.
    """
    signal.alarm(_SECONDS)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    os.kill(os.getpid(), signal.SIGTERM if first else signal.SIGKILL)
