"""The scores of a localizer on degraded images, one degradation at a time.

Images are degraded at their stored size, then fed to the network as always; maps are scored at the
stored size, by the policy of `metrics`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from boxpromptiml.bootstrap import Interval, mean_interval
from boxpromptiml.data.dataset import EvalDataset, Item
from boxpromptiml.data.supervision import Source
from boxpromptiml.metrics import false_alarm, score_image
from boxpromptiml.models.bayes import region_posterior
from boxpromptiml.models.inference import probability_maps
from boxpromptiml.records import ProbArray
from boxpromptiml.reporting.localize import Localizer
from boxpromptiml.synth.degradation import Degradation

SCORES = ("pixel_f1", "iou", "auc", "false_alarm_pixels")


class _Image(NamedTuple):
    """Scores of one image, nan where it has none, and its group."""

    group: str
    scores: tuple[float, float, float, float]  # in the order of `SCORES`


@dataclass(frozen=True)
class DegradedTest:
    """What stays the same for every degradation.

    Attributes:
        localizer: Of a checkpoint.
        sources: Images with ground truth.
        threshold: A pixel is flagged strictly above it.
        seed: Of the noise.
        batch_size: Images through the network at a time.
    """

    localizer: Localizer
    sources: Sequence[Source]
    threshold: float
    seed: int = 0
    batch_size: int = 8

    def score(self, condition: Degradation, progress: str = "") -> dict[str, Interval]:
        """Mean scores by name, as in `SCORES`; progress goes to stderr.

        Raises:
            RejectedInput: If an image or its truth cannot be read: none is left out.
        """
        images = list(self._images(condition, f"{condition} {progress}"))
        groups = [image.group for image in images]
        columns = zip(*(image.scores for image in images), strict=True)
        intervals = [mean_interval(np.array(column), groups) for column in columns]
        return dict(zip(SCORES, intervals, strict=True))

    def _images(self, condition: Degradation, title: str) -> Iterator[_Image]:
        network_input, segmenter = self.localizer.card.input, self.localizer.segmenter
        dataset = EvalDataset(self.sources, network_input, True, segmenter, condition, self.seed)
        starts = range(0, len(dataset), self.batch_size)
        for start in track(starts, title, console=Console(stderr=True)):
            sources = self.sources[start : start + self.batch_size]
            items = [dataset[start + place] for place in range(len(sources))]
            for source, item, prob in zip(sources, items, self._maps(items), strict=True):
                yield self._scored(source, item, prob)

    @torch.inference_mode()
    def _maps(self, items: Sequence[Item]) -> list[ProbArray]:
        """Probabilities (H, W) at the stored size, as `test` computes them."""
        images = [item.image.to(self.localizer.device) for item in items]
        sizes = [item.size for item in items]
        maps, _ = probability_maps(self.localizer.network, images, sizes)
        refinement = self.localizer.card.refinement
        prior = refinement.prior if refinement else "image"
        return [
            prob.numpy()
            if item.regions is None
            else region_posterior(prob.numpy(), item.regions.numpy(), prior)
            for item, prob in zip(items, maps, strict=True)
        ]

    def _scored(self, source: Source, item: Item, prob: ProbArray) -> _Image:
        truth = np.zeros(item.size, bool) if item.truth is None else item.truth.numpy() != 0
        if truth.any():
            scores = score_image(prob, truth, self.threshold)
            return _Image(source.sample.group, (scores.f1, scores.iou, scores.auc, math.nan))
        alarm = false_alarm(prob, self.threshold)
        return _Image(source.sample.group, (math.nan, math.nan, math.nan, alarm))
