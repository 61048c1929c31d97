"""Scores the folds as the shipped student is used: over mirror images, and with copied regions.

    python experiments/default/in_use.py --out runs/default
    python experiments/default/table.py

Run it after train.py, with the same --out. The student of each fold localizes what it held back,
and a fifth of the validation forgeries. Image probabilities are calibrated without the images of
the fold. Maps go to OUT/in_use/, scores to docs/results/in_use/, from where table.py takes them.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logit

from boxpromptiml import Localizer
from boxpromptiml.evaluation.evaluate import evaluate
from boxpromptiml.inference.copy_move import add_copies
from boxpromptiml.io.files import write_bytes, write_jsonl
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.manifest import safe_name
from boxpromptiml.manifests.sources import Source, read_sources, stored_image
from boxpromptiml.metrics.calibration import held_out
from boxpromptiml.records import ProbArray

RESULTS = Path(__file__).parents[2] / "docs/results/in_use"
FOLDS = 5
CLIP = 1e-6  # of scores, whose logits must be finite


class HeldBack(NamedTuple):
    """An image that a fold held back, as the student of that fold sees it."""

    dataset: str
    fold: int
    source: Source
    score: float
    copied: bool


def manifests(out: Path) -> dict[str, list[Path]]:
    """The manifests of held-back images by the dataset's name."""
    folds = [out / "folds" / str(number) for number in range(FOLDS)]
    found = {name: [fold / f"{name}_test.jsonl" for fold in folds] for name in ("casia", "misd")}
    return found | {"forgeries": [out / "data/forgeries_val.jsonl"]}


def localize_fold(fold: int, out: Path) -> list[HeldBack]:
    """Write the maps of all images that a fold held back, without copied regions and with them."""
    localizer = Localizer.load(out / f"runs/fold_{fold}/checkpoints/last.ckpt", flips=True)
    images = []
    for dataset, paths in manifests(out).items():
        found = read_sources(paths if dataset == "forgeries" else [paths[fold]])
        sources = found[fold::FOLDS] if dataset == "forgeries" else list(found)
        pixels = (
            (source, stored_image(source)) for source in track(sources, "localizing", len(sources))
        )
        for source, image, seen in localizer.localize_each(pixels):
            fused = add_copies(seen.prob, image)
            for part, prob in (("flips", seen.prob), ("copies", fused)):
                write_map(out / "in_use" / part / dataset, source, prob)
            copied = fused is not seen.prob
            images.append(HeldBack(dataset, fold, source, seen.score, copied))
    return images


def write_map(folder: Path, source: Source, prob: ProbArray) -> None:
    """Write one map to a folder of `evaluate`."""
    write_bytes(folder / "prob" / f"{safe_name(source.sample.id)}.png", encode_map(prob))


def main() -> None:
    """Localize what the folds held back, and score it."""
    parser = ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="that of train.py")
    out = parser.parse_args().out
    images = [image for fold in range(FOLDS) for image in localize_fold(fold, out)]
    logits = logit(np.array([image.score for image in images]).clip(CLIP, 1 - CLIP))
    manipulated = np.array([image.source.sample.label == 1 for image in images])
    folds = np.array([image.fold for image in images])
    copied = np.array([image.copied for image in images])
    for part, known in (("flips", None), ("copies", copied)):
        scores = held_out(logits, manipulated, folds, copied=known).tolist()
        for dataset, paths in manifests(out).items():
            rows = [
                {"id": id_, "name": safe_name(id_), "image_score": round(score, 6)}
                for image, score in zip(images, scores, strict=True)
                if image.dataset == dataset
                for id_ in [image.source.sample.id]
            ]
            folder = out / "in_use" / part / dataset
            write_jsonl(folder / "predictions.jsonl", rows)
            evaluate(folder, paths, RESULTS / part / dataset, split=None)


if __name__ == "__main__":
    main()
