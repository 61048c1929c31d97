"""What Weights & Biases is given: by a recording logger, and by a real run without a server."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment
from sklearn.metrics import f1_score

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.dataset import collate
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.models.fusion import FusionConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import StudentConfig
from boxpromptiml.models.wcbnet import WCBConfig
from boxpromptiml.records import Box, Sample
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.image_label import ImageLabelTask
from boxpromptiml.tasks.wandb import COLUMNS, PatientWandbLogger, WandbImages

STUDENT = StudentConfig(
    backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
)
SMALL = NetworkInput("resize", (64, 64))
# id, (H, W) stored, label, boxes: larger than 512, one pixel high, nobody's boxes
ODD = [
    ("wide", (300, 1025), 1, (Box(100, 50, 1025, 290),)),
    ("flat", (1, 700), 1, (Box(20, 0, 60, 1),)),
    ("plain", (64, 96), 1, None),
    ("authentic", (601, 90), 0, ()),
    ("unlabelled", (50, 70), None, None),
]


class Recorder(WandbLogger):
    """Keeps what it is told to log; there is no run behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, int, dict[str, list]]] = []

    @property
    def experiment(self) -> DummyExperiment:
        return DummyExperiment()

    def log_metrics(self, metrics, step=None) -> None:
        pass

    def log_hyperparams(self, params) -> None:
        pass

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None) -> None:
        assert columns == COLUMNS
        assert wandb.Table(columns=columns, data=data).data == data  # wandb takes the types
        self.tables.append((key, step, {row[0]: row[1:] for row in data}))


def make_sample(root: Path, name: str, size, label, boxes, split="val") -> Sample:
    rng = np.random.default_rng(len(name))
    mask = np.zeros(size, bool)
    mask[: -(-size[0] // 2), : size[1] // 3] = True
    images.write_png(root / f"{name}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    images.write_png(root / f"{name}_mask.png", mask.astype(np.uint8) * 255)
    levels = np.where(mask, np.uint8(255), np.uint8(0))
    levels[:, -(size[1] // 4) :] = 127
    images.write_png(root / f"{name}_pseudo.png", levels)
    return Sample(
        id=name, dataset="odd", split=split, group=name, image=f"{name}.png", size=size,
        label=label, boxes=boxes, kind="splice" if name == "wide" else None,
        mask=f"{name}_mask.png" if label else None,
        pseudo_mask=f"{name}_pseudo.png" if boxes else None,
    )  # fmt: skip


def make_data(root: Path, samples: list[Sample], **settings) -> LocalizationData:
    train = [make_sample(root, f"t{i}", (64, 96), 1, None, "train") for i in range(4)]
    write_manifest(root / "all.jsonl", Header(pseudo_root="."), [*samples, *train])
    given = {"supervision": "mask", "input": SMALL, "batch_size": 4, "eval_batch_size": 3}
    return LocalizationData([root / "all.jsonl"], [root / "all.jsonl"], **(given | settings))


def make_trainer(folder: Path, logger: object, *callbacks, **settings) -> Trainer:
    return Trainer(
        default_root_dir=folder, accelerator="cpu", logger=logger, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), enable_checkpointing=False,
        **({"max_epochs": 1, "log_every_n_steps": 1} | settings),
    )  # fmt: skip


def mask_of(image: wandb.Image, name: str) -> np.ndarray:
    return image._masks[name]._val["mask_data"]


def at_median(task, data: LocalizationData, name: str = "plain") -> float:
    """Make the task flag about half of the pixels of one image, so that its map matters."""
    data.setup("validate")
    (item,) = (item for item in data.val_dataloader().dataset if item.id == name)
    with torch.no_grad():
        (prob,), _ = task.eval().localize(collate([item]))
    task.spec = replace(task.spec, threshold=float(prob.median()))
    return task.spec.threshold


@pytest.fixture
def odd(tmp_path):
    samples = [make_sample(tmp_path, *odd) for odd in ODD]
    return make_data(tmp_path, samples, supervision="label")


def test_the_table_shows_every_kind_of_image(odd, tmp_path):
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((key, step, rows),) = logger.tables
    assert (key, step) == ("val/images", 0)
    assert list(rows) == sorted(name for name, *_ in ODD)
    assert {name: row[0] for name, row in rows.items()} == {
        "wide": "splice", "flat": "manipulated", "plain": "manipulated",
        "authentic": "authentic", "unlabelled": "unknown",
    }  # fmt: skip
    shown = {name: (row[3]._height, row[3]._width) for name, row in rows.items()}
    assert shown == {"wide": (150, 512), "flat": (1, 512), "plain": (64, 96),
                     "authentic": (512, 77), "unlabelled": (50, 70)}  # fmt: skip
    overlays = {name: set(row[3]._masks) for name, row in rows.items()}
    every = {"prediction", "ground_truth", "pseudo_mask"}
    assert overlays == {"wide": every, "flat": every, "plain": every - {"pseudo_mask"},
                        "authentic": every - {"pseudo_mask"},
                        "unlabelled": {"prediction"}}  # fmt: skip
    for name, row in rows.items():
        assert all(mask_of(row[3], mask).shape == shown[name] for mask in overlays[name])
    assert not mask_of(rows["authentic"][3], "ground_truth").any()
    truth = mask_of(rows["plain"][3], "ground_truth")
    assert truth[:32, :32].all()
    assert truth.sum() == 32 * 32
    assert set(np.unique(mask_of(rows["wide"][3], "pseudo_mask"))) == {0, 1, 2}


def test_boxes_are_in_pixels_of_the_shown_image(odd, tmp_path):
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    assert {name for name, row in rows.items() if row[3]._boxes} == {"wide", "flat"}
    (box,) = rows["wide"][3]._boxes["boxes"]._val
    assert box["domain"] == "pixel"
    scale = 512 / 1025
    wanted = {"minX": 100 * scale, "minY": 25, "maxX": 512, "maxY": 145}
    assert box["position"] == pytest.approx(wanted, rel=1e-6)


def test_f1_is_that_of_the_map_at_the_stored_size(odd, tmp_path):
    logger, task = Recorder(), DistillTask(STUDENT, SMALL, image_weight=1.0)
    threshold = at_median(task, odd)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    task.eval()
    for item in odd.val_dataloader().dataset:
        with torch.no_grad():
            (prob,), score = task.localize(collate([item]))
        flagged = prob.numpy() > threshold
        assert rows[item.id][2] == pytest.approx(float(score), abs=1e-5)
        if item.label == 1:
            expected = f1_score(item.truth.numpy().ravel() != 0, flagged.ravel())
            assert rows[item.id][1] == pytest.approx(expected, abs=1e-3)
            assert item.id != "plain" or expected > 0.2
        else:
            assert rows[item.id][1] is None
        if max(item.size) <= 512:
            assert (mask_of(rows[item.id][3], "prediction") == flagged).mean() > 0.999


def test_at_most_32_and_the_same_ones_each_epoch(tmp_path):
    samples = [make_sample(tmp_path, f"v{i:02d}", (40, 48), 1, None) for i in range(40)]
    data, logger = make_data(tmp_path, samples), Recorder()
    trainer = make_trainer(tmp_path, logger, WandbImages(), max_epochs=2)  # with a sanity check
    trainer.fit(DistillTask(STUDENT, SMALL), data)
    assert [step for _, step, _ in logger.tables] == [1, 2]
    first, second = (list(rows) for _, _, rows in logger.tables)
    assert first == second
    assert len(first) == 32
    again = Recorder()
    turned = make_data(tmp_path, samples[::-1], eval_batch_size=7)
    make_trainer(tmp_path, again, WandbImages()).validate(
        DistillTask(STUDENT, SMALL), turned, verbose=False
    )
    assert list(again.tables[0][2]) == first


def test_the_scores_are_those_of_the_weights_that_are_validated(tmp_path):
    """With averaged weights: the table's mean is the score of the run, epoch by epoch."""
    samples = [make_sample(tmp_path, f"v{i}", (40, 48), 1, None) for i in range(6)]
    data, logger = make_data(tmp_path, samples), Recorder()
    seed_everything(0, verbose=False)
    threshold = at_median(DistillTask(STUDENT, SMALL), data, "v3")
    scores: list[float] = []

    class Scores(Callback):
        def on_validation_end(self, trainer, pl_module) -> None:
            scores.append(float(trainer.callback_metrics["val/pixel_f1"]))

    seed_everything(0, verbose=False)
    task = DistillTask(STUDENT, SMALL, lr=0.003, warmup=0.0, threshold=threshold)
    averaging = EMAWeightAveraging(decay=0.5)
    callbacks = (averaging, WandbImages(), Scores())
    make_trainer(
        tmp_path, logger, *callbacks, max_epochs=3, num_sanity_val_steps=0, precision="bf16-mixed"
    ).fit(task, data)
    shown = [np.mean([row[1] for row in rows.values()]) for _, _, rows in logger.tables]
    assert shown == pytest.approx(scores, abs=1e-6)
    assert len({round(score, 4) for score in scores}) == 3


def test_the_image_label_branch_shows_its_refined_map(odd, tmp_path):
    settings = NetworkInput("resize", (64, 64), error_levels=(75,))
    odd.input, odd.segmenter = settings, SegmenterConfig(name="slic", segments=20)
    task, logger = ImageLabelTask(WCBConfig(backbone="mobilenetv3_small_050"), settings), Recorder()
    threshold = at_median(task, odd)
    make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    ((_, _, rows),) = logger.tables
    task.eval()
    (item,) = (item for item in odd.val_dataloader().dataset if item.id == "plain")
    with torch.no_grad():
        (prob,), _ = task.localize(collate([item]))
    assert (mask_of(rows["plain"][3], "prediction") == (prob.numpy() > threshold)).mean() > 0.99
    coarse = super(ImageLabelTask, task).localize(collate([item]))[0][0]
    assert (mask_of(rows["plain"][3], "prediction") != (coarse.detach() > threshold).numpy()).any()
    assert rows["unlabelled"][1] is None


def test_a_failure_is_one_warning_and_the_run_goes_on(odd, tmp_path, caplog):
    class Broken(Recorder):
        def log_table(self, *_, **__) -> None:
            self.tables.append(("asked", 0, {}))
            raise wandb.errors.CommError("the disk\nis full")

    logger = Broken()
    trainer = make_trainer(tmp_path, logger, WandbImages(), max_epochs=3)
    with caplog.at_level(logging.WARNING, "boxpromptiml"):
        trainer.fit(DistillTask(STUDENT, SMALL, image_weight=1.0), odd)
    assert trainer.global_step == 3
    assert len(logger.tables) == 1
    assert len([r for r in caplog.records if "no more images" in r.message]) == 1


@pytest.mark.parametrize("logger", [False, "csv", "fast_dev_run"])
def test_without_weights_and_biases_nothing_happens(logger, odd, tmp_path, monkeypatch):
    monkeypatch.setattr("boxpromptiml.tasks.wandb._take", None)  # would be called
    fast = logger == "fast_dev_run"
    used = Recorder() if fast else logger == "csv"
    trainer = make_trainer(tmp_path, used, WandbImages(), fast_dev_run=fast)
    trainer.fit(DistillTask(STUDENT, SMALL, image_weight=1.0), odd)
    assert not fast or not used.tables


def test_a_real_run_without_a_server_keeps_table_and_images(odd, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    logger = PatientWandbLogger(project="test", save_dir=tmp_path, offline=True)
    task = DistillTask(STUDENT, SMALL, image_weight=1.0)
    try:
        make_trainer(tmp_path, logger, WandbImages()).validate(task, odd, verbose=False)
    finally:
        wandb.finish()
        for name in ("WANDB_DATA_DIR", "WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT"):
            os.environ.pop(name, None)
    (table,) = (tmp_path / "wandb").rglob("files/**/*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == COLUMNS
    assert [row[0] for row in content["data"]] == sorted(name for name, *_ in ODD)
    kept = [path for path in (tmp_path / "wandb" / "data").rglob("*") if path.is_file()]
    pictures = [path for path in kept if path.read_bytes().startswith(b"\xff\xd8")]
    masks = [path for path in kept if path.read_bytes().startswith(b"\x89PNG")]
    sizes = {images.read_image(path)[0].shape[:2] for path in pictures}
    assert sizes == {(150, 512), (1, 512), (64, 96), (512, 77), (50, 70)}
    levels = {value for path in masks for value in np.unique(images.read_image(path)[0])}
    assert levels == {0, 1, 2}
