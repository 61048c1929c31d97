"""The errors a user can cause, each with a message that says what to do.

Everything else is a bug and keeps its traceback.
"""

import re
from pathlib import Path

# Exit statuses of every command; besides these 130 after Ctrl-C and 143 after SIGTERM.
EXIT_OK, EXIT_FAILED, EXIT_WRONG_USE, EXIT_REJECTED = 0, 1, 2, 3


_COMMANDS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_LONG = re.compile(r"\S{1000,}")  # letters without a space, such as a path that nothing can have


def shortened(message: str) -> str:
    """A message whose overlong words have lost their middle, and without a terminal's commands.

    Example:
        >>> len(shortened("x" * 100_000 + ": no such file"))
        416
    """
    plain = _COMMANDS.sub(lambda code: repr(code[0])[1:-1], message)
    return _LONG.sub(lambda word: f"{word[0][:200]}...{word[0][-200:]}", plain)


class UserError(ValueError):
    """A mistake in the user's input: a path, a key, a file's content.

    The command line prints the message without a traceback and exits with status 1.
    """


class RejectedInput(UserError):  # noqa: N818 - a record of errors.jsonl as much as an error
    """One input (image, mask, annotation) cannot be used; the rest of the job continues.

    Args:
        path: The file that was rejected, as the user named it.
        reason: Short stable code such as `truncated` or `too_many_pixels`, for `errors.jsonl`.
        message: One sentence for a person, with a remedy where one is known.
    """

    def __init__(self, path: str | Path, reason: str, message: str) -> None:
        super().__init__(path, reason, message)
        self.path = str(path)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return shortened(f"{self.path}: {self.message} [{self.reason}]")

    def as_row(self) -> dict[str, str]:
        """The row of `errors.jsonl` for this rejection."""
        return {"path": self.path, "reason": self.reason, "message": self.message}
