"""The rows of manifests that a stage uses, checked before anything is opened."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from boxpromptiml.data.supervision import Source
from boxpromptiml.errors import UserError
from boxpromptiml.manifest import read_manifest
from boxpromptiml.records import Split


def read_sources(paths: Sequence[Path], split: Split | None = None) -> list[Source]:
    """The rows of a split, or all rows, in the order of the manifests.

    Raises:
        UserError: If a manifest is missing or wrong, has no such row, or shares ids with another.
    """
    manifests = [read_manifest(path) for path in paths]
    sources = [Source(manifest, sample) for manifest in manifests for sample in manifest.samples]
    chosen = of_split(sources, split, ", ".join(str(path) for path in paths))
    _refuse_duplicate_ids(chosen)
    return chosen


def of_split(sources: Sequence[Source], split: Split | None, names: str) -> list[Source]:
    """Those of a split, or all; UserError, naming the manifests, if there are none."""
    chosen = [source for source in sources if split in (None, source.sample.split)]
    if not chosen:
        if split is None:
            raise UserError(f"{names}: no rows")
        raise UserError(f'no row of {names} has "split": "{split}"')
    return chosen


def require_truth(sources: Sequence[Source], place: str) -> None:
    """UserError unless every image can be scored; `place` names where they were given."""
    unknown = [s.sample.id for s in sources if s.sample.label != 0 and s.sample.mask is None]
    if unknown:
        raise UserError(
            f"{len(unknown)} images of {place} can not be scored, for example {unknown[0]!r}: they "
            "have neither a ground-truth mask nor the label 0 (authentic)"
        )


def _refuse_duplicate_ids(sources: Sequence[Source]) -> None:
    counts = Counter(source.sample.id for source in sources)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UserError(
            f"{len(twice)} ids are in more than one manifest, for example {twice[0]!r}; import "
            "them again with different --name"
        )
