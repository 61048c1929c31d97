"""Child processes that end with the process that started them, even if that one is killed."""

import os
import signal
import threading
import time

_PARENT = "BOXPROMPTIML_CHILD_OF"
_SECONDS = 1.0


def child_environment() -> dict[str, str]:
    """The environment for a child process that calls `end_with_parent`."""
    return os.environ | {_PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Send this process SIGTERM within a second after its parent ended.

    Only if the parent started it with `child_environment`. A training then still saves its
    checkpoint.
    """
    parent = os.environ.get(_PARENT)
    if parent == str(os.getppid()):
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
