"""Regions of an image that were copied from another place in it.

A network sees traces of editing, which a copy from the same photograph hardly leaves. But a copy
agrees with its source pixel by pixel, which needs no training to see: keypoints are matched within
the image (Amerini et al. 2011, "A SIFT-based forensic method for copy-move attack detection"), and
the local correlation of the image with itself under the transform that matches agree on shows the
regions (Pan and Lyu 2010, "Region duplication detection using image feature matching"). That the
network's map chooses between copy and source is ours.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.geometry import resize_by_area, shrunk_size
from boxpromptiml.records import ImageArray, ProbArray

Points = npt.NDArray[np.float32]

_MAX_SIDE = 1600  # pixels; larger images are matched shrunk
_MAX_KEYPOINTS = 5000
_MIN_SHIFT = 10  # pixels between a copy and its source
_MAX_DISTANCE_RATIO = 0.6  # of a match to the next best one (Amerini et al. 2011)
# Matches that agree on one transform. Amerini et al. ask for 4, which structures that repeat reach
# in a tenth of all authentic images (docs/decisions/044-copy-move.md).
_MIN_MATCHES = 8
_MAX_TRANSFORMS = 5
_CORRELATION = 7  # pixels, side of the square that is correlated
_MIN_CORRELATION = 0.65  # of a copied region; where the F1 of validation forgeries is highest
_MIN_AREA = 64  # pixels of a region
_MIN_RATIO = 0.6  # of a region's mean probability to that of the likeliest one


def add_copies(prob: ProbArray, image: ImageArray) -> ProbArray:
    """A network's map with the copied regions of the image raised to their correlation.

    Connected regions above a correlation of 0.65 count. Source and copy look alike to the matching:
    of all such regions, those stay whose mean of `prob` is at least 0.6 of the highest one.

    Args:
        prob: The network's map (H, W) in [0, 1].
        image: (h, w, 3) RGB, as a rule of the same size.

    Returns:
        (H, W) in [0, 1], nowhere below `prob`; `prob` itself where nothing was copied.
    """
    correlation = copied_regions(image)
    count, regions = cv2.connectedComponents((correlation > _MIN_CORRELATION).astype(np.uint8))
    area = np.bincount(regions.ravel(), minlength=count)
    shrunk = cv2.resize(prob, regions.shape[::-1], interpolation=cv2.INTER_AREA)
    mean = np.bincount(regions.ravel(), shrunk.ravel(), minlength=count) / np.maximum(area, 1)
    mean[area < _MIN_AREA] = -1
    mean[0] = -1  # what is no region
    if mean.max() < 0:
        return prob
    chosen = np.where((mean >= _MIN_RATIO * mean.max())[regions], correlation, 0)
    enlarged = cv2.resize(chosen, prob.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.maximum(prob, enlarged.astype(np.float32))


def copied_regions(image: ImageArray) -> ProbArray:
    """Correlation of every place with the place that it was copied to or from.

    Args:
        image: (H, W, 3) RGB.

    Returns:
        In [0, 1], 0 where nothing matches, at the image's size (H, W), or shrunk to at most 1600
        pixels on its longer side.
    """
    grey: npt.NDArray[Any] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if max(grey.shape) > _MAX_SIDE:
        grey = resize_by_area(grey[..., None], shrunk_size(image, _MAX_SIDE))[..., 0]
    found = np.zeros(grey.shape, np.float32)
    for transform in _transforms(*_matches(grey)):
        for one in (transform, cv2.invertAffineTransform(transform)):
            found = np.maximum(found, _correlation(grey, one))
    return found


def _matches(grey: npt.NDArray[Any]) -> tuple[Points, Points]:
    """Matched points (N, 2) and (N, 2) as x, y, at least `_MIN_SHIFT` pixels apart."""
    sift = cv2.SIFT.create(nfeatures=_MAX_KEYPOINTS, contrastThreshold=0.01)
    keypoints, features = sift.detectAndCompute(grey, None)
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    if len(points) > _MAX_KEYPOINTS:  # SIFT drops none of equal strength: 40,000 in equal tiles
        strengths = [-keypoint.response for keypoint in keypoints]
        kept = np.sort(np.argsort(strengths, kind="stable")[:_MAX_KEYPOINTS])
        points, features = points[kept], features[kept]
    pairs: list[tuple[int, int]] = []
    if len(points) > 1:
        for neighbours in cv2.BFMatcher(cv2.NORM_L2).knnMatch(features, features, k=5):
            others = [n for n in neighbours if (points[n.queryIdx] != points[n.trainIdx]).any()]
            for near, next_one in itertools.pairwise(others):
                if near.distance >= _MAX_DISTANCE_RATIO * next_one.distance:
                    break
                pairs.append((near.queryIdx, near.trainIdx))
    index = np.array(pairs, np.intp).reshape(-1, 2)
    source, target = points[index[:, 0]], points[index[:, 1]]
    far = np.linalg.norm(source - target, axis=1) > _MIN_SHIFT
    return source[far], target[far]


def _transforms(source: Points, target: Points) -> Iterator[npt.NDArray[Any]]:
    """Affine transforms (2, 3) that matches agree on, those of the most matches first."""
    for _ in range(_MAX_TRANSFORMS):
        if len(source) < _MIN_MATCHES:
            return
        transform, inliers = cv2.estimateAffine2D(source, target, ransacReprojThreshold=3)
        agree = inliers.ravel() > 0
        if transform is None or np.count_nonzero(agree) < _MIN_MATCHES:
            return
        source, target = source[~agree], target[~agree]
        scales = np.linalg.svd(transform[:, :2], compute_uv=False)
        if scales[1] >= 0.5 and scales[0] <= 2:
            yield transform


def _correlation(grey: npt.NDArray[Any], transform: npt.NDArray[Any]) -> ProbArray:
    """Local correlation (H, W), in [0, 1], of an image with itself under a transform."""
    height, width = grey.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = grey.astype(np.float32)
    moved = cv2.warpAffine(image, transform, (width, height), flags=flags)
    inside = cv2.warpAffine(np.ones_like(image), transform, (width, height), flags=flags) > 0.99
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places = np.tensordot(transform, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    far = np.hypot(places[0] - columns, places[1] - rows) > _MIN_SHIFT

    def mean(values: npt.NDArray[Any]) -> ProbArray:
        return np.asarray(cv2.blur(values, (_CORRELATION, _CORRELATION)))

    mean_image, mean_moved = mean(image), mean(moved)
    covariance = mean(image * moved) - mean_image * mean_moved
    # Variances below that of one grey level are rounding, not structure.
    of_image = np.maximum(mean(image * image) - mean_image**2, 1)
    of_moved = np.maximum(mean(moved * moved) - mean_moved**2, 1)
    correlation = covariance / np.sqrt(of_image * of_moved)
    return mean(np.where(inside & far, correlation, 0).clip(0, 1).astype(np.float32))
