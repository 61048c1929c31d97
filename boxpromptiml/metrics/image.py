"""Image-level scores (is the image manipulated?), for many weightings of images at once.

Every function takes `weights` (R, N), how often each of N images counts in each draw of
`bootstrap.statistic_interval`, and returns (R,) scores; nan for a row with only one class. A row of
ones gives the plain score.
"""

import numpy as np

from boxpromptiml.metrics.histograms import Floats, auc, ratio
from boxpromptiml.records import MaskArray


def image_auc(weights: Floats, scores: Floats, manipulated: MaskArray) -> Floats:
    """Fraction of pairs in which the manipulated image has the higher score; ties count half.

    Args:
        weights: (R, N) weight of each image in each draw.
        scores: (N,) image scores.
        manipulated: (N,) True for manipulated images.
    """
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], manipulated[order]
    positive, negative = weights[:, order] * truth, weights[:, order] * ~truth
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    return auc(*(np.add.reduceat(w, starts, axis=1) for w in (positive, negative)))


def image_accuracy(weights: Floats, flagged: MaskArray, manipulated: MaskArray) -> Floats:
    """Fraction of correct decisions (R,), nan in a draw without both classes.

    Args:
        weights: (R, N) weight of each image in each bootstrap draw.
        flagged: (N,) images classified as manipulated.
        manipulated: (N,) images that are.
    """
    right = ratio(weights @ (flagged == manipulated), weights.sum(axis=1))
    return _both_classes(right, weights, manipulated)


def image_f1(weights: Floats, flagged: MaskArray, manipulated: MaskArray) -> Floats:
    """F1 of precision and recall of the manipulated class.

    Args:
        weights: (R, N) weight of each image in each draw.
        flagged: (N,) images classified as manipulated.
        manipulated: (N,) True for manipulated images.

    Returns:
        (R,) in [0, 1]; nan for a draw with only one class.
    """
    tp = weights @ (flagged & manipulated)
    wrong = weights @ (flagged != manipulated)
    return _both_classes(ratio(2 * tp, 2 * tp + wrong), weights, manipulated)


def image_f1_of_rates(weights: Floats, flagged: MaskArray, manipulated: MaskArray) -> Floats:
    """Harmonic mean of sensitivity and specificity, which MVSS-Net and WSCL call image F1.

    Args:
        weights: (R, N) weight of each image in each draw.
        flagged: (N,) images classified as manipulated.
        manipulated: (N,) True for manipulated images.

    Returns:
        (R,) in [0, 1]; nan for a draw with only one class.
    """
    sensitivity = ratio(weights @ (flagged & manipulated), weights @ manipulated)
    specificity = ratio(weights @ ~(flagged | manipulated), weights @ ~manipulated)
    return harmonic_mean(sensitivity, specificity)


def harmonic_mean(first: Floats, second: Floats) -> Floats:
    """2 a b / (a + b) of arrays a and b of one shape, 0 or more; 0 where both are 0."""
    total = first + second
    return np.where(total == 0, 0.0, ratio(2 * first * second, total))


def _both_classes(values: Floats, weights: Floats, manipulated: MaskArray) -> Floats:
    both = (weights @ manipulated > 0) & (weights @ ~manipulated > 0)
    return np.where(both, values, np.nan)
