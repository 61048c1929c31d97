"""Calibration of image scores, and thresholds for chosen false-alarm rates.

A score is calibrated if, of the images with score p, the fraction p is manipulated.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from boxpromptiml.errors import UserError
from boxpromptiml.metrics.histograms import Floats
from boxpromptiml.records import MaskArray, ProbArray

BINS = 15  # as Guo et al. 2017
_TOP = 65535  # thresholds are multiples of 1 / 65535, the steps of stored maps
_MIN_SLOPE, _MAX_SLOPE = 1e-3, 1e3


class Platt(NamedTuple):
    """The probability of a logit: sigmoid(logit / temperature + bias + copy_weight * copied).

    Attributes:
        temperature: Above 0; 1 changes nothing.
        bias: Added to the scaled logit; 0 changes nothing.
        copy_weight: Added for images with copied regions.
    """

    temperature: float
    bias: float
    copy_weight: float = 0.0

    def __call__(self, logits: Floats, copied: MaskArray | None = None) -> Floats:
        """Probabilities of logits of any shape.

        Args:
            logits: Of images.
            copied: Of the same shape, True for images with copied regions; None: no image has any.
        """
        odds = logits / self.temperature + self.bias
        if copied is not None:
            odds = odds + self.copy_weight * copied
        with np.errstate(over="ignore"):  # exp(-x) may be infinite: the probability is 0
            return np.asarray(1 / (1 + np.exp(-odds)))


def fit_platt(
    logits: Floats,
    manipulated: MaskArray,
    with_bias: bool = True,
    copied: MaskArray | None = None,
) -> Platt:
    """Fit temperature, bias and weight of copies by minimising the negative log-likelihood.

    Platt scaling (Platt 1999, Probabilistic outputs for support vector machines), with the paper's
    smoothed targets, which keep the fit finite where the scores separate the classes. Without a
    bias it is temperature scaling (Guo et al. 2017, On calibration of modern neural networks,
    arXiv 1706.04599). The weight of copies is ours.

    Args:
        logits: (N,) image scores before the sigmoid.
        manipulated: (N,) True for manipulated images.
        with_bias: False keeps the bias at 0.
        copied: (N,) True for images with copied regions; None keeps their weight at 0.

    Raises:
        UserError: If a class is absent, or higher logits do not mean that manipulation is likelier.
    """
    positives = int(manipulated.sum())
    negatives = len(manipulated) - positives
    if not (positives and negatives):
        raise UserError("image scores can only be calibrated on manipulated and authentic images")
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    target = torch.tensor(np.where(manipulated, high, low))
    spread = float(np.std(logits))
    given = torch.tensor(logits / (spread or 1.0))  # of order 1, so that the search converges
    matched = torch.tensor(np.zeros(len(logits)) if copied is None else copied.astype(np.float64))
    slope = torch.ones((), dtype=torch.float64, requires_grad=True)
    bias, weight = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    fitted = [slope] + [bias] * with_bias + [weight] * (copied is not None)
    optimizer = torch.optim.LBFGS(
        fitted, max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(slope * given + weight * matched + bias, target)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = slope.item() / spread if spread else 0.0
    if not _MIN_SLOPE <= found <= _MAX_SLOPE:
        raise UserError(
            "the image scores cannot be calibrated: they are no higher for manipulated images than "
            "for authentic ones"
        )
    return Platt(1 / found, bias.item(), weight.item())


class Bin(NamedTuple):
    """Images whose scores fall into one interval."""

    score: float  # mean
    manipulated: float  # fraction
    images: int


class Reliability(NamedTuple):
    """How well scores agree with the fractions of manipulated images.

    Attributes:
        ece: Expected calibration error (Naeini et al. 2015): mean over images of the difference
            between a bin's mean score and its fraction of manipulated images.
        log_loss: Mean negative log-likelihood, in nats.
        bins: The bins that hold images, lowest scores first.
    """

    ece: float
    log_loss: float
    bins: tuple[Bin, ...]


def reliability(scores: Floats, manipulated: MaskArray, bins: int = BINS) -> Reliability:
    """Compare scores with labels, in intervals of equal width.

    Args:
        scores: (N,) probabilities in [0, 1], N at least 1.
        manipulated: (N,) True for manipulated images.
        bins: Number of intervals.
    """
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.digitize(scores, edges) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    used = np.flatnonzero(counts)
    mean, fraction = (
        np.bincount(places, values, bins)[used] / counts[used]
        for values in (scores, manipulated.astype(np.float64))
    )
    ece = float(np.abs(mean - fraction) @ counts[used] / len(scores))
    likelihood = np.where(manipulated, scores, 1 - scores).clip(1e-12)
    rows = zip(mean.tolist(), fraction.tolist(), counts[used].tolist(), strict=True)
    return Reliability(ece, float(-np.log(likelihood).mean()), tuple(Bin(*row) for row in rows))


def error_by_chance(scores: Floats, draws: int = 200, seed: int = 0) -> float:
    """Mean expected calibration error of as many images if these scores (N,) were exactly right.

    Labels are drawn `draws` times with the scores as probabilities. The error is not 0, since the
    few images of an interval never show its exact fraction.
    """
    rng = np.random.default_rng(seed)
    errors = [reliability(scores, rng.random(len(scores)) < scores).ece for _ in range(draws)]
    return float(np.mean(errors))


def fold_numbers(groups: list[str], folds: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """The fold (N,) of every image, 0 to `folds` - 1 or fewer; images of one group share a fold.

    Raises:
        UserError: If there are fewer than two groups.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise UserError("all images are of one group: there is nothing to hold back")
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[place]: number % folds for number, place in enumerate(order.tolist())}
    return np.array([fold[group] for group in groups], np.intp)


def held_out(
    logits: Floats,
    manipulated: MaskArray,
    folds: npt.NDArray[np.intp],
    with_bias: bool = True,
    copied: MaskArray | None = None,
) -> Floats:
    """The calibrated score (N,) of every image, fitted without the images of its fold.

    Args:
        logits: (N,) image logits.
        manipulated: (N,) labels.
        folds: (N,) of `fold_numbers`.
        with_bias: As in `fit_platt`.
        copied: As in `fit_platt`.

    Raises:
        UserError: As `fit_platt`, for the images outside one of the folds.
    """
    known = np.zeros(len(logits), bool) if copied is None else copied
    scores = np.empty(len(logits))
    for fold in np.unique(folds):
        held, rest = folds == fold, folds != fold
        platt = fit_platt(logits[rest], manipulated[rest], with_bias, known[rest])
        scores[held] = platt(logits[held], known[held])
    return scores


def image_threshold(scores: Floats, fpr: float) -> float:
    """The lowest threshold that at most a fraction `fpr` of authentic scores (N,) is above."""
    allowed = min(int(fpr * len(scores) + 1e-9), len(scores) - 1)
    return float(np.sort(scores)[len(scores) - 1 - allowed])


class AuthenticPixels:
    """Distribution of the probabilities of authentic images' pixels, every image counted alike.

    Attributes:
        images: Number of images.
        pixels: Number of their pixels.
    """

    def __init__(self) -> None:
        self.images = self.pixels = 0
        self._fractions = np.zeros(_TOP + 1)

    def add(self, prob: ProbArray) -> None:
        """Add the map (H, W) of one authentic image."""
        levels = np.ceil(prob.ravel() * np.float64(_TOP)).astype(np.int64)
        self._fractions += np.bincount(levels, minlength=_TOP + 1) / prob.size
        self.images += 1
        self.pixels += prob.size

    def __add__(self, other: "AuthenticPixels") -> "AuthenticPixels":
        total = AuthenticPixels()
        total.images, total.pixels = self.images + other.images, self.pixels + other.pixels
        total._fractions = self._fractions + other._fractions
        return total

    def fpr(self, threshold: float) -> float:
        """Mean fraction of pixels above a threshold that is a multiple of 1 / 65535."""
        return float(self._above()[round(threshold * _TOP)])

    def threshold(self, fpr: float) -> float:
        """The lowest threshold that at most a mean fraction `fpr` of the pixels is above."""
        return int(np.argmax(self._above() <= fpr + 1e-12)) / _TOP

    def _above(self) -> Floats:
        above = np.cumsum(self._fractions[::-1])[::-1] - self._fractions
        return np.asarray(above / self.images)
