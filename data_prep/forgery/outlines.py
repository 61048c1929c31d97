"""Outlines of the objects in photographs, from COCO annotations or a folder of masks.

They are kept as COCO's compressed run lengths: a few hundred bytes each, whatever the image.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.folders import files_below
from boxpromptiml.records import MaskArray
from boxpromptiml.synth.regions import connected_parts
from data_prep.annotations.coco import name_and_size, read_content, repeated
from data_prep.annotations.rle import checked_runs, packed, runs_of
from data_prep.annotations.screen import number, screening

_MAX_POINTS = 20_000  # of one outline: every point may cost as many steps as the image has rows
_OVERSHOOT = 2.0  # pixels a polygon may leave the image by before it is an error


@dataclass(frozen=True, slots=True)
class CocoOutlines:
    """The outlines of one image of a COCO file, not parsed yet.

    Attributes:
        size: (H, W) according to the file.
        segmentations: Polygons or run lengths as in the file, each with its place in it.
        rejected: What is wrong with the image's own row; it then has no segmentations.
    """

    size: tuple[float, float]
    segmentations: tuple[tuple[str, Any], ...]
    rejected: tuple[RejectedInput, ...] = ()


Outlines = CocoOutlines | Path  # a path leads to a mask


def find_outlines(regions: Path, photographs: Sequence[tuple[str, Path]]) -> dict[str, Outlines]:
    """Find the outlines of photographs in a COCO file or a folder of masks.

    Args:
        regions: A COCO file, whose `file_name` is the key of a photograph (annotations of crowds
            are left out); or a folder of masks, whose paths below it are the keys, endings aside.
        photographs: Keys and paths.

    Returns:
        Outlines by key, of the photographs that have some.

    Raises:
        UserError: If the file is not COCO, a name means two files, or no photograph has an outline.
    """
    by_key = _unique(photographs)
    found: dict[str, Outlines] = {}
    if regions.is_dir():
        files = [path for path in files_below(regions) if path.is_file()]
        masks = _unique((_stem(path.relative_to(regions)), path) for path in files)
        found |= {key: masks[_stem(Path(key))] for key in by_key if _stem(Path(key)) in masks}
    else:
        found |= _read_coco(regions, by_key)
    if not found:
        raise UserError(
            f"--regions {regions}: names none of the photographs; a name is the path below --images"
        )
    return found


def _unique(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for key, path in files:
        if key in named:
            raise UserError(f"--regions: {path} and {named[key]} have one name; rename one")
        named[key] = path
    return named


def _stem(relative: Path) -> str:
    return relative.with_suffix("").as_posix()


def _read_coco(path: Path, wanted: Container[str]) -> dict[str, CocoOutlines]:
    content = read_content(path)
    twice = repeated(content["images"], path)
    names: dict[Any, str] = {}  # by COCO's image id
    sizes: dict[str, tuple[float, float]] = {}
    rejected: dict[str, list[RejectedInput]] = {}
    for index, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or name not in wanted:
            continue
        with screening(f"{path}#images[{index}]", rejected.setdefault(name, [])):
            _, sizes[name] = name_and_size(image, twice)
            names[image["id"]] = name
    found: dict[str, list[tuple[str, Any]]] = {name: [] for name in rejected}
    unnamed: list[RejectedInput] = []  # dropped: an annotation without an image concerns nobody
    for index, annotation in enumerate(content["annotations"]):
        place = f"{path}#annotations[{index}]"
        with screening(place, unnamed):
            name = names.get(annotation["image_id"])
            if name is not None and not annotation.get("iscrowd"):
                found[name].append((place, annotation.get("segmentation")))
    return {
        name: CocoOutlines(sizes.get(name, (0, 0)), tuple(found[name]), tuple(bad))
        for name, bad in rejected.items()
    }


def read_outlines(
    outlines: Outlines, size: tuple[int, int]
) -> tuple[tuple[bytes, ...], list[RejectedInput]]:
    """Parse the outlines of an image.

    Args:
        outlines: As found.
        size: (H, W) of the image.

    Returns:
        Compressed run lengths (COCO) of the good outlines, and what was wrong with the others.
    """
    try:
        if isinstance(outlines, Path):
            return _from_mask(outlines, size), []
        return _from_coco(outlines, size)
    except RejectedInput as error:
        return (), [error]


def _from_mask(path: Path, size: tuple[int, int]) -> tuple[bytes, ...]:
    mask = images.read_mask(path)
    if mask.shape != size:
        raise RejectedInput(path, "size_mismatch", "the mask is not of the photograph's size")
    return tuple(encode_outline(part) for part in connected_parts(mask))


def encode_outline(mask: MaskArray) -> bytes:
    """Compressed run lengths (COCO) of a mask (H, W)."""
    return packed(runs_of(mask.ravel(order="F"))).encode()


def _from_coco(
    outlines: CocoOutlines, size: tuple[int, int]
) -> tuple[tuple[bytes, ...], list[RejectedInput]]:
    if outlines.segmentations and outlines.size != size:
        says = f"{outlines.size[0]:g} x {outlines.size[1]:g}"
        message = f"is said to be {says}, the photograph is {size[0]} x {size[1]} (height x width)"
        raise RejectedInput(outlines.segmentations[0][0], "size_mismatch", message)
    kept: list[bytes] = []
    rejected = list(outlines.rejected)
    for place, segmentation in outlines.segmentations:
        with screening(place, rejected):
            mask = _mask_of(segmentation, size)
            if not mask.any():
                raise ValueError("an outline holds no pixel")
            kept.append(encode_outline(mask))
    return tuple(kept), rejected


def _mask_of(segmentation: Any, size: tuple[int, int]) -> MaskArray:
    """Mask (H, W) of one outline.

    Raises:
        ValueError: If it is malformed; `screening` catches this and its kin.
    """
    if not isinstance(segmentation, list):
        return _unrolled(checked_runs(segmentation, size), size)
    if sum(len(polygon) for polygon in segmentation) > 2 * _MAX_POINTS:
        raise ValueError(f"an outline has more than {_MAX_POINTS} points")
    mask = np.zeros(size, dtype=np.bool_)
    for polygon in segmentation:
        _fill(mask, _points(polygon, size))
    return mask


def _points(polygon: Any, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The points x y of a polygon, (N, 2).

    Raises:
        ValueError: If there are fewer than three, or one lies far outside the image.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon needs three points or more, x and y each")
    points = np.array([number(value) for value in polygon]).reshape(-1, 2)
    if not ((points >= -_OVERSHOOT) & (points <= np.array(size[::-1]) + _OVERSHOOT)).all():
        raise ValueError("a polygon leaves the image")
    return points


def _fill(mask: MaskArray, points: npt.NDArray[np.float64]) -> None:
    """Set the pixels of a mask (H, W) whose centres lie in a polygon (N, 2), by the even-odd rule.

    cv2.fillPoly would draw the border too and make 9 x 9 pixels of a square of 8 x 8.
    """
    limit = mask.shape[::-1]
    left, top = (int(v) for v in np.clip(np.floor(points.min(axis=0)), 0, limit))
    right, bottom = (int(v) for v in np.clip(np.ceil(points.max(axis=0)), 0, limit))
    crossed = np.zeros((bottom - top, right - left + 1), dtype=np.bool_)
    for (xa, ya), (xb, yb) in zip(points, np.roll(points, -1, axis=0), strict=True):
        ends = np.clip(np.ceil(np.sort([ya, yb]) - 0.5), top, bottom)
        rows = np.arange(int(ends[0]), int(ends[1]))  # those whose centre line the edge crosses
        if len(rows):
            x = xa + (rows + 0.5 - ya) * (xb - xa) / (yb - ya)
            columns = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)
            crossed[rows - top, columns - left] ^= True
    inside = np.logical_xor.accumulate(crossed[:, :-1], axis=1)
    mask[top:bottom, left:right] |= inside


def decode_outline(counts: bytes, size: tuple[int, int]) -> MaskArray:
    """Mask (H, W) of the compressed run lengths of an outline, as `read_outlines` gives them.

    Raises:
        ValueError: If they do not fit the size.
    """
    return _unrolled(checked_runs({"size": size, "counts": counts.decode()}, size), size)


def _unrolled(runs: Sequence[int], size: tuple[int, int]) -> MaskArray:
    """Mask (H, W) of runs: columns first, background first."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(size, order="F"))
