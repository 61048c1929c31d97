"""What clipping signed error levels at 16 grey levels costs, without any training.

OMP_NUM_THREADS=1 python -m benchmarks.error_level_clipping --manifest runs/data/val.jsonl
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from boxpromptiml.manifests.sources import ground_truth, read_sources, stored_image
from boxpromptiml.metrics.bootstrap import Interval, difference_interval, mean_interval
from boxpromptiml.models.error_levels import FULL_SCALE, signed_error_levels
from boxpromptiml.records import MaskArray

_QUALITIES = (60, 75, 90)
_LIMITS = (FULL_SCALE, 32.0, 64.0, 255.0)  # grey levels; 255 clips nothing
_WINDOW = (15, 15)  # pixels


def separability(levels: npt.NDArray[np.int16], limit: float, truth: MaskArray) -> float:
    """Larger of AUC and 1 - AUC of the local mean error, by which forged pixels stand out or not.

    Args:
        levels: Signed error levels (H, W, 3).
        limit: Grey levels at which they are clipped.
        truth: Manipulated pixels (H, W).
    """
    strength = np.minimum(np.abs(levels), limit).mean(axis=2)
    auc = float(roc_auc_score(truth.ravel(), cv2.blur(strength, _WINDOW).ravel()))
    return max(auc, 1 - auc)


def main() -> None:
    """Print, for each quality, the fraction of values cut and the separability by limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True)
    sources = read_sources([parser.parse_args().manifest])
    forged = [source for source in sources if source.sample.label == 1]
    groups = [source.sample.group or source.sample.id for source in forged]
    cut: dict[int, list[float]] = {quality: [] for quality in _QUALITIES}
    scores: dict[int, list[list[float]]] = {quality: [] for quality in _QUALITIES}
    for source in sources:
        image = stored_image(source)
        for quality in _QUALITIES:
            levels = signed_error_levels(image, quality)
            cut[quality].append(float((np.abs(levels) > FULL_SCALE).mean()))
            if source.sample.label == 1:
                truth = ground_truth(source)
                scores[quality].append([separability(levels, at, truth) for at in _LIMITS])
    print(f"{len(sources)} images, {len(forged)} forged; limits {_LIMITS}")
    for quality in _QUALITIES:
        columns = np.transpose(scores[quality])
        least = mean_interval(columns[0], groups)
        gains = [difference_interval(column, columns[0], groups) for column in columns[1:]]
        print(f"quality {quality}: {np.mean(cut[quality]):.1%} cut, {_text(least)}", end="")
        print("; gain", ", ".join(_text(gain) for gain in gains))


def _text(score: Interval) -> str:
    return f"{score.value:+.4f} [{score.low:+.4f}, {score.high:+.4f}]"


if __name__ == "__main__":
    main()
