"""What options accept: ranges of numbers, and options that act only together with another one."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import AllowInfNan

from boxpromptiml.errors import UserError

AtLeastOne = Annotated[int, Ge(1), Le(2**31 - 1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
ProcessCount = Annotated[int, Ge(0), Le(1024)]
Amount = Annotated[float, Ge(0), AllowInfNan(False)]

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Need:
    """A rule: some options act only while another one has one of some values.

    Attributes:
        options: Names of the options.
        other: Name of the option that they depend on.
        values: Values of the other one; none for every value but its default.
    """

    options: tuple[str, ...]
    other: str
    values: tuple[object, ...] = ()

    def refuse(self, given: Callable[[str], object], standard: Callable[[str], object]) -> None:
        """Refuse an option that is not at its default while it has no effect.

        Args:
            given: Value of an option by its name.
            standard: Default of an option by its name.

        Raises:
            UserError: Names the option and the one that it depends on.
        """
        other = given(self.other)
        if other in self.values if self.values else other != standard(self.other):
            return
        for option in self.options:
            if given(option) != standard(option):
                raise UserError(f"--{option} has no effect {_state(self.other, other)}")


def needs(options: str, other: str, *values: object) -> Callable[[Command], Command]:
    """Refuse options that are not at their default while they have no effect.

    A decorator of a command.

    Args:
        options: Names of the options that may have no effect, with spaces between them.
        other: Name of the option that they depend on.
        values: Values of the other one for which they act; none for all but its default.

    Example:
        >>> @needs("jitter", "copies")
        ... def job(copies: int = 1, jitter: float = 0.05) -> None: ...
        >>> job(copies=5, jitter=0.1)
        >>> job(jitter=0.1)
        Traceback (most recent call last):
        boxpromptiml.errors.UserError: --jitter has no effect with --copies 1; leave one of them out
    """
    need = Need(tuple(options.split()), other, values)

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        standard = {name: p.default for name, p in signature.parameters.items()}

        @functools.wraps(command)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = standard | signature.bind(*args, **kwargs).arguments
            need.refuse(given.__getitem__, standard.__getitem__)
            return command(*args, **kwargs)

        checked.needs = (need, *needs_of(command))  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate


def needs_of(command: Callable[..., Any]) -> tuple[Need, ...]:
    """The rules of a command."""
    rules: tuple[Need, ...] = getattr(command, "needs", ())
    return rules


def _state(option: str, value: object) -> str:
    if value is None:
        return f"without --{option}"
    text = str(value).lower() if isinstance(value, (bool, Path)) else value
    return f"with --{option} {text}; leave one of them out"
