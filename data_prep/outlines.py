"""Segment outlines of photographs, from COCO annotations or a folder of masks.

They are kept as COCO's compressed run lengths: a few hundred bytes each, whatever the image.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from boxpromptiml import images
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifest import parse_json
from boxpromptiml.records import MaskArray
from boxpromptiml.synth.regions import connected_parts

_MAX_BYTES = 512 * 2**20
_OVERSHOOT = 2.0  # pixels a polygon may leave the image by before it is an error


@dataclass(frozen=True, slots=True)
class CocoOutlines:
    """The unread outlines of one image of a COCO file.

    Attributes:
        size: (H, W) that the file says.
        segmentations: Polygons or run lengths as in the file, each with its place in it.
    """

    size: tuple[int, int]
    segmentations: tuple[tuple[str, Any], ...]


Outlines = CocoOutlines | Path  # a path leads to a mask


def find_outlines(regions: Path, photographs: Sequence[tuple[str, Path]]) -> dict[str, Outlines]:
    """Outlines by key of a photograph, from a COCO file or a folder of masks.

    COCO's `file_name` is the key; annotations of crowds are left out. A mask's path below its
    folder is the key but for the ending.

    Args:
        photographs: Keys and paths.

    Raises:
        UserError: If the file is not COCO, a name means two files, or no photograph has an outline.
    """
    by_key = _unique(photographs)
    found: dict[str, Outlines] = {}
    if regions.is_dir():
        files = [path for path in sorted(regions.rglob("*")) if path.is_file()]
        masks = _unique((_stem(path.relative_to(regions)), path) for path in files)
        found |= {key: masks[_stem(Path(key))] for key in by_key if _stem(Path(key)) in masks}
    else:
        found |= _read_coco(regions, by_key)
    if not found:
        raise UserError(
            f"--regions {regions}: names none of the photographs; a name is the path below --photos"
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
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: larger than {_MAX_BYTES >> 20} MiB")
        content = parse_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    try:
        names = {
            image["id"]: (image["file_name"], (int(image["height"]), int(image["width"])))
            for image in content["images"]
            if image["file_name"] in wanted
        }
        found: dict[str, list[tuple[str, Any]]] = {name: [] for name, _ in names.values()}
        for number, annotation in enumerate(content["annotations"]):
            image = names.get(annotation.get("image_id"))
            if image and not annotation.get("iscrowd"):
                place = f"{path}#annotations[{number}]"
                found[image[0]].append((place, annotation.get("segmentation")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not COCO: {type(error).__name__} {error}") from error
    return {name: CocoOutlines(size, tuple(found[name])) for name, size in names.values()}


def read_outlines(
    outlines: Outlines, size: tuple[int, int]
) -> tuple[tuple[bytes, ...], list[RejectedInput]]:
    """Run lengths of the outlines of an image of `size` (H, W), and what was wrong with others."""
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
    return tuple(_encoded(part) for part in connected_parts(mask))


def _encoded(mask: MaskArray) -> bytes:
    return _counts(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def _counts(run_lengths: Any) -> bytes:
    """The compressed counts of pycocotools, whose stubs take them for text."""
    return bytes(run_lengths["counts"])


def _from_coco(
    outlines: CocoOutlines, size: tuple[int, int]
) -> tuple[tuple[bytes, ...], list[RejectedInput]]:
    if outlines.segmentations and outlines.size != size:
        message = f"is said to be {outlines.size}, the photograph is {size} (height, width)"
        raise RejectedInput(outlines.segmentations[0][0], "size_mismatch", message)
    kept: list[bytes] = []
    rejected: list[RejectedInput] = []
    for place, segmentation in outlines.segmentations:
        try:
            kept.append(_run_lengths(segmentation, size))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            message = f"no polygon or run lengths: {error}"[:200]
            rejected.append(RejectedInput(place, "bad_annotation", message))
    return tuple(kept), rejected


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> bytes:
    """One outline, checked as pycocotools does not: its C code trusts what it gets."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            _check_polygon(np.asarray(polygon, dtype=np.float64), size)
        counts = _counts(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)))
    elif list(segmentation["size"]) != list(size):
        raise ValueError("run lengths of another size than the image")
    elif isinstance(segmentation["counts"], list):
        runs = [int(count) for count in segmentation["counts"]]
        if min(runs) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError("run lengths do not add up to the image")
        mask = np.repeat(np.arange(len(runs)) % 2, runs)  # columns first, background first
        counts = _encoded(mask.reshape(size, order="F").astype(np.bool_))
    else:
        counts = str(segmentation["counts"]).encode()
        if _encoded(decode_outline(counts, size)) != counts:
            raise ValueError("run lengths do not add up to the image")
    if not decode_outline(counts, size).any():
        raise ValueError("an outline holds no pixel")
    return counts


def _check_polygon(points: npt.NDArray[np.float64], size: tuple[int, int]) -> None:
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon needs three points or more, x and y each")
    low, high = -_OVERSHOOT, np.tile(size[::-1], len(points) // 2) + _OVERSHOOT
    if not ((points >= low) & (points <= high)).all():
        raise ValueError("a polygon leaves the image, or has points that are no numbers")


def decode_outline(counts: bytes, size: tuple[int, int]) -> MaskArray:
    """Mask (H, W) of compressed run lengths."""
    decoded = coco_mask.decode({"size": list(size), "counts": counts})
    return np.ascontiguousarray(decoded).astype(np.bool_)
