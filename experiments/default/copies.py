"""Adds copied regions to the maps of the folds, and scores them on the images held back.

    python experiments/default/copies.py --out runs/default
    python experiments/default/table.py

Run it after train.py, with the same --out. It reads the maps that were stored there, and runs no
network. Each fold takes a fifth of the validation forgeries. An image probability knows of copies,
and is calibrated without the images of its fold. Scores go to docs/results/copy_move/, from where
table.py takes them.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import logit

from boxpromptiml.evaluation.evaluate import evaluate
from boxpromptiml.evaluation.matching import PredictionFile, match_predictions
from boxpromptiml.inference.copy_move import add_copies
from boxpromptiml.io.files import write_bytes, write_jsonl
from boxpromptiml.io.map_files import encode_map, read_map
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.sources import Source, read_sources, stored_image
from boxpromptiml.metrics.calibration import held_out

RESULTS = Path(__file__).parents[2] / "docs/results/copy_move"
FOLDS = 5
CLIP = 1e-6  # stored scores have six decimals


class HeldBack(NamedTuple):
    """An image that a fold held back, with the prediction of the student of that fold."""

    dataset: str
    fold: int
    source: Source
    found: PredictionFile


def manifests(out: Path) -> dict[str, list[Path]]:
    """The manifests of held-back images by the dataset's name."""
    folds = [out / "folds" / str(number) for number in range(FOLDS)]
    found = {name: [fold / f"{name}_test.jsonl" for fold in folds] for name in ("casia", "misd")}
    return found | {"forgeries": [out / "data/forgeries_val.jsonl"]}


def held_back(out: Path) -> list[HeldBack]:
    """All images that the folds held back."""
    forgeries = read_sources(manifests(out)["forgeries"])
    images = []
    for fold in range(FOLDS):
        folder = out / f"runs/fold_{fold}/evaluation"
        parts = {
            name: read_sources([paths[fold]])
            for name, paths in manifests(out).items()
            if name != "forgeries"
        }
        test = [source for sources in parts.values() for source in sources]
        files = iter(match_predictions(folder / "test/last/predictions", test, test))
        for name, sources in parts.items():
            images += [HeldBack(name, fold, source, next(files)) for source in sources]
        mine = forgeries[fold::FOLDS]
        known = match_predictions(folder / "val/last/predictions", forgeries, mine)
        pairs = zip(mine, known, strict=True)
        images += [HeldBack("forgeries", fold, source, file) for source, file in pairs]
    return images


def main() -> None:
    """Write maps with copies to OUT/copy_move, and their scores to docs/results/copy_move."""
    parser = ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True, help="that of train.py")
    out = parser.parse_args().out
    images = held_back(out)
    copied = np.zeros(len(images), bool)
    for number, image in enumerate(track(images, "matching", len(images))):
        prob = read_map(image.found.path).prob
        fused = add_copies(prob, stored_image(image.source))
        copied[number] = fused is not prob
        path = out / "copy_move" / image.dataset / "prob" / f"{image.found.name}.png"
        write_bytes(path, encode_map(fused))
    scores = held_out(
        logit(np.array([image.found.score for image in images]).clip(CLIP, 1 - CLIP)),
        np.array([image.source.sample.label == 1 for image in images]),
        np.array([image.fold for image in images]),
        copied=copied,
    )
    for dataset, paths in manifests(out).items():
        rows = [
            {
                "id": image.source.sample.id,
                "name": image.found.name,
                "image_score": round(score, 6),
            }
            for image, score in zip(images, scores.tolist(), strict=True)
            if image.dataset == dataset
        ]
        folder = out / "copy_move" / dataset
        write_jsonl(folder / "predictions.jsonl", rows)
        evaluate(folder, paths, RESULTS / dataset, split=None)


if __name__ == "__main__":
    main()
