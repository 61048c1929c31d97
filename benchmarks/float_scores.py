"""F1 and AUC of float maps in memory, against IMDLBenCo's own evaluators.

Run it from the repository root, with `pip install --no-deps IMDLBenCo==0.1.45` somewhere:

    OMP_NUM_THREADS=1 python -m benchmarks.float_scores --imdlbenco SITE-PACKAGES/IMDLBenCo

300 maps of 512 x 512, CPU seconds on one thread, all sides in turns on every map. `exact` is what
validation and test use: F1, IoU, AUC and the curve of F1 by threshold.
"""

import argparse
import importlib
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.evaluate import blob
from boxpromptiml.metrics import pixel
from boxpromptiml.records import MaskArray, ProbArray

Scorer = Callable[[ProbArray, MaskArray], tuple[float, float]]


def exact(prob: ProbArray, truth: MaskArray) -> tuple[float, float]:
    """F1 and AUC by `metrics.pixel`."""
    scores = pixel.score_image(prob, truth)
    return scores.f1, scores.auc


def imdlbenco(package: Path) -> Scorer:
    """IMDLBenCo's evaluators, without importing the rest of it, which needs a dozen packages."""
    for name in ("", ".evaluation", ".training_scripts", ".training_scripts.utils"):
        module = types.ModuleType(f"IMDLBenCo{name}")
        module.__path__ = [str(package / name.strip(".").replace(".", "/"))]
        sys.modules[module.__name__] = module
    f1 = importlib.import_module("IMDLBenCo.evaluation.F1").PixelF1()
    auc = importlib.import_module("IMDLBenCo.evaluation.AUC").PixelAUC()

    def score(prob: ProbArray, truth: MaskArray) -> tuple[float, float]:
        predict = torch.from_numpy(prob)[None, None]
        mask = torch.from_numpy(truth.astype(np.float32))[None, None]
        return float(f1.batch_update(predict, mask)[0]), float(auc.batch_update(predict, mask)[0])

    return score


def main() -> None:
    """Compare all sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imdlbenco", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sides: dict[str, Scorer] = {
        "IMDLBenCo 0.1.45": imdlbenco(options.imdlbenco),
        "exact": exact,
    }
    seconds = dict.fromkeys(sides, 0.0)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    rng = np.random.default_rng(1)
    for _ in range(options.count):
        levels, truth = blob(rng, (512, 512))
        noise = rng.random(levels.shape, dtype=np.float32)
        prob = ((levels + noise) / np.float32(256)).astype(np.float32)
        for name, side in sides.items():
            start = time.process_time()
            scores = side(prob, truth)
            seconds[name] += time.process_time() - start
            found[name].append(scores)
    reference: npt.NDArray[np.float64] = np.array(found["exact"])
    print(f"{options.count} float maps of 512 x 512, F1 and AUC:\n")
    print("| | CPU s | times as fast | F1 off by | AUC off by |\n|---|---|---|---|---|")
    for name in sides:
        f1_off, auc_off = np.abs(np.array(found[name]) - reference).max(axis=0)
        speed = seconds["IMDLBenCo 0.1.45"] / seconds[name]
        print(f"| {name} | {seconds[name]:.2f} | {speed:.1f} | {f1_off:.0e} | {auc_off:.0e} |")


if __name__ == "__main__":
    main()
