"""Counts which images a training learned from, and stops it if they are not those it was given."""

from typing import get_args

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.records import Batch, Supervised

_KINDS = get_args(Supervised)
_READ, _LOST = 0, 1


class SupervisionCount:
    """Images of an epoch by their supervision: read, and lost because a file cannot be read.

    Attributes:
        counts: (2, len(Supervised)) numbers of images read and lost.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(2, len(_KINDS), dtype=torch.int64)

    def add(self, batch: Batch) -> None:
        """Count the images of a training batch."""
        kinds = batch.get("supervision", [])
        for kind, lost in zip(kinds, batch.get("lost", [False] * len(kinds)), strict=True):
            self.counts[int(lost), _KINDS.index(kind)] += 1

    @property
    def manipulated(self) -> tuple[int, int]:
        """Numbers of manipulated images read and lost."""
        without = self.counts.clone()
        without[:, _KINDS.index("authentic")] = 0
        read, lost = without.sum(dim=1).tolist()
        return read, lost

    def refuse_loss(self, listed: int, finished: bool) -> None:
        """Stop a training that lost what it was to learn from.

        Args:
            listed: Number of manipulated images in the training set.
            finished: Whether the epoch is over.

        Raises:
            UserError: If more than half of the listed manipulated images cannot be read; at the end
                of an epoch also if most of those it contained could not be read.
        """
        read, lost = self.manipulated
        if 2 * lost > listed or (finished and lost > read):
            raise UserError(
                f"{lost} manipulated training images could not be read, {read} could, {listed} are "
                "listed (see the warnings): the network would learn from the others alone. Are the "
                "manifest's image_root, images and masks still there?"
            )

    def __str__(self) -> str:
        """Such as `4 manipulated (4 mask), 2 authentic`."""
        read, lost = self.counts.tolist()
        kinds = ", ".join(
            f"{count} {kind}"
            for kind, count in zip(_KINDS, read, strict=True)
            if count and kind != "authentic"
        )
        parts = [
            f"{self.manipulated[_READ]} manipulated" + (f" ({kinds})" if kinds else ""),
            f"{read[_KINDS.index('authentic')]} authentic",
        ]
        return ", ".join([*parts, *([f"{sum(lost)} could not be read"] if sum(lost) else [])])
