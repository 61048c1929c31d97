"""What the campaign measures: one row of the table a figure."""

from dataclasses import dataclass

UNKNOWN = "not run"


@dataclass(frozen=True, slots=True)
class Figure:
    """One promise and what was measured.

    Attributes:
        number: Of the promise, A1 to A16.
        demand: What must hold, in a few words.
        reached: What was measured, with its numbers.
        met: Whether it holds; None where it could not be run here, `reached` says why.
        faults: What went against the demand, one entry a case, for a person who looks for it.
    """

    number: str
    demand: str
    reached: str
    met: bool | None
    faults: tuple[str, ...] = ()


def judged(number: str, demand: str, reached: str, faults: list[str]) -> Figure:
    """The figure of a run that was made: met where nothing went against it."""
    return Figure(number, demand, reached, not faults, tuple(faults))
