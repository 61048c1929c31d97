"""What every command does to its process before it starts to work."""

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PARENT = "BOXPROMPTIML_PARENT"  # environment variable: process id of the study that started us
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def prepare_process() -> None:
    """Make the process fit for any surrounding.

    Standard streams that the caller has closed are opened on /dev/null, names of files that are no
    text can be printed, child processes import nothing from the working directory, and a command
    that a study has started ends with it.
    """
    _open_standard_streams()
    if Path(__file__).parents[2] != Path.cwd():  # else our own packages are found there
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    if PARENT in os.environ:
        _end_with_parent(int(os.environ[PARENT]))


def _open_standard_streams() -> None:
    """A file that we open would otherwise get the number of a closed stream, and be written to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    with suppress(AttributeError):  # some other object that collects text
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _end_with_parent(parent: int) -> None:
    """Have the system kill this process when the one that started it dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 - few commands need it

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        os.kill(parent, 0)
    except ProcessLookupError:  # it died before we asked
        os._exit(1)


def log_to_stderr() -> None:
    """Send our own log messages to stderr; other libraries configure theirs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    for name in ("boxpromptiml", "data_prep"):
        logging.getLogger(name).handlers = [handler]
