"""Near-duplicates: different files that show the same picture.

A picture is recognised after recompression, resizing, and forgery of a part of it; not after
rotation, mirroring or a crop of more than a few percent. There are two steps. Hashes of 64 bits
find candidates: in one each bit says whether the brightness rises between two neighbours of a 9 x 8
thumbnail, in the other, for dark and blank scenes, whether a pixel of an 8 x 8 thumbnail is above
its mean. Then the differences between neighbouring pixels of two 16 x 16 thumbnails are correlated.
Differences and not grey values: any two landscapes have a bright sky.

A JPEG decoded at a reduced size has nearly the hashes of the whole (60 of 384 x 256: 0.4 bits
differ on average, at most 3), so every check looks for them. The CPU time for decoding and hashing
is then 0.5 instead of 1.2 ms, and 22 instead of 259 ms for 12 megapixels; a PNG comes whole (3 ms
for 384 x 256, 340 ms for 12 megapixels).

Of 1,500 and 300 photographs and forgeries that share scenes (450,000 pairs), 692 are candidates,
among them 79 of the 81 pairs that correlate above 0.5. Of the pairs between 0.38 and 0.75,
inspected by eye, all above 0.46 show the same scene, and different scenes begin below.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.records import ImageArray, MaskArray

MAX_RISE_BITS, MAX_BRIGHT_BITS = 15, 7
MIN_CORRELATION = 0.5

HashArray = npt.NDArray[np.uint64]
IndexArray = npt.NDArray[np.int64]
ThumbnailArray = npt.NDArray[np.uint8]  # (N, 16, 16)

_SIDE = 16  # of a thumbnail
_MIN_DETAIL = 3.0  # grey levels, standard deviation of a thumbnail; below it there is no picture
_COMPARISONS = 2**22  # hashes compared at a time, so that memory does not grow with the collections
_CHUNK = 4096  # rows at a time, so that memory does not grow with the number of candidates


class PictureHash(NamedTuple):
    """Two hashes and a thumbnail, by which a picture is recognised.

    Attributes:
        rises: 64 bits: where the brightness rises to the right.
        bright: 64 bits: where it is above the mean.
        thumbnail: 16 x 16 grey pixels, row by row.
    """

    rises: int
    bright: int
    thumbnail: bytes


class Pair(NamedTuple):
    """Two nearly identical pictures.

    Attributes:
        first: Index in the first collection.
        second: Index in the second collection.
        distance: Number of bits in which the closer pair of hashes differs.
        correlation: Correlation of the thumbnails' differences, at most 1.
    """

    first: int
    second: int
    distance: int
    correlation: float


def picture_hash(image: ImageArray) -> PictureHash | None:
    """Hash an image (H, W, 3); None if it shows nothing, such as a blank page."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    if float(thumbnail.std()) < _MIN_DETAIL:
        return None
    nine = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    eight = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA)
    rises, bright = nine[:, 1:] > nine[:, :-1], eight > eight.mean()
    return PictureHash(_packed(rises), _packed(bright), thumbnail.tobytes())


def near_duplicates(
    first: Sequence[PictureHash],
    second: Sequence[PictureHash],
    min_correlation: float = MIN_CORRELATION,
) -> list[Pair]:
    """Pairs of one picture of each collection, the most alike first.

    Pictures with equal hashes are interchangeable: if many share a hash on both sides, each of them
    is in a pair, but not all combinations are listed.

    Args:
        first: One collection, such as the training images.
        second: The other collection, such as the test images.
        min_correlation: Minimum correlation of the thumbnails, in [-1, 1].
    """
    ours, theirs = _by_hashes(first), _by_hashes(second)
    alike = _alike(
        [first[members[0]] for members in ours],
        [second[members[0]] for members in theirs],
        min_correlation,
    )
    combined = list(chain.from_iterable(_combinations(ours[i], theirs[j]) for i, j in alike))
    i, j = np.array(combined, np.int64).reshape(-1, 2).T
    values = correlations(_thumbnails(first), _thumbnails(second), i, j)
    pairs = (
        Pair(x, y, _distance(first[x], second[y]), float(value))
        for (x, y), value in zip(combined, values, strict=True)
        if value >= min_correlation
    )
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.first, pair.second))


def _alike(
    first: Sequence[PictureHash], second: Sequence[PictureHash], min_correlation: float
) -> list[tuple[int, int]]:
    """Index pairs that either hash finds and whose thumbnails correlate, in sorted order."""
    kept: list[IndexArray] = []
    thumbnails = _thumbnails(first), _thumbnails(second)
    for start, near in _close(first, second):
        i, j = np.nonzero(near)
        alike = correlations(*thumbnails, i + start, j) >= min_correlation
        kept.append(np.stack([i + start, j], axis=1)[alike])
    return [(i, j) for i, j in np.concatenate(kept).tolist()] if kept else []


def _close(
    first: Sequence[PictureHash], second: Sequence[PictureHash]
) -> Iterator[tuple[int, MaskArray]]:
    """For some rows of `first` at a time: where they start, and (rows, M) which hashes are close.

    Every hash is compared with every other: 2 x 10^8 pairs take about a second.
    """
    theirs = [(_array([h.rises for h in second]), MAX_RISE_BITS)]
    theirs.append((_array([h.bright for h in second]), MAX_BRIGHT_BITS))
    step = max(1, _COMPARISONS // max(len(second), 1))
    for start in range(0, len(first), step):
        rows = first[start : start + step]
        ours = _array([h.rises for h in rows]), _array([h.bright for h in rows])
        near = [
            np.bitwise_count(own[:, None] ^ other[None, :]) <= most
            for own, (other, most) in zip(ours, theirs, strict=True)
        ]
        yield start, near[0] | near[1]


def correlations(
    first: ThumbnailArray, second: ThumbnailArray, i: IndexArray, j: IndexArray
) -> npt.NDArray[np.float32]:
    """Correlation of pairs of thumbnails.

    Args:
        first: (N, ...) thumbnails.
        second: (M, ...) thumbnails.
        i: (P,) numbers of the thumbnails in `first`, one a pair.
        j: (P,) numbers of those in `second`.

    Returns:
        (P,) correlations of `first[i]` and `second[j]` in [-1, 1]; 0 where one is blank.
    """
    values = np.zeros(len(i), np.float32)
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        ours, theirs = _differences(first[i[part]]), _differences(second[j[part]])
        values[part] = (ours * theirs).sum(axis=1)
    return values


def _differences(thumbnails: ThumbnailArray) -> npt.NDArray[np.float32]:
    """(N, 480) differences between vertical and horizontal neighbours, scaled to length 1."""
    grey = thumbnails.astype(np.float32)
    down, right = np.diff(grey, axis=1), np.diff(grey, axis=2)
    both = np.concatenate([down.reshape(len(grey), -1), right.reshape(len(grey), -1)], axis=1)
    scaled: npt.NDArray[np.float32] = both / np.maximum(
        np.linalg.norm(both, axis=1, keepdims=True), 1e-6
    )
    return scaled


def _thumbnails(fingerprints: Sequence[PictureHash]) -> ThumbnailArray:
    joined = b"".join(one.thumbnail for one in fingerprints)
    return np.frombuffer(joined, np.uint8).reshape(-1, _SIDE, _SIDE)


def _packed(bits: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _array(hashes: Sequence[int]) -> HashArray:
    return np.array(hashes, np.uint64)


def _distance(one: PictureHash, other: PictureHash) -> int:
    return min((one.rises ^ other.rises).bit_count(), (one.bright ^ other.bright).bit_count())


def _by_hashes(fingerprints: Sequence[PictureHash]) -> list[list[int]]:
    """Indices grouped by equal hashes."""
    groups: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, one in enumerate(fingerprints):
        groups[one.rises, one.bright].append(index)
    return list(groups.values())


def _combinations(ours: Sequence[int], theirs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs that contain every member of both sides, without listing all combinations."""
    yield from ((ours[0], other) for other in theirs)
    yield from ((one, theirs[0]) for one in ours[1:])
