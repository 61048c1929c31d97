"""How fast `evaluate` scores, and in how much memory, against a plain scikit-learn loop.

Run it from the repository root:

    OMP_NUM_THREADS=1 python -m benchmarks.evaluate [--quick] [--rounds 2]

Writes maps and masks as PNG files: 1,000 of 384 x 256 and 100 of 4000 x 3000. Every line is a
separate process, both sides take turns on the same files, and scores must be equal image by image.
Seconds are measured from the first file to the last score, as wall clock and as CPU time (less
affected by other load; the factor is of these), without imports and without the bootstrap, which
the loop lacks; memory is the largest resident size, libraries included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from boxpromptiml.evaluation.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.records import GreyArray, MaskArray, Sample

_VARIANTS = 8  # different large images; more take minutes to make and change nothing
_COLUMNS = ("f1", "iou", "auc", "precision", "recall")

Numbers = dict[str, list[float]]


def blob(rng: np.random.Generator, size: tuple[int, int]) -> tuple[GreyArray, MaskArray]:
    """A region of random outline, and a probability map that partly agrees with it."""
    height, width = size
    small = cv2.GaussianBlur(rng.standard_normal((32, 48)), (0, 0), 4)
    field = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    truth = field > np.quantile(small, rng.uniform(0.6, 0.97))
    other = cv2.resize(rng.standard_normal((8, 12)), (width, height))
    logits = 4 * field / small.std() + other - 4 + 0.1 * rng.standard_normal((height, width))
    return np.round(255 / (1 + np.exp(-logits))).astype(np.uint8), np.asarray(truth)


def make_files(root: Path, size: tuple[int, int], count: int, variants: int) -> None:
    """Write maps and masks as PNGs, and their manifest."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(min(variants, count)):
        levels, truth = blob(rng, size)
        contents.append([images.encode_png(a) for a in (levels, truth.astype(np.uint8) * 255)])
    for folder in ("maps", "masks"):
        (root / folder).mkdir(parents=True)
    samples = []
    for number in range(count):
        name = f"{number:05}"
        for folder, data in zip(("maps", "masks"), contents[number % len(contents)], strict=True):
            (root / folder / f"{name}.png").write_bytes(data)
        mask = f"masks/{name}.png"
        samples.append(Sample(name, "made", "test", name, f"{name}.jpg", size, 1, (), mask=mask))
    write_manifest(root / "manifest.jsonl", Header(), samples)


def by_us(root: Path) -> Numbers:
    """Scores by `evaluate`, one row per image."""
    settings = EvaluateSettings(resamples=1)
    rows = evaluate_predictions(root / "maps", [root / "manifest.jsonl"], settings).rows
    return {column: [getattr(row, column) for row in rows] for column in _COLUMNS}


def by_scikit_learn(root: Path) -> Numbers:
    """Scores by a plain loop over scikit-learn's metrics."""
    from sklearn import metrics  # noqa: PLC0415 - else it counts as memory of ours

    found: Numbers = {column: [] for column in _COLUMNS}
    for sample in read_manifest(root / "manifest.jsonl").samples:
        prob = np.asarray(Image.open(root / "maps" / f"{sample.id}.png")).ravel() / 255
        truth = np.asarray(Image.open(root / str(sample.mask))).ravel() > 0
        precision, recall, thresholds = metrics.precision_recall_curve(truth, prob)
        above = int(np.searchsorted(thresholds, 0.5, side="right"))
        found["f1"].append(metrics.f1_score(truth, prob > 0.5))
        found["iou"].append(metrics.jaccard_score(truth, prob > 0.5))
        found["auc"].append(metrics.roc_auc_score(truth, prob))
        flags = above < len(thresholds)  # else the curve ends in a 1 that nobody has earned
        found["precision"].append(precision[above] if flags else float("nan"))
        found["recall"].append(recall[above])
    return found


def one_side(name: str, root: Path) -> None:
    """Score the files and print seconds, MiB and every score; runs in a separate process."""
    side = {"ours": by_us, "scikit-learn": by_scikit_learn}[name]
    side(root.parent / "warm")  # imports, and whatever else is done once
    start = (time.perf_counter(), time.process_time())
    numbers = side(root)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB here
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": memory, "numbers": numbers}))


def compare(root: Path, title: str, count: int, rounds: int) -> None:
    """Run both sides in turns, require equal scores, print medians as rows of a table."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "scikit-learn": []}
    for _ in range(rounds):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.evaluate", "--side", name]
            done = subprocess.run(
                [*command, "--folder", str(root)],
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            results.append(json.loads(done.stdout))
    for column in _COLUMNS:
        one, other = (results[-1]["numbers"][column] for results in found.values())
        if len(one) != count:
            raise RuntimeError(f"{len(one)} of {count} images scored")
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9, err_msg=column)
    medians = {
        name: [statistics.median(r[key] for r in results) for key in ("wall", "cpu", "memory")]
        for name, results in found.items()
    }
    for name, (wall, cpu, memory) in medians.items():
        speed = medians["scikit-learn"][1] / cpu
        print(
            f"| {title} | {name} | {wall:.1f} | {cpu:.1f} | {memory:.0f} | {speed:.1f} |",
            flush=True,
        )


def main() -> None:
    """Write the files, compare both sides, print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the files")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        one_side(options.side, options.folder)
        return
    share = 20 if options.quick else 1
    print(
        "| files | side | s | CPU s | MiB | times as fast |\n|---|---|---|---|---|---|", flush=True
    )
    for size, count, variants in (((256, 384), 1000, 1000), ((3000, 4000), 100, _VARIANTS)):
        count //= share  # noqa: PLW2901
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder) / "files", size, count, max(variants // share, 2))
            make_files(Path(folder) / "warm", (64, 64), 2, 2)
            compare(
                Path(folder) / "files", f"{count:,} of {size[1]} x {size[0]}", count, options.rounds
            )


if __name__ == "__main__":
    main()
