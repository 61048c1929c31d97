"""Scores of probability maps against ground truth, at the stored size of every image.

The policy: a pixel is flagged when its probability is strictly above the threshold; F1, IoU and AUC
are computed per manipulated image and then averaged; authentic images have no F1, their scores are
the pixel FPR (mean fraction of pixels flagged) and the image FPR. Nothing is rescaled or
normalised, and no sigmoid is guessed.

Pure functions score one image; `LocalizationMetrics` only accumulates their results.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_accuracy, binary_auroc, binary_f1_score

from boxpromptiml.errors import UserError
from boxpromptiml.records import MaskArray, ProbArray

CURVE_THRESHOLDS = tuple(step / 20 for step in range(1, 20))  # 0.05, 0.10 ... 0.95


class Counts(NamedTuple):
    """Numbers of pixels of one image: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


class ImageScores(NamedTuple):
    """Pixel scores of one manipulated image; `curve` is F1 at each of `CURVE_THRESHOLDS`."""

    f1: float
    iou: float
    auc: float
    curve: npt.NDArray[np.float64]


def pixel_counts(prob: ProbArray, truth: MaskArray, threshold: float = 0.5) -> Counts:
    """Count the pixels of one image, flagged where `prob` is strictly above `threshold`.

    Args:
        prob: (H, W) in [0, 1].
        truth: (H, W), True = manipulated.
        threshold: Compared in the precision of `prob`, as NumPy does.

    Raises:
        ValueError: If the sizes differ.

    Example:
        >>> pixel_counts(np.array([[0.5, 0.9]], np.float32), np.array([[True, False]]))
        Counts(tp=0, fp=1, fn=1, tn=0)
    """
    _require_same_size(prob, truth)
    flagged = prob > threshold
    tp = int(np.count_nonzero(flagged & truth))
    fp = int(np.count_nonzero(flagged)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Counts(tp, fp, fn, truth.size - tp - fp - fn)


def f1(counts: Counts) -> float:
    """F1 = 2 TP / (2 TP + FP + FN); nan where nothing is manipulated and nothing is flagged.

    Example:
        >>> f1(Counts(tp=2, fp=1, fn=1, tn=9))
        0.6666666666666666
    """
    total = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp / total if total else float("nan")


def iou(counts: Counts) -> float:
    """Intersection over union = TP / (TP + FP + FN), of the manipulated class; nan as in `f1`."""
    union = counts.tp + counts.fp + counts.fn
    return counts.tp / union if union else float("nan")


def pixel_fpr(prob: ProbArray, threshold: float = 0.5) -> float:
    """Pixel FPR: the fraction of an authentic image's pixels strictly above `threshold`.

    `prob` is a map (H, W) in [0, 1].
    """
    return float(np.count_nonzero(prob > threshold)) / prob.size


def score_image(prob: ProbArray, truth: MaskArray, threshold: float = 0.5) -> ImageScores:
    """All pixel scores of one manipulated image, exactly, by sorting its pixels once.

    Args:
        prob: (H, W) in [0, 1].
        truth: (H, W), True = manipulated.
        threshold: A pixel is flagged strictly above it.

    Raises:
        ValueError: If the sizes differ.
    """
    counts = pixel_counts(prob, truth, threshold)
    manipulated, authentic = np.sort(prob[truth]), np.sort(prob[~truth])
    return ImageScores(
        f1(counts), iou(counts), _auc(manipulated, authentic), _curve(manipulated, authentic)
    )


def _auc(manipulated: ProbArray, authentic: ProbArray) -> float:
    """As `histograms.auc`, from sorted float probabilities, which have too many values to count."""
    if not len(manipulated) or not len(authentic):
        return float("nan")
    swap = len(manipulated) > len(authentic)  # searching few values among many is faster
    few, many = (authentic, manipulated) if swap else (manipulated, authentic)
    below = int(np.searchsorted(many, few, side="left").sum())
    below_or_tied = int(np.searchsorted(many, few, side="right").sum())
    fraction = (below + below_or_tied) / (2 * len(few) * len(many))
    return 1 - fraction if swap else fraction


def _curve(manipulated: ProbArray, authentic: ProbArray) -> npt.NDArray[np.float64]:
    thresholds = np.array(CURVE_THRESHOLDS, dtype=manipulated.dtype)
    tp = len(manipulated) - np.searchsorted(manipulated, thresholds, side="right")
    fp = len(authentic) - np.searchsorted(authentic, thresholds, side="right")
    total = tp + fp + len(manipulated)  # 2 TP + FP + FN
    curve = np.full(len(thresholds), np.nan)
    np.divide(2 * tp, total, out=curve, where=total > 0)
    return curve


def _require_same_size(prob: ProbArray, truth: MaskArray) -> None:
    if prob.shape != truth.shape:
        raise ValueError(f"prob {prob.shape} and truth {truth.shape} differ in size")


class LocalizationMetrics(Metric):
    """Accumulates the scores of a dataset, on one device or many.

    States are float64 sums, so neither order nor distribution over processes matters.

    Args:
        threshold: Pixels and images are flagged where their score is strictly above it.
    """

    full_state_update = False
    higher_is_better = None

    f1_sum: Tensor
    iou_sum: Tensor
    manipulated: Tensor
    curve_sum: Tensor
    auc_sum: Tensor
    auc_images: Tensor
    pixel_fpr_sum: Tensor
    images_flagged: Tensor
    authentic: Tensor
    image_scores: list[Tensor]
    labels: list[Tensor]

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold
        # A process without images sends empty lists in the metric's dtype: it must be the states'.
        self.set_dtype(torch.float64)
        for name in ("f1_sum", "iou_sum", "manipulated", "auc_sum", "auc_images"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("pixel_fpr_sum", "images_flagged", "authentic"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        curve = torch.zeros(len(CURVE_THRESHOLDS), dtype=torch.float64)
        self.add_state("curve_sum", curve, dist_reduce_fx="sum")
        self.add_state("image_scores", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(
        self,
        prob: Sequence[Tensor] | Tensor,
        truth: Sequence[Tensor | None] | Tensor,
        label: Tensor,
        image_score: Tensor,
    ) -> None:
        """Add the images of one batch.

        Args:
            prob: One (H, W) map in [0, 1] per image, or all as (B, H, W).
            truth: One (H, W) mask per image at the map's size, non-zero = manipulated; None without
                a mask: an authentic image (label 0) then has no manipulated pixels, any other
                counts in the image scores only.
            label: (B,) 0 authentic, 1 manipulated, nan unknown: left out of the image scores.
            image_score: (B,) probability in [0, 1] that the image is manipulated.

        Raises:
            ValueError: If a value is outside [0, 1] (or nan), or sizes or counts differ.
            UserError: If a label contradicts the mask.
        """
        labels = label.detach().double().reshape(-1)
        scores = image_score.detach().double().reshape(-1)
        _require_unit_range(scores, "image_score")
        rows = zip(prob, truth, labels.tolist(), scores.tolist(), strict=True)
        for one_prob, one_truth, one_label, one_score in list(rows):
            self._add_pixels(one_prob, one_truth, one_label, one_score)
        known = ~torch.isnan(labels)
        self.image_scores.append(scores[known].to(self.device))
        self.labels.append(labels[known].to(self.device))

    def _add_pixels(self, prob: Tensor, truth: Tensor | None, label: float, score: float) -> None:
        _require_unit_range(prob, "prob")
        array = prob.detach().float().cpu().numpy()
        if truth is None:
            if label == 0:
                self._add_authentic(array, score)
            return
        mask = truth.detach().cpu().numpy() != 0
        _require_same_size(array, mask)
        if label in (0, 1) and bool(label) != mask.any():
            raise UserError(
                f"label {label:.0f} contradicts the mask, which has {np.count_nonzero(mask)} "
                "manipulated pixels: correct the manifest"
            )
        if mask.any():
            self._add_manipulated(score_image(array, mask, self.threshold))
        else:
            self._add_authentic(array, score)

    def _add_manipulated(self, scores: ImageScores) -> None:
        self.manipulated += 1
        self.f1_sum += scores.f1
        self.iou_sum += scores.iou
        self.curve_sum += torch.from_numpy(scores.curve).to(self.device)
        if not np.isnan(scores.auc):  # every pixel is manipulated
            self.auc_images += 1
            self.auc_sum += scores.auc

    def _add_authentic(self, prob: ProbArray, score: float) -> None:
        self.authentic += 1
        self.pixel_fpr_sum += pixel_fpr(prob, self.threshold)
        self.images_flagged += score > self.threshold

    def compute(self) -> dict[str, Tensor]:
        """Mean scores of the images so far; nan where there is nothing to average.

        Returns:
            `pixel_f1`, `iou`, `auc`: means over manipulated images (`auc` without fully manipulated
            ones). `false_alarm_pixels`: pixel FPR, the mean fraction of pixels flagged in authentic
            images. `false_alarm_images`: image FPR, the fraction of authentic images whose score is
            above the threshold. `image_auc`, `image_f1`, `image_accuracy`: over images with a known
            label, nan unless both classes are present; F1 is that of the manipulated class.
        """
        return {
            "pixel_f1": self.f1_sum / self.manipulated,
            "iou": self.iou_sum / self.manipulated,
            "auc": self.auc_sum / self.auc_images,
            "false_alarm_pixels": self.pixel_fpr_sum / self.authentic,
            "false_alarm_images": self.images_flagged / self.authentic,
        } | self._image_level()

    def _image_level(self) -> dict[str, Tensor]:
        scores, labels = (_joined(state) for state in (self.image_scores, self.labels))
        if len(set(labels.tolist())) < 2:
            nan = torch.full((), torch.nan, dtype=torch.float64, device=self.device)
            return {"image_auc": nan, "image_f1": nan, "image_accuracy": nan}
        target = labels.long()
        return {
            "image_auc": binary_auroc(scores, target),
            "image_f1": binary_f1_score(scores, target, self.threshold),
            "image_accuracy": binary_accuracy(scores, target, self.threshold),
        }

    def f1_curve(self) -> tuple[Tensor, Tensor]:
        """Thresholds (19,) and the mean F1 of manipulated images at each; nan without images.

        Under DDP every process must call it, as with `compute`.
        """
        with self.sync_context():
            mean = self.curve_sum / self.manipulated
        return torch.tensor(CURVE_THRESHOLDS, dtype=torch.float64, device=self.device), mean


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    if isinstance(state, Tensor):  # torchmetrics leaves a tensor after a synchronisation
        return state
    return torch.cat(state) if state else torch.zeros(0, dtype=torch.float64)


def _require_unit_range(values: Tensor, name: str) -> None:
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):  # nan fails too
        raise ValueError(f"{name} must be a probability in [0, 1]; apply the sigmoid before")
