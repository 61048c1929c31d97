"""Tiny data sets made on the fly; no test needs a download, a GPU or the measuring data."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "offline"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [sys.path[0], os.environ.get("PYTHONPATH")])
)
import no_network  # noqa: F401 - cuts off this process; on PYTHONPATH, those that tests start

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import json

import hypothesis
import lightning  # noqa: F401 - before any test captures stderr: its log handler keeps the stream
import numpy as np
import pytest
import torch

from boxpromptiml import images
from boxpromptiml.manifest import Manifest
from boxpromptiml.records import Split
from data_prep.importers.folder import import_folder
from data_prep.importing import finish_import

collect_ignore = ["offline"]
torch.set_num_threads(1)
hypothesis.settings.register_profile("shared-machine", deadline=None)  # no test is timed
hypothesis.settings.load_profile("shared-machine")


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
        image = rng.integers(40, 90, (64, 96, 3)).astype(np.uint8)
        images.write_jpeg(root / "authentic" / f"au_{seed}{number:03d}.jpg", image, 95)
    (root / "boxes.json").write_text(json.dumps(coco))
    return root


def make_manifest(
    root: Path, split: Split, manipulated: int, authentic: int, seed: int = 0
) -> Manifest:
    """Import `make_folder` into root/<split>.jsonl."""
    from boxpromptiml.manifest import read_manifest

    source = make_folder(root / split, manipulated, authentic, seed)
    imported = import_folder(source, "made", split, None)
    finish_import(imported, source, root / f"{split}.jsonl", "folder")
    return read_manifest(root / f"{split}.jsonl")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: train.jsonl (6 + 3 images), val.jsonl (4 + 2) and test.jsonl (4 + 2)."""
    root = tmp_path_factory.mktemp("data")
    make_manifest(root, "train", 6, 3, seed=1)
    make_manifest(root, "val", 4, 2, seed=2)
    make_manifest(root, "test", 4, 2, seed=3)
    return root
