"""Which rows of manifests are trained on, and what each of them teaches."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from boxpromptiml.data.supervision import Lesson, SourceWeights, Supervision, lesson
from boxpromptiml.errors import UserError
from boxpromptiml.manifests.sources import Source, Sources
from boxpromptiml.manifests.splits import nested_share
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Sample

log = logging.getLogger(__name__)

_HINTS = {
    "pseudo": ": run `python -m data_prep pseudo-masks` and train on its manifest.jsonl",
    "box": ": import boxes first",
    "mask": ": try --data.supervision=pseudo or box",
    "mixed": ": see --data.weights; a source of weight 0 is not used",
}


class Chosen(NamedTuple):
    """What `Selection.choose` keeps: the sources, and the sorted names of their data sets."""

    sources: Sources
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """What is trained on; see `LocalizationData` for the meaning of the fields."""

    supervision: Supervision
    weights: SourceWeights
    include_authentic: bool = True
    share: float = 1.0
    seed: int = 0

    def lesson(self, sample: Sample) -> Lesson | None:
        """What a sample teaches, None if nothing."""
        return lesson(sample, self.supervision, self.weights)

    def choose(self, sources: Sources) -> Chosen:
        """The sources to train on; says how many are left out and why.

        Raises:
            UserError: If no manipulated one is left.
        """
        flags = np.zeros(len(sources := self._shared(sources)), bool)
        left_out: Counter[str] = Counter()
        datasets: set[str] = set()
        manipulated = False
        for place, (_, sample) in enumerate(sources):
            if sample.label == 0 and not self.include_authentic:
                left_out["authentic (include_authentic is false)"] += 1
            elif self.lesson(sample) is None:
                left_out[f"without what `{self.supervision}` supervision needs"] += 1
            else:
                flags[place] = True
                datasets.add(sample.dataset)
                manipulated |= sample.label == 1
        for reason, count in left_out.items():
            log.warning("%d training images left out: %s", count, reason)
        if not manipulated:
            raise UserError(
                f"no manipulated training image has what `{self.supervision}` supervision needs"
                + _HINTS.get(self.supervision, "")
            )
        return Chosen(sources.where(flags), tuple(sorted(datasets)))

    def _shared(self, sources: Sources) -> Sources:
        """The share to train on, of every label."""
        if self.share == 1:
            return sources
        ids: set[str] = set()
        for label in (0, 1, None):
            some = (sample.id for _, sample in sources if sample.label == label)
            ids |= nested_share(some, self.share, self.seed)
        return sources.where(sample.id in ids for _, sample in sources)

    def taught_by_teacher(self, sources: Iterable[Source]) -> Iterable[Source]:
        """Those that teach with a pseudo-mask."""
        if self.supervision in ("pseudo", "mixed"):
            for source in sources:
                taught = self.lesson(source.sample)
                if taught is not None and taught.annotation == "pseudo":
                    yield source

    def warn_of_crops(self, sources: Iterable[Source], network_input: NetworkInput) -> None:
        """A crop may miss what its image's label speaks of; padding thins it out."""
        if network_input.fit == "resize" or self.supervision not in ("label", "mixed"):
            return
        odd = sum(
            sample.size != network_input.size and taught.annotation == "label"
            for _, sample in sources
            if sample.label and (taught := self.lesson(sample))
        )
        if odd:
            log.warning(
                "%d images teach with their label alone, but are cropped or padded to data.input"
                ".size=%s, and a crop may miss the manipulation: use data.input.fit=resize",
                odd, network_input.size,
            )  # fmt: skip
