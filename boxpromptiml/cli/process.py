"""Set-up of the process, before any command starts to work."""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LEVELS = {
    "-q": logging.ERROR,
    "--quiet": logging.ERROR,
    "-v": logging.DEBUG,
    "--verbose": logging.DEBUG,
}


def prepare_process() -> None:
    """Prepare the process for any environment.

    Closed standard streams are opened on /dev/null, file names that are not UTF-8 can be printed,
    and child processes import nothing from the working directory. When the process ends, no garbage
    is collected any more: with PyTorch's modules that takes up to five seconds.
    """
    atexit.register(gc.freeze)
    _open_standard_streams()
    if Path(__file__).parents[2] != Path.cwd():  # else our own packages are found there
        os.environ.setdefault("PYTHONSAFEPATH", "1")


def _open_standard_streams() -> None:
    """Open closed standard streams, lest another file gets their number and is written to."""
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


def take_verbosity(words: Sequence[str]) -> tuple[list[str], int]:
    """A command line without -v and -q, and the level of the messages that it asks for.

    Example:
        >>> take_verbosity(["localize", "-q", "--images", "a.jpg"])
        (['localize', '--images', 'a.jpg'], 40)
    """
    levels = [_LEVELS[word] for word in words if word in _LEVELS]
    return [word for word in words if word not in _LEVELS], (levels or [logging.INFO])[-1]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send our own log messages to stderr; other libraries configure theirs.

    Args:
        level: Of the messages to show. Progress is shown up to INFO, see `io.progress`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain())
    for name in ("boxpromptiml", "data_prep"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)


class _Plain(logging.Formatter):
    """The message alone where nothing is wrong, else after its level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname} {text}"
