"""One small file a dataset: what is an image, what its mask, and what is known to be wrong."""

from typing import Any, NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Sample


class Imported(NamedTuple):
    """What an importer found: rows in = samples + rejected.

    Attributes:
        notes: For the manifest's header.
    """

    samples: list[Sample]
    rejected: list[RejectedInput]
    notes: dict[str, Any] = {}  # noqa: RUF012 - never changed
