"""One importer a dataset: raw folder as downloaded to a list of samples."""

from typing import NamedTuple

from boxpromptiml.errors import RejectedInput
from boxpromptiml.records import Sample


class Imported(NamedTuple):
    """What an importer found: rows in = samples + rejected."""

    samples: list[Sample]
    rejected: list[RejectedInput]
