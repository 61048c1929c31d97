"""Code of others that a user named and trusts: teachers, networks, losses, datasets and so on.

Importing a module runs it. So an import path, which may stand in a checkpoint or a configuration of
a stranger, is followed only if the user said on the command line that it is trusted.
"""

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MaxLen
from pydantic import StringConstraints

from boxpromptiml.errors import UserError

_PATH = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)+")  # at least one dot
ImportPath = Annotated[str, MaxLen(200), StringConstraints(pattern=f"^{_PATH.pattern}$")]

_trusted: list[str] = []
_appended: set[str] = set()  # what `trust` has put on the path


def trust(names: Sequence[str]) -> None:
    """Say which code is trusted in this process, instead of what was before.

    The working directory becomes importable where something is trusted: last on the path, so that
    it shadows nothing.

    Args:
        names: Modules or what is in them, such as `mylab` or `mylab.teachers.Mine`. A module
            stands for everything in it.
    """
    _trusted[:] = names
    if names and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
        _appended.add(here)


def own_path() -> list[str]:
    """The path without the working directory that `trust` may have appended.

    A process that starts with that directory on its path would run a sitecustomize.py in it, which
    nobody named.
    """
    return [place for place in sys.path if place not in _appended]


def trusted_names() -> tuple[str, ...]:
    """The code that is trusted in this process."""
    return tuple(_trusted)


def is_import_path(text: str) -> bool:
    """Whether a text has the form of an import path with a dot, such as `mylab.Teacher`."""
    return _PATH.fullmatch(text) is not None


def trusted_object(path: str, option: str) -> Any:
    """Import what a path names, if it is trusted.

    Args:
        path: Import path, such as `mylab.Teacher`.
        option: The option or setting that named it, for messages.

    Raises:
        UserError: If it is not trusted, or not there.
    """
    if not any(path == name or path.startswith(f"{name}.") for name in _trusted):
        raise UserError(
            f"{option} names the code {path}, which would be run; if you know and trust it, add "
            f"--trust={path.partition('.')[0]}"
        )
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"{option}: {path}: there is no module {error.name!r}") from error
    except AttributeError as error:
        raise UserError(f"{option}: {path}: {module} has no {name!r}") from error


def trusted_instance(path: str, option: str, protocol: type) -> Any:
    """Call what a path names, without arguments.

    Args:
        path: Import path of a class or function, such as `mylab.Teacher`.
        option: The option or setting that named it, for messages.
        protocol: The result has its methods and attributes.

    Raises:
        UserError: As `trusted_object`, or it takes arguments, or something is missing.
    """
    make = trusted_object(path, option)
    try:
        made = make()
    except TypeError as error:
        raise UserError(f"{option}: {path}, called without arguments: {error}") from error
    for member in vars(protocol):
        if not member.startswith("_") and not hasattr(made, member):
            raise UserError(
                f"{option}: {path} has no {member!r}: see {protocol.__name__} in "
                "boxpromptiml/records.py"
            )
    return made
