"""Small tasks, data modules and trainers, and data with pseudo-masks."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer, seed_everything

from boxpromptiml import geometry
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.dataset import TrainDataset
from boxpromptiml.data.samplers import EpochSampler
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_file, write_bytes
from boxpromptiml.manifests.manifest import Manifest, read_manifest, write_manifest
from boxpromptiml.manifests.sidecars import (
    SIDECAR_VERSION,
    Sidecar,
    expected_fingerprint,
    write_sidecar,
)
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch, Sample
from boxpromptiml.tasks.callbacks import GuardedCheckpoint
from boxpromptiml.tasks.distill import DistillTask

STUDENT = StudentConfig(
    backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
)
SMALL = NetworkInput("native", (64, 64))


def make_task(**settings: Any) -> DistillTask:
    """A small student with the same weights every time."""
    seed_everything(0, verbose=False)
    return DistillTask(STUDENT, SMALL, **({"lr": 3e-3, "dice_weight": 0.5} | settings))


def make_data(root: Path, **settings: Any) -> LocalizationData:
    """The manifests of `data_root`, by default with mask supervision."""
    given: dict[str, Any] = {"supervision": "mask", "input": SMALL, "batch_size": 4}
    return LocalizationData(
        train=[root / "train.jsonl"],
        val=[root / "val.jsonl"],
        test=[root / "test.jsonl"],
        predict=[root / "test.jsonl"],
        **(given | settings),
    )


def make_trainer(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    """A quiet trainer on the CPU, by default for two epochs."""
    settings = {"max_epochs": 2, "logger": False, "gradient_clip_val": 1.0} | settings
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings,
    )


def checkpoints_in(folder: Path) -> GuardedCheckpoint:
    """The product's checkpoint callback, which writes to `folder` itself."""
    callback = GuardedCheckpoint()
    callback.dirpath = str(folder)
    return callback


def training_batches(data: LocalizationData, epoch: int = 0) -> list[Batch]:
    """All training batches of an epoch."""
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def training_samples(data: LocalizationData) -> list[Sample]:
    """The samples that the data module trains on."""
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    assert isinstance(dataset, TrainDataset)
    return [source.sample for source in dataset.sources]


def copy_of(data_root: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(data_root, tmp_path / "data"))


def mask_file(manifest: Manifest, sample: Sample) -> Path:
    """The path of a sample's ground-truth mask."""
    path = manifest.mask_path(sample)
    assert path is not None
    return path


def with_pseudo_masks(root: Path, made_by: str = "teacher-1", value: int = 255) -> Path:
    """Add filled boxes as pseudo-masks to train.jsonl."""
    manifest = read_manifest(root / "train.jsonl")
    samples: list[Sample] = []
    for sample in manifest.samples:
        if sample.label == 0:
            samples.append(sample)
            continue
        assert sample.boxes is not None
        assert sample.image_sha256 is not None
        mask = geometry.union_mask(geometry.as_array(sample.boxes), sample.size)
        path = root / "pseudo" / f"{sample.group}.png"
        write_bytes(path, images.encode_png(mask.astype(np.uint8) * np.uint8(value)))
        signature = expected_fingerprint(sample, sample.image_sha256, made_by)
        write_sidecar(
            path,
            Sidecar(SIDECAR_VERSION, signature, sample.image_sha256, sha256_file(path),
                    sample.boxes, {}, (), (), "ok", 0.0),
        )  # fmt: skip
        samples.append(replace(sample, pseudo_mask=f"pseudo/{sample.group}.png"))
    write_manifest(
        root / "train.jsonl", replace(manifest.header, teacher_signature=made_by), samples
    )
    return root
