"""Scores of a localizer on degraded images, one degradation at a time.

Images are degraded at their stored size, then fed to the network as in `test`; maps are scored at
the stored size, as in `metrics.pixel`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from boxpromptiml.data.dataset import DatasetItem, EvalDataset
from boxpromptiml.inference.copy_move import add_copies
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.maps import FlipMean, probability_maps
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.sources import Source
from boxpromptiml.metrics.bootstrap import Interval, mean_interval
from boxpromptiml.metrics.pixel import pixel_fpr, score_image
from boxpromptiml.models.bayes import region_posterior
from boxpromptiml.records import ImageArray, ProbArray
from boxpromptiml.synth.degradation import Degradation

SCORES = ("pixel_f1", "iou", "auc", "false_alarm_pixels")


class _Image(NamedTuple):
    """Scores of one image; nan where a score is undefined."""

    scores: tuple[float, float, float, float]  # in the order of `SCORES`


class Scored(NamedTuple):
    """Scores under one degradation.

    Attributes:
        means: Mean scores with intervals, by the names in `SCORES`.
        f1: Pixel F1 of every source, in order; nan where it is undefined.
        resized: Number of images whose size the degradation changed.
    """

    means: dict[str, Interval]
    f1: npt.NDArray[np.float64]
    resized: int


@dataclass(frozen=True)
class _Watched(Degradation):
    """A degradation that also counts the images whose size it changes."""

    resized: list[bool] = field(default_factory=list, compare=False)

    def __call__(self, image: ImageArray, seed: int, sample_id: str) -> ImageArray:
        degraded = super().__call__(image, seed, sample_id)
        self.resized.append(degraded.shape != image.shape)
        return degraded


@dataclass(frozen=True)
class DegradedTest:
    """Localizer, images and settings that all degradations share.

    Attributes:
        localizer: The localizer to score.
        sources: The images, with ground truth.
        threshold: A pixel is flagged strictly above it.
        seed: Seed of the noise.
        batch_size: Images per forward pass.
    """

    localizer: Localizer
    sources: Sequence[Source]
    threshold: float
    seed: int = 0
    batch_size: int = 8

    def score(self, condition: Degradation, progress: str = "") -> Scored:
        """Localize and score all images after a degradation.

        Args:
            condition: The degradation; it draws the same noise for an image every time.
            progress: Follows the condition's name in the progress bar on stderr.

        Returns:
            Mean scores with intervals, the pixel F1 of every image in the order of the sources, and
            how many images the degradation resized.

        Raises:
            RejectedInput: If an image or its truth cannot be read; none is left out silently.
        """
        watched = _Watched(condition.name, condition.level)
        images = list(self._images(watched, f"{condition} {progress}"))
        columns = np.array([image.scores for image in images], np.float64).T
        intervals = [mean_interval(column, self.groups) for column in columns]
        means = dict(zip(SCORES, intervals, strict=True))
        return Scored(means, columns[SCORES.index("pixel_f1")], sum(watched.resized))

    @property
    def groups(self) -> list[str]:
        """The group of every source, in order."""
        return [source.sample.group for source in self.sources]

    def _images(self, condition: Degradation, title: str) -> Iterator[_Image]:
        network_input, segmenter = self.localizer.spec.input, self.localizer.segmenter
        dataset = EvalDataset(self.sources, network_input, True, segmenter, condition, self.seed)
        starts = range(0, len(dataset), self.batch_size)
        for start in track(starts, title, len(starts)):
            sources = self.sources[start : start + self.batch_size]
            items = [dataset[start + place] for place in range(len(sources))]
            for item, prob in zip(items, self._maps(items), strict=True):
                yield self._scored(item, prob)

    def _maps(self, items: Sequence[DatasetItem]) -> list[ProbArray]:
        """Probabilities (H, W) at the stored size, with flips and copies as the file says."""
        spec, network = self.localizer.spec, self.localizer.network
        images = [item.image.numpy() for item in items]
        sizes = [item.size for item in items]
        maps, _ = probability_maps(FlipMean(network) if spec.flips else network, images, sizes)
        prior = spec.refinement.prior if spec.refinement else "image"
        found = []
        for item, image, prob in zip(items, images, maps, strict=True):
            if item.regions is not None:
                prob = region_posterior(prob, item.regions.numpy(), prior)  # noqa: PLW2901
            seen = np.rint(image[:3].transpose(1, 2, 0) * 255).astype(np.uint8)
            found.append(add_copies(prob, seen) if spec.copy_move else prob)
        return found

    def _scored(self, item: DatasetItem, prob: ProbArray) -> _Image:
        truth = np.zeros(item.size, bool) if item.truth is None else item.truth.numpy() != 0
        if truth.any():
            scores = score_image(prob, truth, self.threshold)
            return _Image((scores.f1, scores.iou, scores.auc, math.nan))
        alarm = pixel_fpr(prob, self.threshold)
        return _Image((math.nan, math.nan, math.nan, alarm))
