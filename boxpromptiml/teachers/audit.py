"""How good pseudo-masks are, where the ground truth is known; weak training never sees this."""

import logging
from typing import Any

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest
from boxpromptiml.metrics.pixel import Counts, f1, iou
from boxpromptiml.records import MANIPULATED, UNSURE, MaskArray, TrimapArray

log = logging.getLogger(__name__)


def audit(manifest: Manifest) -> dict[str, Any]:
    """Compare pseudo-masks with the ground truth, where there is one.

    Unsure pixels are left out of both; a mask that is missing or damaged leaves its image out.

    Returns:
        `images`, `iou` and `f1` (means over images), `unsure` (fraction of pixels), `worst` (the 20
        lowest IoUs, id and value).
    """
    rows: list[tuple[str, float, float, float]] = []
    for sample in manifest.samples:
        pseudo_path = manifest.pseudo_mask_path(sample)
        if sample.mask is None or pseudo_path is None:
            continue
        try:
            mask_path = manifest.mask_path(sample)
            if mask_path is None or not mask_path.exists():
                continue
            truth = images.read_mask(mask_path, sample.mask_threshold)
            trimap = images.read_trimap(pseudo_path)
            if truth.shape != trimap.shape:
                raise RejectedInput(mask_path, "size_mismatch", "is not of the image's size")
        except RejectedInput as error:
            log.warning("not audited: %s", error)
            continue
        counts = sure_counts(trimap, truth)
        unsure = float(np.mean(trimap == UNSURE))
        rows.append((sample.id, np.nan_to_num(iou(counts)), np.nan_to_num(f1(counts)), unsure))
    if not rows:
        return {"images": 0}
    worst = sorted(rows, key=lambda row: row[1])[:20]
    return {
        "images": len(rows),
        "iou": float(np.mean([row[1] for row in rows])),
        "f1": float(np.mean([row[2] for row in rows])),
        "unsure": float(np.mean([row[3] for row in rows])),
        "worst": [{"id": row[0], "iou": round(row[1], 4)} for row in worst],
    }


def sure_counts(trimap: TrimapArray, truth: MaskArray) -> Counts:
    """Counts of a pseudo-mask (H, W) of 0, 127 and 255 against the truth, but for unsure pixels."""
    sure, flagged = trimap != UNSURE, trimap == MANIPULATED
    tp = int(np.count_nonzero(flagged & truth))
    fp = int(np.count_nonzero(flagged & ~truth))
    fn = int(np.count_nonzero(sure & ~flagged & truth))
    return Counts(tp, fp, fn, int(np.count_nonzero(sure)) - tp - fp - fn)
