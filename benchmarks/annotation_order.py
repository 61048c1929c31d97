"""Is it worth while to annotate the photographs first on which student and teacher disagree?

Prepares a simulation of `annotate --order useful` on a manifest whose boxes are all known; run it
from the repository root:

    python -m benchmarks.annotation_order --manifest runs/data/train.jsonl --checkpoint FIRST.ckpt \
        --config experiments/native.yaml --out runs/order

Boxes and labels are revealed in the order of disagreement and in three random orders, for 5, 10 and
20 % of the images. Every fraction becomes a study, which makes the pseudo-masks, trains on them and
compares; the script itself trains nothing:

    for file in runs/order/*.yaml; do boxpromptiml study --file "$file"; done

FIRST.ckpt must not have been trained on these images, or it would agree with what it has seen; the
configuration names validation and test images.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from boxpromptiml.annotate.order import disagreement
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import write_text
from boxpromptiml.io.progress import track
from boxpromptiml.manifests.manifest import Header, read_manifest, relative_root, write_manifest
from boxpromptiml.manifests.sources import Sources, stored_image
from boxpromptiml.teachers.grabcut import GrabCutTeacher

FRACTIONS = (0.05, 0.1, 0.2)
RANDOM_ORDERS = 3


def main(words: Sequence[str] | None = None) -> None:
    """Write the manifests and one study per fraction."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(words)
    manifest = read_manifest(options.manifest)
    sources = Sources([manifest])
    root = manifest.path.parent / manifest.header.image_root
    orders = {"useful": by_disagreement(sources, Localizer.load(options.checkpoint))}
    for seed in range(RANDOM_ORDERS):
        orders[f"random_{seed}"] = np.random.default_rng(seed).permutation(len(sources)).tolist()
    for fraction in FRACTIONS:
        percent = f"{round(100 * fraction):02}"
        for name, order in orders.items():
            path = options.out / percent / f"{name}.jsonl"
            header = Header(image_root=relative_root(path, root), notes={"order": name})
            shown = sorted(order[: round(fraction * len(order))])
            write_manifest(path, header, (manifest.samples[place] for place in shown))
        study = study_of(options.out / percent, percent, options.config, list(orders))
        write_text(options.out / f"order_{percent}.yaml", yaml.safe_dump(study, sort_keys=False))


def by_disagreement(sources: Sources, student: Localizer) -> list[int]:
    """Positions of images by descending disagreement."""
    teacher, found = GrabCutTeacher(), []
    for source in track(sources, "looking for what is useful", len(sources)):
        image = stored_image(source)
        (localized,) = student.localize([image])
        found.append(disagreement(localized.prob, image, teacher))
    return np.argsort(-np.array(found), kind="stable").tolist()


def study_of(folder: Path, percent: str, config: str, names: Sequence[str]) -> dict[str, Any]:
    """The content of a study's file that compares orders at one fraction."""
    return {
        "title": f"Order of annotation, {int(percent)} % of the images",
        "config": config,
        "settings": {"trainer.max_epochs": 60, "trainer.check_val_every_n_epoch": 60},
        "seeds": [0, 1, 2],
        "reference": "random_0",
        "prepare": [
            f"data_prep pseudo-masks --manifest {folder / name}.jsonl --out {folder / name}"
            for name in names
        ],
        "variants": {
            name: {
                "what": name.replace("_", " order "),
                "settings": {"data.train": [f"{folder / name}/manifest.jsonl"]},
            }
            for name in names
        },
    }


if __name__ == "__main__":
    main()
