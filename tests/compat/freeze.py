"""Writes the frozen files of this version: python tests/compat/freeze.py tests/compat/v1."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything

from boxpromptiml import Localizer
from boxpromptiml.inference.export import export
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.metrics.results import Evaluation, ImageRow, write_evaluation
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Box, Sample
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job

_SIZE = (40, 56)


def main(out: Path) -> None:
    """Write everything; existing files are replaced."""
    _data(out)
    _checkpoint(out)
    _evaluation(out / "evaluation")


def _data(out: Path) -> None:
    dice = np.random.default_rng(1)
    pixels = dice.integers(40, 90, (*_SIZE, 3), np.uint8)
    pixels[10:30, 12:40] += np.array([120, 60, 20], np.uint8)
    mask = np.zeros(_SIZE, np.uint8)
    mask[10:30, 12:40] = 255
    images.write_png(out / "a.png", pixels)
    images.write_png(out / "b.png", dice.integers(40, 90, (*_SIZE, 3), np.uint8))
    images.write_png(out / "a_mask.png", mask)
    forged = Sample(
        "made/a", "made", "test", "g", "a.png", _SIZE, 1, (Box(8, 6, 44, 34.5),), kind="splice",
        mask="a_mask.png", mask_threshold=127, image_sha256=images.probe(out / "a.png").sha256,
        box_origin="human",
    )  # fmt: skip
    plain = replace(
        forged, id="made/b", group="h", image="b.png", label=0, boxes=(), kind=None, mask=None,
        mask_threshold=None, image_sha256=images.probe(out / "b.png").sha256, box_origin=None,
    )  # fmt: skip
    write_manifest(out / "manifest.jsonl", Header(notes={"made": "frozen"}), [forged, plain])
    run_job(read_manifest(out / "manifest.jsonl"), out / "pseudo", GrabCutTeacher(), Consensus())
    (out / "pseudo" / ".lock").unlink(missing_ok=True)


def _checkpoint(out: Path) -> None:
    seed_everything(0, verbose=False)
    config = StudentConfig(
        backbone="mobilenetv3_small_050", stages=(0, 1), fusion=FusionConfig(width=8, prototypes=4)
    )
    task = DistillTask(config, NetworkInput("native", (64, 64)))
    with torch.no_grad():  # a map that differs from pixel to pixel
        for parameter in task.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(out / "student.ckpt")
    export(out / "student.ckpt", out / "student.safetensors")
    prob = Localizer.load(out / "student.ckpt")(out / "a.png")
    rows = [[round(float(value), 5) for value in row] for row in prob[::8, ::8]]
    (out / "prob.json").write_text(json.dumps(rows) + "\n")


def _evaluation(out: Path) -> None:
    nan = float("nan")
    score = {"value": 0.5, "low": 0.25, "high": 0.75, "count": 1}
    metrics = {
        "schema_version": 1, "preset": "default", "threshold": 0.5, "split": "test",
        "manifests": [], "predictions": "predictions", "image_score": "predictions",
        "images": {"manipulated": 1, "authentic": 1, "unknown": 0}, "scores": {"pixel_f1": score},
        "groups": {}, "curves": {"f1": [[0.5, 0.5]]}, "versions": {},
        "bootstrap": {"resamples": 2000, "seed": 0, "level": 0.95, "unit": "group"},
    }  # fmt: skip
    rows = (
        ImageRow("made/a", "made", "splice", "g", 1, 40, 56, 0.75, 0.5, 0.4, 0.9, 0.5, 0.5, 0.2,
                 0.25, "large", "made/a"),
        ImageRow("=made/b", "made", "", "h", 0, 40, 56, 0.25, nan, nan, nan, nan, nan, 0.0, 0.0, "",
                 "made/b"),
    )  # fmt: skip
    write_evaluation(out, Evaluation(metrics, rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
