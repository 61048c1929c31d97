import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import CHECKPOINT_KEY, load_localizer
from boxpromptiml.models.fusion import FusionConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import StudentConfig
from boxpromptiml.tasks.base import DivergedError
from boxpromptiml.tasks.callbacks import GuardedCheckpoint, MetricsFile
from boxpromptiml.tasks.distill import DistillTask

STUDENT = StudentConfig(
    backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
)
SMALL = NetworkInput("native", (64, 64))


def make_task(**settings) -> DistillTask:
    seed_everything(0, verbose=False)
    return DistillTask(STUDENT, SMALL, **({"lr": 3e-3, "dice_weight": 0.5} | settings))


def make_data(root: Path, **settings) -> LocalizationData:
    return LocalizationData(
        train=[root / "train.jsonl"],
        val=[root / "val.jsonl"],
        test=[root / "test.jsonl"],
        predict=[root / "test.jsonl"],
        **({"supervision": "mask", "input": SMALL, "batch_size": 4} | settings),
    )


def make_trainer(folder: Path, *callbacks, **settings) -> Trainer:
    settings = {"max_epochs": 2, "logger": False, "gradient_clip_val": 1.0} | settings
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **settings,
    )


def checkpoints(folder: Path) -> GuardedCheckpoint:
    callback = GuardedCheckpoint()
    callback.dirpath = str(folder)
    return callback


def test_it_learns_what_is_easy_and_the_checkpoint_alone_brings_it_back(data_root, tmp_path):
    task, data = make_task(), make_data(data_root)
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), MetricsFile(), max_epochs=30)
    trainer.fit(task, data)
    (scores,) = trainer.test(task, data, ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    assert scores["test/pixel_f1"] > 0.6  # bright ellipses on noise; all-ones scores 0.2
    assert json.loads((tmp_path / "metrics_test.json").read_text())["pixel_f1"] == pytest.approx(
        scores["test/pixel_f1"]
    )
    student, spec = load_localizer(tmp_path / "best.ckpt")
    assert (spec.network, spec.input, spec.threshold) == (STUDENT, SMALL, 0.5)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        same = task.eval().student(image).logits  # in channels_last: other rounding
        torch.testing.assert_close(student(image).logits, same, atol=1e-3, rtol=1e-2)


def test_same_seed_same_weights(data_root, tmp_path):
    def train(folder: Path) -> dict[str, torch.Tensor]:
        task = make_task()
        make_trainer(folder, checkpoints(folder)).fit(task, make_data(data_root))
        return task.state_dict()

    first, again = train(tmp_path / "a"), train(tmp_path / "b")
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_untrained_weights_are_refused(data_root, tmp_path, verb):
    trainer = make_trainer(tmp_path)
    with pytest.raises(UserError, match="--ckpt_path"):
        getattr(trainer, verb)(make_task(), make_data(data_root))


def test_another_students_checkpoint_is_refused(data_root, tmp_path):
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), max_epochs=1)
    trainer.fit(make_task(), make_data(data_root))
    other = DistillTask(StudentConfig(backbone="resnet10t"), SMALL)
    with pytest.raises(UserError, match="another network"):
        make_trainer(tmp_path).test(other, make_data(data_root), ckpt_path=tmp_path / "last.ckpt")


class _Poison(MetricsFile):
    """Makes the loss NaN, or raises, at the second step of the second epoch."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error = error

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            if self.error:
                raise self.error
            batch["image"].fill_(math.nan)


def test_a_nan_loss_stops_the_run_and_keeps_the_good_checkpoints(data_root, tmp_path):
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), _Poison(), max_epochs=3)
    with pytest.raises(DivergedError, match=r"--model\.lr"):
        trainer.fit(make_task(), make_data(data_root))
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(tmp_path / name, weights_only=True)  # noqa: TID251
        assert checkpoint["global_step"] == 2  # of the end of the first epoch
        load_localizer(tmp_path / name)


def test_an_interruption_is_saved_beside_the_end_of_the_last_epoch(data_root, tmp_path):
    poison = _Poison(MemoryError)
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), poison, max_epochs=3)
    with pytest.raises(MemoryError):
        trainer.fit(make_task(), make_data(data_root))
    steps = {
        name: torch.load(tmp_path / name, weights_only=True)["global_step"]  # noqa: TID251
        for name in ("best.ckpt", "last.ckpt", "interrupted.ckpt")
    }
    assert steps == {"best.ckpt": 2, "last.ckpt": 2, "interrupted.ckpt": 3}


def test_last_is_the_last_epoch_whatever_was_best(data_root, tmp_path):
    callback = checkpoints(tmp_path)
    make_trainer(tmp_path, callback, max_epochs=3, check_val_every_n_epoch=2).fit(
        make_task(), make_data(data_root)
    )
    epochs = {
        name: torch.load(tmp_path / name, weights_only=True)["epoch"]  # noqa: TID251
        for name in ("best.ckpt", "last.ckpt")
    }
    assert epochs == {"best.ckpt": 1, "last.ckpt": 2}


def test_a_run_that_would_never_validate_is_refused(data_root, tmp_path):
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), check_val_every_n_epoch=5)
    with pytest.raises(UserError, match="check_val_every_n_epoch=2"):
        trainer.fit(make_task(), make_data(data_root))


def test_label_supervision_without_an_image_loss_is_refused(data_root, tmp_path):
    with pytest.raises(UserError, match="image_weight"):
        make_trainer(tmp_path).fit(make_task(), make_data(data_root, supervision="label"))
    trainer = make_trainer(tmp_path, checkpoints(tmp_path), max_epochs=1)
    trainer.fit(make_task(image_weight=1.0), make_data(data_root, supervision="label"))


def test_weights_that_are_not_finite_are_never_written(data_root, tmp_path):
    task, data = make_task(), make_data(data_root)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(task, data)
    with torch.no_grad():
        next(task.parameters()).fill_(math.inf)
    with pytest.raises(DivergedError):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_averaged_weights_are_what_is_tested_and_saved(data_root, tmp_path):
    """With decay 0 averaging is the identity; with 0.9 the saved weights lag behind."""

    def saved(decay: float, folder: Path) -> dict[str, torch.Tensor]:
        trainer = make_trainer(folder, checkpoints(folder), EMAWeightAveraging(decay=decay))
        trainer.fit(make_task(), make_data(data_root))
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)  # noqa: TID251
        assert CHECKPOINT_KEY in checkpoint
        return {k: v for k, v in checkpoint["state_dict"].items() if v.is_floating_point()}

    plain, lagging = saved(0.0, tmp_path / "plain"), saved(0.9, tmp_path / "lag")
    assert plain.keys() == lagging.keys()
    assert any(not torch.equal(plain[k], lagging[k]) for k in plain)


def test_a_map_does_not_depend_on_its_neighbours(data_root):
    data = make_data(data_root, eval_batch_size=6)
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    batch["extent"] = [(64, 96)] * 3 + [(50, 80)] * 3
    task = make_task().eval()
    with torch.inference_mode():
        maps = task.predict_step(batch, 0)
        alone = task.student(batch["image"][4:5, :, :50, :80]).logits
    assert [tuple(p.shape) for p in maps["prob"]] == [(64, 96)] * 6
    resized = torch.nn.functional.interpolate(alone, size=(64, 96), mode="bilinear")
    torch.testing.assert_close(maps["prob"][4], resized.sigmoid()[0, 0], atol=1e-5, rtol=1e-4)


def test_sigterm_saves_where_the_run_stands(data_root, tmp_path):
    command = [
        sys.executable, "-m", "boxpromptiml", "fit", f"--data.train=[{data_root}/train.jsonl]",
        f"--data.val=[{data_root}/val.jsonl]", "--data.supervision=mask",
        "--model.student.backbone=mobilenetv3_small_050", "--data.input.mode=native",
        "--data.input.size=[64,64]", "--data.batch_size=4", "--trainer.max_epochs=10000",
        f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false",
        "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 240
        while not (tmp_path / "config.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(4)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) != 0
    finally:
        process.kill()
    (saved,) = tmp_path.rglob("last.ckpt")
    student, _ = load_localizer(saved)
    assert np.isfinite(sum(float(p.detach().sum()) for p in student.parameters()))
