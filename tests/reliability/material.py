"""Sound data for the campaign: images with masks and boxes, a manifest, a tiny checkpoint."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boxpromptiml.inference.spec import DESCRIPTION_KEY, ModelSpec
from boxpromptiml.io import images
from boxpromptiml.io.files import write_json, write_jsonl
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import Student
from tests.reliability.pictures import FORMATS, SIZE, encoded, noise

_ENDINGS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp"}
_BOX = (20.0, 14.0, 70.0, 56.0)


def sound_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write small pictures in all formats, in turn."""
    dice = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        kind = FORMATS[number % len(FORMATS)]
        path = folder / f"sound_{number:05d}.{_ENDINGS[kind]}"
        path.write_bytes(encoded(noise(dice), kind))
        paths.append(path)
    return paths


def row(relative: str, **more: object) -> dict[str, Any]:
    """A manifest's row of a manipulated image with one box."""
    known: dict[str, Any] = {
        "id": relative, "dataset": "made", "split": "train", "group": relative,
        "image": relative, "size": list(SIZE), "label": 1, "boxes": [list(_BOX)],
    }  # fmt: skip
    return known | more


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A manifest whose root is its folder; unlike `write_manifest` it believes everything."""
    write_jsonl(path, [{"schema_version": 1}, *rows])
    return path


def make_manifest(root: Path, count: int, seed: int = 0, masks: bool = False) -> Path:
    """Sound images below `root`/tampered and root/manifest.jsonl, with hashes."""
    rows = []
    for path in sound_images(root / "tampered", count, seed):
        more: dict[str, Any] = {"image_sha256": images.probe(path).sha256}
        if masks:
            more["mask"] = f"masks/{path.stem}.png"
            write_mask(root / more["mask"])
        rows.append(row(f"tampered/{path.name}", **more))
    return write_rows(root / "manifest.jsonl", rows)


def write_mask(path: Path) -> None:
    """A rectangle inside the box of `row`."""
    mask = np.zeros(SIZE, np.uint8)
    mask[20:50, 26:64] = 255
    images.write_png(path, mask)


def write_coco(path: Path, names: Iterable[str]) -> None:
    """boxes.json of the layout `folder`."""
    x0, y0, x1, y1 = _BOX
    listed = list(names)
    images_ = [
        {"id": number, "file_name": name, "width": SIZE[1], "height": SIZE[0]}
        for number, name in enumerate(listed)
    ]
    boxes = [
        {"id": number, "image_id": number, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        for number in range(len(listed))
    ]
    write_json(path, {"images": images_, "annotations": boxes})


def make_checkpoint(path: Path) -> Path:
    """The smallest student, of random weights, as `localize` reads it."""
    torch.manual_seed(0)
    config = StudentConfig(
        backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
    )
    spec = ModelSpec(config, NetworkInput("native", SIZE), 0.5)
    weights = {f"{spec.kind}.{name}": value for name, value in Student(config).state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({DESCRIPTION_KEY: spec.to_dict(), "state_dict": weights}, path)
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; none where it was not written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
