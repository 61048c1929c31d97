"""Five scoring protocols in one table: ours, and those of four groups of peers.

Scores under different presets are not comparable. A preset does what the fields of its
`ScoringPreset` say and nothing else. Formulas are read from the peers' code, but we do not copy its
errors: AUC counts ties as one half everywhere, and no image is dropped.

| preset | pixels | images in the pixel means | image level |
|---|---|---|---|
| `default` | stored size, p > threshold | manipulated | score of the method |
| `lab-minmax` | map stretched to its own minimum and maximum, level > 127 | all | as default |
| `benco-resize` | at the network's size | all; an authentic one scores 0 | as default |
| `trufor-permuted` | not the region's border; better of map, inverse | manipulated | as default |
| `mvss` | as default | manipulated | score is the maximum pixel; F1 of rates |
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.io.map_files import linear_values
from boxpromptiml.metrics import histograms
from boxpromptiml.metrics.histograms import Flagged, Floats, LevelCounts
from boxpromptiml.records import MaskArray, ProbArray

PresetName = Literal["default", "lab-minmax", "benco-resize", "trufor-permuted", "mvss"]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)

THRESHOLDS = np.arange(256) / 255  # of every curve; at the last one nothing is flagged
_ERODE, _DILATE = 15, 11  # pixels, the sides of TruFor's squares


@dataclass(frozen=True)
class ScoringPreset:
    """Where a protocol differs from the default.

    Attributes:
        stretches: Each map is stretched to 0 ... 255 before the threshold (SCAF's `etest.py`,
            PNF-Net's `test.py`). Any map that is not constant then flags something.
        resizes: Maps and masks are scored at the network's size (IMDLBenCo).
        skips_border: Pixels near the region's outline do not count: what an erosion by 15 and a
            dilation by 11 pixels leave between them (TruFor's `metrics.py`). A region narrower than
            15 pixels leaves none; the image's F1 is then 0, or nan where nothing else is flagged.
        permutes: F1 is the larger of the map's and its inverse's (TruFor), and `best_f1` is that of
            each image at its own best threshold.
        averages_authentic: Images without manipulated pixels enter the pixel means, with F1 0.
        authentic_iou: IoU of such an image where nothing is flagged; 0 where something is.
        authentic_auc: AUC of such an image; nan to leave it out.
        epsilon: Added to denominators, so that 0 / 0 is 0.
        product_f1: F1 is computed from precision and recall, each with its epsilon (IMDLBenCo).
        image_f1_of_rates: Image F1 is the harmonic mean of sensitivity and specificity (MVSS-Net's
            `calculate_img_score`), and a combined F1 joins it with the pixel F1.
        image_score_is_maximum: The image score is the map's maximum, whatever score the method
            gives.
    """

    stretches: bool = False
    resizes: bool = False
    skips_border: bool = False
    permutes: bool = False
    averages_authentic: bool = False
    authentic_iou: float = float("nan")
    authentic_auc: float = float("nan")
    epsilon: float = 0.0
    product_f1: bool = False
    image_f1_of_rates: bool = False
    image_score_is_maximum: bool = False


PRESETS: dict[PresetName, ScoringPreset] = {
    "default": ScoringPreset(),
    "lab-minmax": ScoringPreset(
        stretches=True, averages_authentic=True, authentic_iou=1.0, epsilon=1e-6
    ),
    "benco-resize": ScoringPreset(
        resizes=True,
        averages_authentic=True,
        authentic_iou=0.0,
        authentic_auc=0.0,
        epsilon=1e-8,
        product_f1=True,
    ),
    "trufor-permuted": ScoringPreset(skips_border=True, permutes=True),
    "mvss": ScoringPreset(epsilon=1e-6, image_f1_of_rates=True, image_score_is_maximum=True),
}


class PixelScores(NamedTuple):
    """Scores of one image; nan if a score is undefined or the preset excludes the image.

    Attributes:
        f1: F1 at the threshold.
        iou: IoU at the threshold.
        auc: Area under the ROC curve.
        precision: Precision at the threshold; nan if nothing is flagged.
        recall: Recall at the threshold.
        best_f1: F1 at the image's own best threshold.
        flagged: Fraction of the scored pixels above the threshold.
        f1_curve: (256,) F1 at `THRESHOLDS`.
        rates: Data of the other curves; None for an image without manipulated pixels.
    """

    f1: float
    iou: float
    auc: float
    precision: float
    recall: float
    best_f1: float
    flagged: float
    f1_curve: Floats
    rates: "Rates | None"


class Rates(NamedTuple):
    """Rates of one manipulated image, each (257,): with all pixels flagged, then at `THRESHOLDS`.

    `precision` is nan where nothing is flagged, `false_positive` where no pixel is authentic.
    """

    precision: Floats
    recall: Floats
    false_positive: Floats


def score_pixels(
    preset: ScoringPreset,
    levels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    truth: MaskArray,
    threshold: float = 0.5,
    values: Floats | None = None,
) -> PixelScores:
    """All pixel scores of one image.

    Args:
        preset: The scoring protocol.
        levels: (H, W) levels of the map.
        truth: (H, W), True = manipulated.
        threshold: A pixel is flagged strictly above it.
        values: The probability of each level, rising; evenly spaced from 0 to 1 by default.
    """
    kept = outside_border(truth) if preset.skips_border else None
    histogram = histograms.count_values(levels, truth, kept)
    if values is None:
        values = linear_values(len(histogram.authentic))
    if preset.stretches:
        histogram = histograms.stretched(histogram, values)
        values = linear_values(len(histogram.authentic))
    score = _manipulated if truth.any() else _authentic
    return score(preset, histogram, values, threshold)


def _manipulated(
    preset: ScoringPreset, histogram: LevelCounts, values: Floats, threshold: float
) -> PixelScores:
    found = histograms.flagged(histogram)
    positives, pixels = int(found.tp[0]), int(found.tp[0] + found.fp[0])
    by_cut = _f1_by_cut(preset, found)
    cut = int(histograms.cuts(threshold, values))
    at = histograms.cuts(THRESHOLDS, values)
    tp, fp, epsilon = int(found.tp[cut]), int(found.fp[cut]), preset.epsilon
    f1 = float(by_cut[cut])
    if preset.permutes and _is_of_one_class(tp, fp, positives, pixels):
        f1 = float("nan")
    return PixelScores(
        f1=f1,
        iou=float(histograms.ratio(tp, positives + fp, epsilon)),
        auc=float(histograms.auc(*histogram)),
        precision=float(histograms.ratio(tp, tp + fp, epsilon)),
        recall=float(histograms.ratio(tp, positives, epsilon)),
        best_f1=float(np.nanmax(by_cut)) if pixels else float("nan"),
        flagged=float(histograms.ratio(tp + fp, pixels)),
        f1_curve=by_cut[at],
        rates=_rates(found, np.concatenate([[0], at])),
    )


def _f1_by_cut(preset: ScoringPreset, found: Flagged) -> Floats:
    tp, fp = found
    positives, negatives = int(tp[0]), int(fp[0])
    if preset.product_f1:
        precision = histograms.ratio(tp, tp + fp, preset.epsilon)
        recall = histograms.ratio(tp, positives, preset.epsilon)
        return histograms.ratio(2 * precision * recall, precision + recall, preset.epsilon)
    plain = histograms.f1(tp, fp, positives, preset.epsilon)
    if not preset.permutes:
        return plain
    inverse = histograms.f1(positives - tp, negatives - fp, positives)
    return np.fmax(plain, inverse)


def _is_of_one_class(tp: int, fp: int, positives: int, pixels: int) -> bool:
    """Whether map and truth are one and the same class, for which TruFor has no score at 0.5."""
    nothing = positives == 0 and tp + fp == 0
    everything = positives == pixels and tp + fp == pixels
    return nothing or everything


def _rates(found: Flagged, at: npt.NDArray[np.intp]) -> Rates:
    tp, fp = found.tp[at], found.fp[at]
    return Rates(
        precision=histograms.ratio(tp, tp + fp),
        recall=histograms.ratio(tp, found.tp[0]),
        false_positive=histograms.ratio(fp, found.fp[0]),
    )


def _authentic(
    preset: ScoringPreset, histogram: LevelCounts, values: Floats, threshold: float
) -> PixelScores:
    """An image without manipulated pixels: what is flagged, and what the preset makes of it."""
    cut = int(histograms.cuts(threshold, values))
    flagged, pixels = int(histogram.authentic[cut:].sum()), int(histogram.authentic.sum())
    zero = 0.0 if preset.averages_authentic else float("nan")
    return PixelScores(
        f1=zero,
        iou=zero if flagged else preset.authentic_iou,
        auc=preset.authentic_auc,
        precision=zero,
        recall=zero,
        best_f1=zero,
        flagged=flagged / pixels,
        f1_curve=np.full(len(THRESHOLDS), zero),
        rates=None,
    )


def outside_border(truth: MaskArray) -> MaskArray:
    """Pixels (H, W) that TruFor scores: the eroded region, and all outside the dilated one."""
    region = truth.astype(np.uint8)
    inner = cv2.erode(region, np.ones((_ERODE, _ERODE), np.uint8))
    outer = cv2.dilate(region, np.ones((_DILATE, _DILATE), np.uint8))
    return np.asarray((inner == 1) | (outer == 0))


def at_network_size(
    grey: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | ProbArray,
    truth: MaskArray,
    size: tuple[int, int],
) -> tuple[npt.NDArray[Any], MaskArray]:
    """Resize map and mask to the network's (H, W): mask by nearest pixel, map linearly.

    A map of that size is not changed: IMDLBenCo scores a network's own output.

    Args:
        grey: (H, W) evenly spaced levels, or probabilities.
        truth: (H, W), True = manipulated.
        size: (H, W) of the network's input.
    """
    width_height = (size[1], size[0])
    mask = cv2.resize(truth.astype(np.uint8), width_height, interpolation=cv2.INTER_NEAREST) > 0
    if grey.shape == size:
        return grey, mask
    resized = cv2.resize(grey, width_height, interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, grey.dtype), mask
