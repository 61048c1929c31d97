"""Start our own programs as child processes that end with this process, even if it is killed."""

import os
import signal
import sys
import threading
import time

_PARENT = "BOXPROMPTIML_CHILD_OF"
_SECONDS = 1.0


def python_command(*words: str) -> list[str]:
    """The command line of a Python that imports nothing from the working directory.

    An untrusted numpy.py may lie there beside the photographs; `-m` and `-c` would import it first.
    """
    return [sys.executable, "-P", *words]


def child_environment() -> dict[str, str]:
    """The environment for a child process, in which it finds the same modules.

    A child that calls `end_with_parent` ends with this process.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"PYTHONPATH": paths, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Send this process SIGTERM within a second after its parent ended.

    It only works if the parent used `child_environment`. A training still saves its checkpoint.
    """
    parent = os.environ.get(_PARENT)
    if parent == str(os.getppid()):
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
