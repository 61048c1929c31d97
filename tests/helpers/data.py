"""Tiny datasets made on the fly."""

import json
from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.records import Sample, Split
from data_prep.import_dataset import import_dataset


def make_folder(root: Path, manipulated: int, authentic: int, seed: int = 0) -> Path:
    """A folder in the layout of `data_prep import --dataset folder`: bright ellipses on noise."""
    rng = np.random.default_rng(seed)
    coco: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    rows, columns = np.mgrid[:64, :96]
    for number in range(manipulated):
        kind = ("splice", "copymove", "removal")[number % 3]
        name = f"{kind}_{seed}{number:03d}"
        y, x = rng.uniform(22, 42), rng.uniform(25, 70)
        mask = ((rows - y) / 14) ** 2 + ((columns - x) / 18) ** 2 < 1
        image = rng.integers(40, 90, (64, 96, 3))
        image[mask] += np.array([120, 60, 20])
        images.write_jpeg(root / "tampered" / f"{name}.jpg", image.astype(np.uint8), 95)
        images.write_png(root / "masks" / f"{name}.png", mask.astype(np.uint8) * 255)
        file_name = f"tampered/{name}.jpg"
        coco["images"].append({"id": number, "file_name": file_name, "width": 96, "height": 64})
        box = [max(x - 20, 0), max(y - 16, 0), 40, 32]
        box[2], box[3] = min(box[2], 96 - box[0]), min(box[3], 64 - box[1])
        coco["annotations"].append({"id": number, "image_id": number, "bbox": box})
    for number in range(authentic):
        noise = rng.integers(40, 90, (64, 96, 3)).astype(np.uint8)
        images.write_jpeg(root / "authentic" / f"au_{seed}{number:03d}.jpg", noise, 95)
    (root / "boxes.json").write_text(json.dumps(coco))
    return root


def mask_file(manifest: Manifest, sample: Sample) -> Path:
    """Where the ground-truth mask of a sample lies that has one."""
    path = manifest.mask_path(sample)
    assert path is not None
    return path


def make_manifest(
    root: Path, split: Split, manipulated: int, authentic: int, seed: int = 0
) -> Manifest:
    """Import `make_folder` into root/<split>.jsonl."""
    source = make_folder(root / split, manipulated, authentic, seed)
    import_dataset("folder", source, root / f"{split}.jsonl", split=split, name="made")
    return read_manifest(root / f"{split}.jsonl")
