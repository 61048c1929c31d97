"""What a checkpoint says of itself, so that a student is rebuilt from the file alone.

Lightning's own hyperparameters are not used: rebuilding from them imports whatever class the file
names. Ours are plain values, checked against a known shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import Student, StudentConfig
from boxpromptiml.weights import load_into, load_weights

CHECKPOINT_KEY = "boxpromptiml"
CHECKPOINT_VERSION = 1
_PREFIX = "student."


@dataclass(frozen=True)
class StudentCard:
    """Everything but the weights that localizing needs.

    Attributes:
        student: The network's configuration.
        input: What the network is fed.
        threshold: A pixel is flagged where its probability is strictly above.
    """

    student: StudentConfig
    input: NetworkInput
    threshold: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema_version": CHECKPOINT_VERSION,
            "student": self.student.to_dict(),
            "input": self.input.to_dict(),
            "threshold": self.threshold,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StudentCard":
        """Inverse of `to_dict`; UserError for anything else."""
        if values.get("schema_version") != CHECKPOINT_VERSION:
            raise UserError(
                f"checkpoint schema {values.get('schema_version')}, this version reads "
                f"{CHECKPOINT_VERSION}; update boxpromptiml or train again"
            )
        try:
            return cls(
                StudentConfig.from_dict(values["student"]),
                NetworkInput.from_dict(values["input"]),
                float(values["threshold"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"the checkpoint's description is incomplete: {error}") from error


def load_student(path: Path) -> tuple[Student, StudentCard]:
    """A trained student in evaluation mode, and its card.

    Raises:
        UserError: If the file is no checkpoint of `boxpromptiml fit`, or a damaged one.
    """
    checkpoint = load_weights(path)
    if CHECKPOINT_KEY not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path}: not a checkpoint of `boxpromptiml fit`")
    card = StudentCard.from_dict(checkpoint[CHECKPOINT_KEY])
    student = Student(card.student)
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    load_into(student, state, path)
    return student.eval(), card
