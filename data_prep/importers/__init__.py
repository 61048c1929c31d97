"""Importers: the images of a dataset, their masks, and known errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.records import Sample


class Imported(NamedTuple):
    """Result of an import: every item of the source is a sample or a rejection.

    Attributes:
        samples: Usable images.
        rejected: Unusable items.
        notes: Notes for the manifest's header.
        names: Name of each sample's image in the source, by the sample's id.
    """

    samples: list[Sample]
    rejected: list[RejectedInput]
    notes: dict[str, Any] = {}  # noqa: RUF012 - never changed
    names: dict[str, str] = {}  # noqa: RUF012 - never changed


class NothingImported(UserError):  # noqa: N818 - says what happened
    """Nothing in a source looks like the dataset or can be used; `rejected` says why."""

    def __init__(self, message: str, rejected: Sequence[RejectedInput]) -> None:
        super().__init__(message)
        self.rejected = list(rejected)
