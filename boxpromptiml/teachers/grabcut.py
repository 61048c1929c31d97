"""A teacher without weights: a statistical guess inside the box, refined by OpenCV's GrabCut.

The bare rectangle is a poor start for GrabCut: a coarse box is loose, so more than half of it is
background. Here a small mixture model first guesses the probability of every pixel of the crop:
a smooth shape prior that fills the middle of the box, times how typical the pixel's colour and
fine texture are of inside against outside. Texture shows what colour hides, above all inpainted
regions. Only pixels where the guess is doubtful are left for the graph cut (Rother, Kolmogorov,
Blake: "GrabCut", SIGGRAPH 2004) to decide.
"""

from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.geometry import as_array, clip, expand, pixel_slices
from boxpromptiml.records import (
    Box,
    BoxArray,
    Description,
    ImageArray,
    MaskArray,
    ProbArray,
    Proposal,
)

_VERSION = 1  # raise it when a proposal changes without one of the settings below changing

# Settings that change a proposal. They are part of every pseudo-mask's fingerprint: changing one
# makes all pseudo-masks stale.
_MARGIN = 0.25  # surroundings seen around the box, as a fraction of its width and height
_MAX_SIDE = 256  # larger crops are reduced to this many pixels on the longer side
_PALETTE = 24  # colour-and-texture clusters of the mixture model
_TEXTURE = 20.0  # weight of fine texture against brightness
_PRIOR_EDGE = 0.8  # where in the box the shape prior is half of its peak; 0 centre, 1 side
_ROUNDS = 8  # updates of the mixture model
_DOUBT = 0.1  # pixels with a guess in (doubt, 1 - doubt / 2] are left to the graph cut
_ITERATIONS = 1  # of the graph cut
_MIN_FILL = 0.2  # a proposal that fills less of its box is degenerate
_MAX_FILL = 0.97  # a proposal that fills more of its box is degenerate
_SEED = 0  # of OpenCV's generator, set before every call that draws from it

_MIN_SIDE = 4  # pixels; in a smaller box there is nothing to model
_FLAT = 4  # grey levels; a crop with a smaller range shows no edge
_MEDIAN = 3  # pixels; noise and fine texture would pull the contour
_PALETTE_SAMPLES = 2500
_CHROMA = 1.5  # weight of a and b against L: colour varies less than brightness

_Slices = tuple[slice, slice]


class GrabCutTeacher:
    """Segments what a box surrounds from the pixels alone, on the CPU, without weights.

    The score of a proposal is the intersection over union of the mixture model's guess and the
    final cut: 1 when the graph cut confirms the guess, near 0 when the two disagree. Proposals that
    had to be replaced by an ellipse score 0 and say `degenerate: …` in their note.
    """

    @property
    def settings(self) -> Description:
        """Name, settings, and the OpenCV release: GrabCut may change between releases."""
        settings = {
            "margin": _MARGIN,
            "max_side": _MAX_SIDE,
            "palette": _PALETTE,
            "texture": _TEXTURE,
            "prior_edge": _PRIOR_EDGE,
            "rounds": _ROUNDS,
            "doubt": _DOUBT,
            "iterations": _ITERATIONS,
            "min_fill": _MIN_FILL,
            "max_fill": _MAX_FILL,
            "seed": _SEED,
            "version": _VERSION,
            "opencv": cv2.__version__,
        }
        return {"name": "grabcut", "weights_sha256": None, "settings": settings}

    def propose(self, image: ImageArray, boxes: BoxArray) -> Iterator[Proposal]:
        """Yield one proposal for each box (N, 4) of an image (H, W, 3), in order.

        Boxes do not influence each other.
        """
        for box in boxes:
            yield _propose(image, Box(*(float(v) for v in box)))


def surroundings(box: BoxArray | Box, size: tuple[int, int]) -> _Slices:
    """Rows and columns that a proposal for a box in an image of `size` (H, W) depends on.

    In a crop to them the proposal is the same: for one box of a large photograph that saves most of
    the time.
    """
    return pixel_slices(expand(np.asarray(box, np.float32)[None], _MARGIN, size)[0], size)


def _propose(image: ImageArray, box: Box) -> Proposal:
    size = image.shape[:2]
    inside = clip(as_array([box]), size)[0]
    width, height = inside[2:] - inside[:2]
    if min(width, height) <= 0:
        return Proposal(np.zeros(size, dtype=bool), 0.0, box, "degenerate: box outside the image")
    fallback = partial(ellipse, inside, size)
    if min(width, height) < _MIN_SIDE:
        return Proposal(fallback(), 0.0, box, f"degenerate: box under {_MIN_SIDE} pixels")
    window = surroundings(inside, size)
    small, small_box = _reduce(image[window], inside, window)
    if np.ptp(small) < _FLAT:
        return Proposal(fallback(), 0.0, box, "degenerate: no contrast")
    guess = _guess(small, small_box)
    cut = _cut(small, guess)
    mask = _paste(cut, window, inside, size)
    fill = float(mask.sum() / (width * height))
    if not _MIN_FILL <= fill <= _MAX_FILL:
        return Proposal(fallback(), 0.0, box, f"degenerate: fills {fill:.0%} of the box")
    return Proposal(mask, _agreement(guess > 0.5, cut), box)


def _guess(crop: ImageArray, box: BoxArray) -> ProbArray:
    """Probability (h, w) that a pixel is manipulated, by expectation maximisation.

    Posterior odds are prior odds times p(cluster | manipulated) / p(cluster | authentic); the
    two histograms over the clusters are re-estimated from the posterior in every round.
    """
    features = _features(crop)
    cluster, count = _quantise(features)
    prior = _shape_prior(box, cluster.shape)
    inside = prior > 0
    prior_logit = np.log(np.maximum(prior, 1e-6) / (1 - prior))
    prob, flat = prior, cluster.ravel()
    for _ in range(_ROUNDS):
        ours = np.bincount(flat, prob.ravel(), count) + 0.5
        theirs = np.bincount(flat, 1 - prob.ravel(), count) + 0.5
        ratio = np.log(ours / ours.sum()) - np.log(theirs / theirs.sum())
        evidence = cv2.GaussianBlur(ratio.astype(np.float32)[cluster], (0, 0), 1.5)
        prob = np.where(inside, 1 / (1 + np.exp(-prior_logit - evidence)), 0)
    return prob.astype(np.float32)


def _cut(crop: ImageArray, guess: ProbArray) -> MaskArray:
    """Let GrabCut decide the doubtful pixels; the guess itself where a class is missing."""
    labels = np.where(guess > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[guess <= _DOUBT] = cv2.GC_BGD
    labels[guess > 1 - _DOUBT / 2] = cv2.GC_FGD
    chosen = (labels & 1).astype(bool)  # GC_FGD 1, GC_PR_FGD 3
    if chosen.all() or not chosen.any():
        return chosen
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(_SEED)
    smooth = cv2.medianBlur(crop, _MEDIAN)
    cv2.grabCut(smooth, labels, (0, 0, 0, 0), *models, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (labels & 1).astype(bool)


def ellipse(box: BoxArray | Box, size: tuple[int, int], scale: float = 0.85) -> MaskArray:
    """(H, W) mask of an ellipse in the middle of a box; `scale` 1 touches the box's sides.

    0.85 undoes the looseness of a coarse box. At least a pixel wherever the box meets the image.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    x = (np.arange(size[1]) + 0.5 - (x0 + x1) / 2) / max(scale * (x1 - x0) / 2, 0.51)
    y = (np.arange(size[0]) + 0.5 - (y0 + y1) / 2) / max(scale * (y1 - y0) / 2, 0.51)
    mask: MaskArray = x[None, :] ** 2 + y[:, None] ** 2 <= 1
    return mask if mask.any() else _filled(box, size)


def _filled(box: BoxArray | Box, size: tuple[int, int]) -> MaskArray:
    mask = np.zeros(size, dtype=bool)
    mask[pixel_slices(box, size)] = True
    return mask


def _reduce(crop: ImageArray, box: BoxArray, window: _Slices) -> tuple[ImageArray, BoxArray]:
    """The crop at its working size and the box in the crop's pixels."""
    height, width = crop.shape[:2]
    shrink = min(1.0, _MAX_SIDE / max(height, width))
    target = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(crop, target, interpolation=cv2.INTER_AREA) if shrink < 1 else crop.copy()
    corner = np.array([window[1].start, window[0].start] * 2)
    moved = (box - corner) * np.array([target[0] / width, target[1] / height] * 2)
    return small.astype(np.uint8, copy=False), moved.astype(np.float32)


def _paste(mask: MaskArray, window: _Slices, box: BoxArray, size: tuple[int, int]) -> MaskArray:
    """A crop's mask at its place in an image of `size`, cut to the box."""
    rows, columns = window
    target = columns.stop - columns.start, rows.stop - rows.start
    level = cv2.resize(mask.astype(np.float32), target, interpolation=cv2.INTER_LINEAR)
    whole = np.zeros(size, dtype=bool)
    whole[window] = level >= 0.5
    return whole & _filled(box, size)


def _shape_prior(box: BoxArray, size: tuple[int, int]) -> ProbArray:
    """(h, w): high in the middle of the box, falling smoothly to its sides, 0 outside.

    A superellipse |u|^3 + |v|^3 = r^3 (u, v: -1 to 1 in the box), between ellipse and box.
    """
    x0, y0, x1, y1 = (float(v) for v in box)
    u = np.abs(np.arange(size[1]) + 0.5 - (x0 + x1) / 2)[None, :] / ((x1 - x0) / 2)
    v = np.abs(np.arange(size[0]) + 0.5 - (y0 + y1) / 2)[:, None] / ((y1 - y0) / 2)
    radius = np.cbrt(u**3 + v**3)
    prior = 0.9 / (1 + np.exp(6 * (radius - _PRIOR_EDGE)))
    return np.where((u <= 1) & (v <= 1), prior, 0).astype(np.float32)


def _features(crop: ImageArray) -> npt.NDArray[np.float32]:
    """(h, w, 4): smoothed L, a, b, and the log energy of what smoothing takes from L."""
    sharp = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32)
    residual = sharp - cv2.GaussianBlur(sharp, (0, 0), 1.0)
    energy = np.sqrt(cv2.GaussianBlur(residual**2, (0, 0), 2.5))
    lab = cv2.cvtColor(cv2.medianBlur(crop, _MEDIAN), cv2.COLOR_RGB2LAB).astype(np.float32)
    scaled = lab * np.array([1, _CHROMA, _CHROMA], dtype=np.float32)
    return np.dstack([scaled, _TEXTURE * np.log1p(energy)])


def _quantise(features: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], int]:
    """Nearest cluster of every pixel (h, w) and the number of clusters, by k-means."""
    points = features.reshape(-1, features.shape[2])
    sample = np.ascontiguousarray(points[:: max(1, len(points) // _PALETTE_SAMPLES)])
    count = min(_PALETTE, len(sample))
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 8, 1.0)
    cv2.setRNGSeed(_SEED)
    unused = np.empty((len(sample), 1), dtype=np.int32)  # no labels to start from
    _, _, centres = cv2.kmeans(sample, count, unused, stop, 1, cv2.KMEANS_PP_CENTERS)
    distance = (centres**2).sum(axis=1) - 2 * points @ centres.T
    return distance.argmin(axis=1).reshape(features.shape[:2]), count


def _agreement(guess: MaskArray, cut: MaskArray) -> float:
    union = np.count_nonzero(guess | cut)
    return float(np.count_nonzero(guess & cut) / union) if union else 0.0
