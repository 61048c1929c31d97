"""Maps of one WCBnet before and after the refinement: single views, fused, and each prior.

OMP_NUM_THREADS=1 python -m benchmarks.image_label_maps --checkpoint LAST.ckpt \
    --manifest runs/data/val.jsonl --out runs/image_label/maps
"""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.io.files import write_bytes, write_jsonl
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.manifests.manifest import safe_name
from boxpromptiml.manifests.sources import read_sources, stored_image
from boxpromptiml.metrics.bootstrap import Interval, difference_interval, mean_interval
from boxpromptiml.metrics.results import ImageRow, write_evaluation
from boxpromptiml.models.bayes import Prior, region_posterior
from boxpromptiml.models.cam import evidence_logits, fuse_views, views_from_classifier
from boxpromptiml.models.inputs import whole_image
from boxpromptiml.models.wcbnet import WCBNet
from boxpromptiml.records import ImageArray, ProbArray, Segmenter
from boxpromptiml.segmenters.cache import CachedSegmenter
from boxpromptiml.segmenters.superpixels import SlicSegmenter


def maps_of(
    network: WCBNet, fed: torch.Tensor, image: ImageArray, segmenter: Segmenter
) -> tuple[dict[str, ProbArray], float]:
    """Maps (H, W) of an input (1, C, H, W) by name, and the image score."""
    logit, features, weights = network.classify(fed)
    views = views_from_classifier(features, network.vectors())
    size = image.shape[:2]
    fused = {"fused": fuse_views(views, weights, size)}
    for stage, view in zip(network.config.stages, views, strict=True):
        fused[f"view {2 ** (stage + 1)}"] = fuse_views([view], torch.ones(1, 1), size)
    found = {
        name: evidence_logits(one, logit).sigmoid()[0, 0].numpy() for name, one in fused.items()
    }
    regions = segmenter.regions(image)
    for prior in get_args(Prior):
        found[f"prior {prior}"] = region_posterior(found["fused"], regions, prior)
    return found, float(logit.sigmoid())


def write_maps(checkpoint: Path, manifest: Path, out: Path) -> None:
    """Write every map of every image as OUT/NAME/prob/ID.png."""
    network, spec = load_localizer(checkpoint)
    if not isinstance(network, WCBNet) or spec.input.mode != "native":
        raise UserError(f"{checkpoint}: not a WCBnet at the stored resolution")
    segmenter = CachedSegmenter(SlicSegmenter(), out / "regions")
    rows: list[dict[str, str | float]] = []
    folders: dict[str, ProbArray] = {}
    for source in read_sources([manifest]):
        image, name = stored_image(source), safe_name(source.sample.id)
        fed = torch.from_numpy(whole_image(image, spec.input))[None]
        with torch.inference_mode():
            folders, score = maps_of(network, fed, image, segmenter)
        for folder, prob in folders.items():
            write_bytes(out / folder / "prob" / f"{name}.png", encode_map(prob))
        rows.append({"id": source.sample.id, "name": name, "image_score": round(score, 6)})
    for folder in folders:
        write_jsonl(out / folder / "predictions.jsonl", rows)


def scores_of(name: str, manifest: Path, out: Path) -> tuple[ImageRow, ...]:
    """Evaluate the maps of one folder, and write metrics.json and per_image.csv into it."""
    found = evaluate_predictions(out / name, [manifest], EvaluateSettings(split=None))
    write_evaluation(out / name, found)
    return found.rows


def line(name: str, rows: tuple[ImageRow, ...], fused: tuple[ImageRow, ...]) -> str:
    """F1, AUC and pixel FPR on authentic images, each also against the fused map."""
    groups = [row.group for row in rows]
    cells = []
    for key, label in (("f1", 1), ("auc", 1), ("flagged", 0)):
        ours, theirs = (
            [getattr(row, key) if row.label == label else np.nan for row in some]
            for some in (rows, fused)
        )
        cells.append(_text(mean_interval(ours, groups)))
        cells.append(
            "-" if rows is fused else _text(difference_interval(ours, theirs, groups), "+")
        )
    return f"| {name} | " + " | ".join(cells) + " |"


def _text(score: Interval, sign: str = "") -> str:
    return f"{score.value:{sign}.3f} [{score.low:{sign}.3f}, {score.high:{sign}.3f}]"


def main() -> None:
    """Write the maps, evaluate them, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("checkpoint", "manifest", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    write_maps(options.checkpoint, options.manifest, options.out)
    names = sorted(path.parent.name for path in options.out.glob("*/predictions.jsonl"))
    found = {name: scores_of(name, options.manifest, options.out) for name in names}
    print("| map | F1 | against fused | AUC | against fused | pixel FPR | against fused |")
    print(
        "\n".join(["|---" * 7 + "|", *(line(name, found[name], found["fused"]) for name in names)])
    )


if __name__ == "__main__":
    main()
