"""Ground-truth masks with as many wrong pixels as pseudo-masks have, but in random places.

    python -m benchmarks.degraded_masks --manifest pseudo/manifest.jsonl --out degraded

Each mask gets the area of its image's pseudo-mask and the same IoU with the ground truth, inside
the same boxes; the errors lie where smooth noise puts them, not where the teacher was misled. A
student of `degraded/manifest.jsonl` (`--data.supervision=mask`) beside students of ground
truth and of pseudo-masks tells how many errors cost from which errors cost.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from boxpromptiml.geometry import as_array, union_mask
from boxpromptiml.io.files import generator
from boxpromptiml.io.images import read_trimap, write_png
from boxpromptiml.manifests.manifest import Header, read_manifest, safe_name, write_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.records import MANIPULATED, MaskArray, Sample

_SMOOTH = 8.0  # standard deviation of the noise's filter, in pixels
_STEPS = 20  # of the bisection
_LARGEST = 1000.0  # amplitude of the noise, in pixels


def iou(mask: MaskArray, truth: MaskArray) -> float:
    """Intersection over union of two masks, at least one of which is not empty."""
    return float(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))


def degraded(
    truth: MaskArray, pseudo: MaskArray, inside: MaskArray, rng: np.random.Generator
) -> MaskArray:
    """A mask of the area of `pseudo` and about its IoU with `truth`.

    Its pixels are those of the highest signed distance to the border of the truth plus noise; the
    amplitude of the noise is found by bisection.

    Args:
        truth: Ground truth (H, W).
        pseudo: Pseudo-mask (H, W); of an empty one, the result is empty too.
        inside: Pixels (H, W) that may be marked.
        rng: Draws the noise.
    """
    if not pseudo.any():
        return np.zeros_like(truth)
    distance = (_distance(truth) - _distance(~truth))[inside]
    noise = cv2.GaussianBlur(rng.standard_normal(truth.shape), (0, 0), _SMOOTH)
    noise = noise[inside] / noise.std()
    area, aim = min(int(pseudo.sum()), int(distance.size)), iou(pseudo, truth)
    low, high = 0.0, _LARGEST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        marked = np.zeros(distance.size, dtype=bool)
        marked[np.argpartition(distance + middle * noise, -area)[-area:]] = True
        mask = np.zeros(truth.shape, dtype=bool)
        mask[inside] = marked
        low, high = (middle, high) if iou(mask, truth) > aim else (low, middle)
    return mask


def _distance(mask: MaskArray) -> npt.NDArray[np.float64]:
    """Distance (H, W) of each marked pixel to the next that is not, in pixels."""
    padded = np.pad(mask.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1].astype(np.float64)


def main() -> None:
    """Write OUT/masks and OUT/manifest.jsonl, and print the mean IoU of both kinds of mask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--manifest", type=Path, required=True, help="with pseudo-masks and masks")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    manifest = read_manifest(options.manifest)
    images = (manifest.path.parent / manifest.header.image_root).resolve()
    out = options.out.resolve()
    root = Path(os.path.commonpath([images, out]))
    samples: list[Sample] = []
    scores: list[tuple[float, float]] = []
    for sample in manifest.samples:
        moved = replace(sample, image=str((images / sample.image).relative_to(root)), mask=None)
        moved = replace(moved, pseudo_mask=None, mask_threshold=None)
        path = manifest.pseudo_mask_path(sample)
        if sample.label == 1 and path is not None:
            truth = ground_truth(Source(manifest, sample))
            pseudo = read_trimap(path) == MANIPULATED
            inside = union_mask(as_array(sample.boxes or ()), sample.size)
            mask = degraded(truth, pseudo, inside, generator(0, sample.id))
            scores.append((iou(pseudo, truth), iou(mask, truth)))
            target = out / "masks" / f"{safe_name(sample.id)}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_png(target, mask.astype(np.uint8) * 255)
            moved = replace(moved, mask=str(target.relative_to(root)))
        samples.append(moved)
    header = Header(image_root=os.path.relpath(root, out))
    write_manifest(out / "manifest.jsonl", header, samples)
    print(
        "mean IoU with the ground truth: pseudo-masks {:.3f}, degraded {:.3f}".format(
            *np.mean(scores, axis=0)
        )
    )


if __name__ == "__main__":
    main()
