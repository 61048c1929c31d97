"""How good and how fast are pseudo-masks without weights, against ground truth.

Run it from the repository root, with one thread in every library:

    OMP_NUM_THREADS=1 python -m benchmarks.grabcut_quality --data DATA/val

`--data` is a folder with `boxes.json` (COCO), the images it names, and `masks/<stem>.png`. Prints a
markdown table. All methods take turns on each image in one process, so that other load affects
all of them alike; times are CPU time. The plain GrabCut is OpenCV's, full frame, started from the
rectangle with 5 iterations, with an ellipse where it fills less than a fifth of the box.

`sure pixels` leaves out what the consensus is unsure of. Those are the hard pixels, so compare it
with the row of the single proposal on the same pixels.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from boxpromptiml.geometry import as_array, clip, pixel_slices, union_mask
from boxpromptiml.io.images import read_image, read_mask
from boxpromptiml.records import (
    MANIPULATED,
    UNSURE,
    Box,
    BoxArray,
    ImageArray,
    MaskArray,
    TrimapArray,
)
from boxpromptiml.teachers.consensus import Consensus, pseudo_mask
from boxpromptiml.teachers.grabcut import GrabCutTeacher, ellipse

KINDS = ("splice", "copymove", "removal")
BASELINE = "plain GrabCut"
SINGLE = "GrabCutTeacher"


@dataclass
class Row:
    """Scores of one method, one entry per image."""

    iou: list[float] = field(default_factory=list)
    f1: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, mask: MaskArray, truth: MaskArray, seconds: float = float("nan")) -> None:
        """Add the scores of a mask; 1 if mask and truth are both empty."""
        both, either = np.count_nonzero(mask & truth), np.count_nonzero(mask | truth)
        self.iou.append(both / either if either else 1.0)
        self.f1.append(2 * both / (either + both) if either else 1.0)
        self.seconds.append(seconds)


def manipulated(folder: Path, limit: int | None) -> Iterator[tuple[str, BoxArray, Path]]:
    """Kind, boxes and path of every image with boxes; with a limit, an evenly spaced subset."""
    coco = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    boxes: dict[int, list[Box]] = {}
    for entry in coco["annotations"]:
        x, y, width, height = entry["bbox"]
        boxes.setdefault(entry["image_id"], []).append(Box(x, y, x + width, y + height))
    chosen = [image for image in coco["images"] if image["id"] in boxes]
    step = max(1, len(chosen) // limit) if limit else 1
    for image in chosen[::step][:limit]:
        path = folder / image["file_name"]
        size = (image["height"], image["width"])
        yield path.stem.split("_")[0], clip(as_array(boxes[image["id"]]), size), path


def plain_grabcut(image: ImageArray, boxes: BoxArray) -> TrimapArray:
    """OpenCV's GrabCut as its tutorial starts it, box by box."""
    size = (image.shape[0], image.shape[1])
    union = np.zeros(size, dtype=bool)
    for box in boxes:
        rows, columns = pixel_slices(box, size)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        rect = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        labels = np.zeros(size, dtype=np.uint8)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        try:
            cv2.grabCut(image, labels, rect, *models, 5, cv2.GC_INIT_WITH_RECT)
            mask = (labels & 1).astype(bool)
        except cv2.error:  # the box is the whole image: no background to learn from
            mask = np.zeros(size, dtype=bool)
        union |= mask if mask.sum() >= 0.2 * area else ellipse(box, size, 1.0)
    return as_levels(union)


def ellipses(image: ImageArray, boxes: BoxArray) -> TrimapArray:
    """An ellipse that touches the sides of every box."""
    size = (image.shape[0], image.shape[1])
    return as_levels(np.any([ellipse(box, size, 1.0) for box in boxes], axis=0))


def as_levels(mask: MaskArray) -> TrimapArray:
    """A mask as a trimap without unsure pixels."""
    return (mask * MANIPULATED).astype(np.uint8)


def measure(folder: Path, limit: int | None, consensus: Consensus) -> str:
    """The table, and how much the consensus leaves unsure, as Markdown."""
    teacher = GrabCutTeacher()
    many = f"consensus of {consensus.copies}"
    methods: dict[str, Callable[[ImageArray, BoxArray], TrimapArray]] = {
        "filled box": lambda image, boxes: as_levels(union_mask(boxes, image.shape[:2])),
        "ellipse in the box": ellipses,
        BASELINE: plain_grabcut,
        SINGLE: lambda image, boxes: pseudo_mask(teacher, image, boxes, Consensus())[0],
        many: lambda image, boxes: pseudo_mask(teacher, image, boxes, consensus)[0],
    }
    rows: dict[str, Row] = {}
    kinds, unsure, unsure_of_box = [], [], []
    hits = np.zeros((2, 2), dtype=np.int64)  # sure | unsure x all | single proposal right, in boxes
    for turn, (kind, boxes, path) in enumerate(manipulated(folder, limit)):
        image, _ = read_image(path)
        truth = read_mask(folder / "masks" / f"{path.stem}.png")
        levels, seconds = {}, {}
        for name in list(methods)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            levels[name] = methods[name](image, boxes)
            seconds[name] = time.process_time() - start
        for name in list(methods)[:-1]:
            rows.setdefault(name, Row()).add(levels[name] == MANIPULATED, truth, seconds[name])
        ours, doubtful = levels[many] == MANIPULATED, levels[many] == UNSURE
        single = levels[SINGLE] == MANIPULATED
        inside = union_mask(boxes, truth.shape)
        for name, mask, reference, spent in (
            (f"{many}, unsure as authentic", ours, truth, seconds[many]),
            (f"{many}, unsure as manipulated", ours | doubtful, truth, seconds[many]),
            (f"{many}, sure pixels", ours[~doubtful], truth[~doubtful], seconds[many]),
            (f"{SINGLE}, the same pixels", single[~doubtful], truth[~doubtful], seconds[SINGLE]),
        ):
            rows.setdefault(name, Row()).add(mask, reference, spent)
        kinds.append(kind)
        unsure.append(doubtful.mean())
        unsure_of_box.append(doubtful[inside].mean())
        for place, where in enumerate((inside & ~doubtful, inside & doubtful)):
            hits[place] += where.sum(), (where & (single == truth)).sum()
    right = hits[:, 1] / np.maximum(hits[:, 0], 1)
    summary = (
        f"\nUnsure pixels: {np.mean(unsure):.1%} of the image, {np.mean(unsure_of_box):.1%} of the"
        f" boxes. The single proposal is right on {right[0]:.1%} of the boxes' sure pixels and on"
        f" {right[1]:.1%} of their unsure ones.\n{consensus}\n{teacher}"
    )
    return table(rows, np.array(kinds)) + summary


def table(rows: dict[str, Row], kinds: np.ndarray) -> str:
    """Markdown: means over the images; differences paired by image, plus or minus 1 s.e."""
    base, present = rows[BASELINE], [kind for kind in KINDS if kind in kinds]
    head = ["", "IoU", "F1", *(f"IoU {k} ({(kinds == k).sum()})" for k in present)]
    head += [*(f"F1 {k}" for k in present), "IoU - plain, paired", "ms/image", "speed"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        iou, f1 = np.array(row.iou), np.array(row.f1)
        difference = iou - np.array(base.iou)
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        cells = [name, f"{iou.mean():.3f}", f"{f1.mean():.3f}"]
        cells += [f"{v[kinds == k].mean():.3f}" for v in (iou, f1) for k in present]
        cells += [
            f"{difference.mean():+.3f} ± {error:.3f}",
            f"{1e3 * np.mean(row.seconds):.1f}",
            f"{np.sum(base.seconds) / np.sum(row.seconds):.1f}x",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return f"{len(kinds)} images\n\n" + "\n".join(lines)


def main() -> None:
    """Read the arguments and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with boxes.json")
    parser.add_argument("--limit", type=int, help="number of images, evenly spread (default: all)")
    parser.add_argument("--copies", type=int, default=5, help="proposals per box (default: 5)")
    parser.add_argument("--jitter", type=float, default=Consensus().jitter)
    parser.add_argument("--upper", type=float, default=Consensus().upper)
    parser.add_argument("--lower", type=float, default=Consensus().lower)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    consensus = Consensus(options.copies, options.jitter, options.upper, options.lower)
    print(measure(options.data, options.limit, consensus))


if __name__ == "__main__":
    main()
