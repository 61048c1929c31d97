"""`python -m data_prep cam-boxes`: boxes from a trained network for images with a label only.

The bridge from image labels to box supervision: an image that has only a label gets boxes where a
network trained on image labels sees the manipulation; like boxes drawn by a person, these prompt a
teacher.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml import geometry
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.options import AtLeastOne, Seed, needs
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.manifests.sources import Source, stored_image
from boxpromptiml.manifests.splits import nested_fraction
from boxpromptiml.records import Box, Description, ImageArray, MaskArray, ProbArray, Sample
from boxpromptiml.segmenters.config import SegmenterConfig
from data_prep.derive import derive, require_outputs

_VERSION = 1  # raise it when a box changes without a setting changing


class ScoredBox(NamedTuple):
    """A box in half-open pixels of the stored image, with the map's confidence in it."""

    box: Box
    score: float  # mean of the map over the component inside, in [0, 1]


@dataclass(frozen=True)
class MapBoxes:
    """How a probability map becomes boxes.

    A component is a connected set of pixels (8 neighbours) above the threshold. Areas count its
    pixels, not those of its box.

    Attributes:
        threshold: Pixels strictly above it count, in [0, 1). Of 0.3 to 0.7, 0.6 gave the best boxes
            on 100 synthetic forgeries (IoU with the tight boxes .66; at 0.5 .62).
        merge: Components closer than about this fraction of the image's longer side are merged.
        min_area: Smaller components are dropped; a fraction of the image.
        max_area: Larger components are dropped; a fraction of the image.
        most: Maximum number of boxes per image; those with the highest score x area are kept.
        expand: Growth of a box on every side, as a fraction of its width and height.
        always: Fallback when no component passes: the component around the maximum, above this
            fraction of the maximum, the threshold raised until it fits `max_area`; `min_area` is
            ignored. None: such an image has no box.

    Raises:
        UserError: If a value is out of range; the message names it.
    """

    threshold: float = 0.6
    merge: float = 0.0
    min_area: float = 0.002
    max_area: float = 0.8
    most: int = 3
    expand: float = 0.0
    always: float | None = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.threshold < 1 and (self.always is None or 0 <= self.always < 1)):
            raise UserError("boxes: threshold and always must be in [0, 1)")
        if not 0 <= self.min_area <= self.max_area <= 1 or self.max_area == 0:
            raise UserError("boxes: need 0 <= min_area <= max_area <= 1 and max_area > 0")
        if not (0 <= self.merge < 1 and 0 <= self.expand <= 10 and self.most >= 1):
            raise UserError("boxes: need merge in [0, 1), expand in [0, 10] and most >= 1")

    @property
    def settings(self) -> Description:
        """Every setting that changes a box."""
        return {"name": "map-boxes", "settings": asdict(self) | {"version": _VERSION}}


class _Components(NamedTuple):
    """Connected parts of a map, N of them."""

    boxes: npt.NDArray[np.int64]  # (N, 4) x0 y0 x1 y1
    area: npt.NDArray[np.int64]  # (N,) pixels
    total: npt.NDArray[np.float64]  # (N,) sum of the probability
    top: MaskArray  # (N,) whether the highest probability of the map is in it


def boxes_from_map(prob: ProbArray, settings: MapBoxes) -> list[ScoredBox]:
    """Boxes from a map (H, W) in [0, 1] of an image that is known to be manipulated.

    Returns:
        Boxes by descending score x area; none for a map without contrast, or if nothing passes and
        `always` is None.

    Raises:
        ValueError: If the map is not (H, W), or a value is outside [0, 1] or nan.
    """
    if prob.ndim != 2 or not prob.size or not (prob.min() >= 0 and prob.max() <= 1):
        raise ValueError(f"prob must be (H, W) in [0, 1] and not nan, got shape {prob.shape}")
    found = _components(prob, prob > settings.threshold, settings.merge)
    fraction = found.area / prob.size
    kept = (fraction >= settings.min_area) & (fraction <= settings.max_area)
    if not kept.any() and settings.always is not None:
        found = _components(prob, prob > _level(prob, settings), settings.merge)
        kept = found.top
    chosen = np.flatnonzero(kept)
    order = np.lexsort((*found.boxes[chosen].T, -found.total[chosen]))  # ties by place
    best = chosen[order][: settings.most]
    tight, size = found.boxes[best].astype(np.float32), (prob.shape[0], prob.shape[1])
    return [
        ScoredBox(Box(*(float(v) for v in box)), float(score))
        for box, score in zip(
            geometry.expand(tight, settings.expand, size),
            found.total[best] / found.area[best],
            strict=True,
        )
    ]


def _level(prob: ProbArray, settings: MapBoxes) -> float:
    """The relative threshold of `always`, raised until what is above it fits into `max_area`."""
    place = max(prob.size - 1 - int(settings.max_area * prob.size), 0)
    fitting = np.partition(prob, place, axis=None)[place]
    return max((settings.always or 0.0) * float(prob.max()), float(fitting))


def _components(prob: ProbArray, mask: MaskArray, merge: float) -> _Components:
    """The connected parts of a mask (H, W), those near each other taken together."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(_bytes(mask), connectivity=8)
    numbers = np.asarray(labels).ravel()
    total = np.bincount(numbers, prob.ravel(), count)[1:]  # 0 is the background
    top = np.zeros(count, dtype=bool)
    top[np.asarray(labels)[prob == prob.max()]] = True
    x0, y0, width, height, area = np.asarray(stats, dtype=np.int64)[1:].T
    found = _Components(
        np.stack([x0, y0, x0 + width, y0 + height], axis=1), area, total.astype(float), top[1:]
    )
    radius = round(merge * max(mask.shape) / 2)
    if not radius or count <= 2:
        return found
    distance = np.asarray(cv2.distanceTransform(_bytes(~mask), cv2.DIST_C, 3))
    groups, near = cv2.connectedComponents(_bytes(distance <= radius), connectivity=8)
    group = np.zeros(count, dtype=np.int64)
    group[numbers] = np.asarray(near).ravel() - 1
    return _grouped(found, group[1:], groups - 1)


def _grouped(parts: _Components, group: npt.NDArray[np.int64], count: int) -> _Components:
    """Components of one group as one; every group has at least one."""
    boxes = np.tile(parts.boxes.max(axis=0), (count, 1))
    boxes[:, 2:] = 0
    np.minimum.at(boxes[:, :2], group, parts.boxes[:, :2])
    np.maximum.at(boxes[:, 2:], group, parts.boxes[:, 2:])
    area = np.bincount(group, parts.area, count).astype(np.int64)
    total = np.bincount(group, parts.total, count).astype(float)
    return _Components(boxes, area, total, np.bincount(group, parts.top, count) > 0)


def _bytes(mask: MaskArray) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


@needs("seed", "box_fraction")
def cam_boxes(
    manifest: Path,
    checkpoint: Path,
    out: Path,
    boxes: MapBoxes = MapBoxes(),
    box_fraction: float = 1.0,
    seed: Seed = 0,
    batch_size: AtLeastOne = 8,
    device: str = "auto",
    segmenter: SegmenterConfig | None = None,
) -> int:
    """Box what a trained network sees in manipulated images without boxes.

    Only images with label 1 and without boxes are opened, and no mask, so supervision remains by
    image labels. Since the label is known, a map is used relative to its maximum, whatever the
    network's confidence that the image is manipulated. These boxes get the origin `cam`; an image
    in which the network sees nothing gets none. All other rows are unchanged. Images that cannot be
    read are listed in <out stem>.errors.jsonl, and the exit status is 3. Run `pseudo-masks` on the
    result as for any boxes.

    Args:
        manifest: The images.
        checkpoint: A checkpoint of `boxpromptiml fit`. A WCBnet was trained on image labels only;
            boxes of a student also reflect its own supervision (the header's notes name the kind).
        out: Manifest to write (.jsonl).
        boxes: How a map becomes boxes.
        box_fraction: Fraction of the boxed manipulated images that keep their boxes; the others are
            treated as not boxed. With the same seed, a larger fraction contains a smaller one.
        seed: Seed of the choice of these images, which depends on their ids, not on their order.
        batch_size: Images per forward pass.
        device: cpu or cuda; auto: a GPU if there is one.
        segmenter: Refine the maps with these regions instead of the checkpoint's own.

    Raises:
        UserError: If an option is out of range, or manifest or checkpoint cannot be used.
    """
    require_outputs(out)
    if not 0 <= box_fraction <= 1:
        raise UserError(f"--box_fraction must be in [0, 1], got {box_fraction}")
    source = read_manifest(manifest)
    localizer = Localizer.load(checkpoint, device, segmenter, isolate=True, copy_move=False)
    unboxed = _unboxed(source.samples, box_fraction, seed)
    results = _localized(source, unboxed, localizer, boxes, batch_size)
    rejected = [result for result in results.values() if isinstance(result, RejectedInput)]
    samples = [
        _with_boxes(sample, results.get(sample.id))
        for sample in source.samples
        if not isinstance(results.get(sample.id), RejectedInput)
    ]
    notes = {
        "checkpoint": checkpoint.name,
        "network": localizer.spec.kind,
        "checkpoint_sha256": sha256_file(checkpoint),
        "segmenter": localizer.segmenter.settings if localizer.segmenter else None,
        "boxes": boxes.settings,
        "box_fraction": box_fraction,
        "seed": seed,
    }
    status = derive(source, out, samples, rejected, {"cam_boxes": notes})
    found = [result for result in results.values() if isinstance(result, tuple)]
    sys.stdout.write(
        f"{out}: {len(samples)} images, {sum(map(bool, found))} boxed by the network with "
        f"{sum(map(len, found))} boxes, {found.count(())} in which it sees nothing, "
        f"{len(rejected)} rejected\n"
    )
    return status


def _unboxed(samples: Iterable[Sample], fraction: float, seed: int) -> list[Sample]:
    """Manipulated samples without boxes, and those that do not keep their boxes."""
    manipulated = [sample for sample in samples if sample.label == 1]
    boxed = [sample.id for sample in manipulated if sample.boxes is not None]
    keeping = nested_fraction(boxed, fraction, seed)
    return [sample for sample in manipulated if sample.id not in keeping]


def _localized(
    manifest: Manifest,
    samples: Sequence[Sample],
    localizer: Localizer,
    settings: MapBoxes,
    batch_size: int,
) -> dict[str, tuple[Box, ...] | RejectedInput]:
    """Yield boxes of every sample, or why it has none, by id, in the order of the samples."""
    results: dict[str, tuple[Box, ...] | RejectedInput] = {sample.id: () for sample in samples}

    def images() -> Iterator[tuple[str, ImageArray]]:
        by_size = sorted(samples, key=lambda sample: sample.size)  # one size goes through together
        for sample in track(by_size, "boxing", len(by_size)):
            try:
                yield sample.id, stored_image(Source(manifest, sample))
            except RejectedInput as error:
                sys.stderr.write(f"rejected {error}\n")
                results[sample.id] = error

    for key, _, found in localizer.localize_each(images(), batch_size):
        relative = found.prob / max(float(found.prob.max()), 1e-6)
        results[key] = tuple(one.box for one in boxes_from_map(relative, settings))
    return results


def _with_boxes(sample: Sample, boxes: tuple[Box, ...] | RejectedInput | None) -> Sample:
    """The sample with the network's boxes, without a pseudo-mask of other boxes."""
    if not isinstance(boxes, tuple):
        return sample
    blank = dataclasses.replace(sample, boxes=None, box_origin=None, pseudo_mask=None)
    return dataclasses.replace(blank, boxes=boxes, box_origin="cam") if boxes else blank
