"""Probability maps as files: our own format, and those of other programs.

We write grey 16-bit PNGs whose level l means the probability l / 65535. If a network is extremely
confident or untrained, many pixels with different probabilities then share a level, which changes
the area under the ROC curve (AUC). Such a PNG has a private chunk with the same map on a finer
scale, which only this module reads: the AUC of a map read back is within 0.001 of the original's.
"""

import io
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import files, images
from boxpromptiml.records import ProbArray

SUFFIXES = (".png", ".npz", ".npy", ".tif", ".tiff")  # of files that hold a map

_CHUNK = b"bpSC"  # number of knots (<u2), the knots (<f4), a PNG of the levels between them
_TOP = 65535
_KNOTS = 1025
_MAX_MERGED = 1e-3  # fraction of the pixels that one level may make equal
_BAND_PIXELS = 2**20
_MAX_BYTES = 2**29  # of the numbers of one array
_MAX_HEADER = 2**16  # bytes of a .npy file; NumPy evaluates at most 10,000
Levels = npt.NDArray[np.uint16]  # (H, W)
Knots = npt.NDArray[np.float32]  # (K,) rising probabilities

_DTYPES = ("bool", "uint8", "uint16", "float16", "float32", "float64")


@dataclass(frozen=True)
class StoredMap:
    """A probability map with discrete levels.

    Attributes:
        levels: (H, W) level of each pixel.
        values: (256,) or (65536,), probability of each level, ascending.
    """

    levels: npt.NDArray[np.uint8] | Levels
    values: npt.NDArray[np.float64]

    @property
    def prob(self) -> ProbArray:
        """The probabilities (H, W)."""
        return self.values.astype(np.float32)[self.levels]


def linear_values(levels: int) -> npt.NDArray[np.float64]:
    """The probability of each of 256 or 65536 evenly spaced levels."""
    return np.arange(levels) / (levels - 1)


def quantise(prob: ProbArray) -> StoredMap:
    """A map (H, W) in [0, 1] with 65536 levels, as `read_map` gives it back."""
    even, fine = _quantised(prob)
    return StoredMap(even, linear_values(_TOP + 1)) if fine is None else _on_scale(*fine)


def encode_map(prob: ProbArray) -> bytes:
    """Encode a map (H, W) in [0, 1] as PNG."""
    even, fine = _quantised(prob)
    if fine is None:
        return images.encode_png(even)
    levels, knots = fine
    head = struct.pack("<H", len(knots)) + knots.astype("<f4").tobytes()
    return images.encode_png(even, (_CHUNK, head + images.encode_png(levels)))


def _quantised(prob: ProbArray) -> tuple[Levels, tuple[Levels, Knots] | None]:
    """Evenly spaced levels (H, W) and, if too coarse, finer ones with the knots of their scale.

    A probability half-way between two levels gets the lower one, so that 0.5 is not above 0.5.
    """
    even = np.empty(prob.shape, np.uint16)
    for rows in _bands(prob):
        even[rows] = np.ceil(prob[rows] * np.float32(_TOP) - np.float32(0.5)).clip(0, _TOP)
    if not _merges(prob, even):
        return even, None
    knots, fine = _knots(prob), np.empty(prob.shape, np.uint16)
    for rows in _bands(prob):
        fine[rows] = _levels_between(prob[rows], knots)
    return even, (fine, knots)


def _bands(prob: ProbArray) -> Iterator[slice]:
    """Rows of about a megapixel each, so that what is computed on the way takes little memory."""
    step = max(_BAND_PIXELS // prob.shape[1], 1)
    return (slice(top, top + step) for top in range(0, prob.shape[0], step))


def _merges(prob: ProbArray, levels: Levels) -> bool:
    """Whether any level merges more than the fraction `_MAX_MERGED` of the pixels."""
    counts = np.zeros(_TOP + 1, np.int64)
    for rows in _bands(prob):
        counts += np.bincount(levels[rows].ravel(), minlength=_TOP + 1)
    crowded = counts > _MAX_MERGED * levels.size
    one_of = np.full(_TOP + 1, np.nan, np.float32)
    for rows in _bands(prob):
        chosen = crowded[levels[rows]]
        members, values = levels[rows][chosen], prob[rows][chosen]
        new = np.isnan(one_of[members])
        one_of[members[new]] = values[new]
        if (values != one_of[members]).any():
            return True
    return False


def _knots(prob: ProbArray) -> Knots:
    """Up to 1025 ascending values of the map, at most 1/1024 of its pixels between neighbours."""
    ordered = np.sort(prob, axis=None)
    places = np.linspace(0, ordered.size - 1, _KNOTS).round().astype(np.intp)
    return np.unique(ordered[places]).astype(np.float32)


def _places(count: int) -> npt.NDArray[np.int64]:
    """The levels of the knots."""
    return np.linspace(0, _TOP, count).round().astype(np.int64)


def _levels_between(prob: ProbArray, knots: Knots) -> Levels:
    """Interpolate linearly between knots; only a knot's own value gets its level."""
    places = _places(len(knots))
    above = np.searchsorted(knots, prob)  # the first knot that is not below
    is_knot = knots[above] == prob
    below = np.maximum(above - 1, 0)
    inner = np.interp(prob, knots, places).round().astype(np.int64)
    inner = inner.clip(places[below] + 1, np.maximum(places[above] - 1, places[below] + 1))
    return np.where(is_knot, places[above], inner).astype(np.uint16)


def _on_scale(levels: Levels, knots: Knots) -> StoredMap:
    values = np.interp(np.arange(_TOP + 1), _places(len(knots)), knots.astype(np.float64))
    return StoredMap(levels, values)


def read_map(path: Path) -> StoredMap:
    """Read a map written by any program.

    Accepts grey PNG and TIFF of 8 or 16 bits, whose largest level means 1, and probabilities in [0,
    1] as float TIFF, .npy, or the array `map` of an .npz (TruFor's), or its only array.

    Raises:
        RejectedInput: If the file cannot be read, or does not contain a map of probabilities.
    """
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):
        return _read_picture(path)
    data = files.read_bytes(path, _MAX_BYTES)
    try:
        with _numbers(data, suffix) as (stream, length):
            array = _from_npy(stream, length)
    except Exception as error:  # numpy evaluates the header as Python and raises what that raises
        message = f"holds no map: {error} ({type(error).__name__})"
        raise RejectedInput(path, "no_map", message) from error
    return _of_numbers(path, array)


def _read_picture(path: Path) -> StoredMap:
    array, chunk = images.read_levels(path, _CHUNK)
    if chunk is None or array.dtype != np.uint16:
        return _of_numbers(path, array)
    try:
        (count,) = struct.unpack_from("<H", chunk)
        knots = np.frombuffer(chunk, "<f4", count, 2)
        levels, _ = images.decode_levels(chunk[2 + 4 * count :], str(path))
    except (struct.error, ValueError) as error:
        raise RejectedInput(path, "no_map", f"has a damaged scale: {error}") from error
    rises = 2 <= count <= _KNOTS and bool((np.diff(knots) > 0).all())  # nan does not
    if not (rises and knots[0] >= 0 and knots[-1] <= 1):
        raise RejectedInput(path, "no_map", "has a damaged scale: not rising within [0, 1]")
    if levels.dtype != np.uint16 or levels.shape != array.shape:
        raise RejectedInput(path, "no_map", "has a damaged scale: not of the map's size")
    return _on_scale(levels.astype(np.uint16, copy=False), knots.astype(np.float32))


def _of_numbers(path: Path, array: npt.NDArray[Any]) -> StoredMap:
    """Convert an array of levels or probabilities into a map."""
    sides = [side for side in array.shape if side != 1]  # (1, H, W, 1) is one map (H, W)
    numbers = array if array.ndim == 2 else array.reshape(sides)
    if numbers.ndim != 2 or not numbers.size:
        shape = " x ".join(map(str, array.shape))
        raise RejectedInput(path, "no_map", f"holds {shape} numbers, not one (H, W) map")
    if numbers.dtype in (np.uint8, np.uint16):
        return StoredMap(numbers, linear_values(2 ** (8 * numbers.dtype.itemsize)))
    prob = numbers.astype(np.float32)
    if not (prob.min() >= 0 and prob.max() <= 1):  # nan fails too
        message = "has values outside [0, 1]; save probabilities, after the sigmoid"
        raise RejectedInput(path, "no_probability", message)
    return quantise(prob)


@contextmanager
def _numbers(data: bytes, suffix: str) -> Iterator[tuple[IO[bytes], int]]:
    """A .npy file, or of an .npz the array `map` or the only one; as a stream, with its length."""
    if suffix == ".npy":
        yield io.BytesIO(data), len(data)
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        arrays = {PurePosixPath(one.filename).stem: one for one in archive.infolist()}
        chosen = arrays.get("map", next(iter(arrays.values())) if len(arrays) == 1 else None)
        if chosen is None:
            raise ValueError(f"no array named map among {', '.join(sorted(arrays)[:5])}")
        if chosen.compress_type not in files.ZIP_METHODS:
            raise ValueError(f"{chosen.filename} is compressed otherwise than NumPy does")
        if chosen.file_size > _MAX_BYTES:
            raise ValueError(f"{chosen.filename} unpacks to {chosen.file_size} bytes")
        with archive.open(chosen) as stream:
            yield stream, chosen.file_size


def _from_npy(stream: IO[bytes], length: int) -> npt.NDArray[Any]:
    """Parse a .npy file of a declared length and with an untrusted header.

    Numbers are unpacked only if they are as many as the header says; objects are never unpickled.
    """
    begin = stream.read(_MAX_HEADER)
    head = io.BytesIO(begin)
    version = np.lib.format.read_magic(head)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = readers[version](head)
    if dtype.newbyteorder("=").name not in _DTYPES:
        raise ValueError(f"numbers of type {dtype}; save float32")
    count = length - head.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != count:
        raise ValueError(f"header says {shape} {dtype}, which {count} bytes are not")
    body = head.read() + stream.read()
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")
