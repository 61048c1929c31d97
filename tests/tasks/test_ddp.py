"""Two processes on a CPU, started as by torchrun, learn and score what one process does.

Equal by design, and so compared: the order of the images, their augmentation, gradients, weights,
the learning rate, the scores. In double precision, so that AdamW does not blow up rounding.

Not equal by design, and so kept out of the comparison: the statistics of BatchNorm (each process
has those of its own images; frozen here), and a loss that is a mean over what counts: pixels the
teacher is sure of, images with a manipulation. A process takes that mean over its own images and
DDP the mean over processes. `test_the_loss_of_shares` says when the two agree.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from boxpromptiml.losses import distillation_loss
from boxpromptiml.tasks.callbacks import LocalCheckpointIO
from tests.helpers.commands import run, run_as_torchrun
from tests.helpers.data import make_manifest

EPOCHS = 2

# A module of the user's own, as `--trust` lets it in.
MODULE = '''
import os, signal
import torch
from lightning.pytorch import Callback
from torch import nn
from boxpromptiml.tasks.distill import DistillTask

class FrozenStatistics(DistillTask):
    """The student with BatchNorm by its running statistics."""

    def on_train_batch_start(self, batch, batch_idx):
        super().on_train_batch_start(batch, batch_idx)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

class Diary(Callback):
    """What a process sees and computes, in FOLDER/diary_RANK.pt."""

    def __init__(self, folder: str):
        self.folder = folder
        self.seen = {"train": [], "val": [], "gradients": []}

    def on_train_batch_start(self, trainer, module, batch, number):
        self.seen["train"].append((trainer.current_epoch, number, batch["id"]))

    def on_validation_batch_start(self, trainer, module, batch, number, dataloader_idx=0):
        if not trainer.sanity_checking:
            self.seen["val"].append((trainer.current_epoch, number, batch["id"]))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        pairs = module.named_parameters()
        gradients = {name: p.grad.clone() for name, p in pairs if p.grad is not None}
        self.seen["gradients"].append(gradients)

    def on_fit_end(self, trainer, module):
        torch.save(self.seen, f"{self.folder}/diary_{trainer.global_rank}.pt")

class Signalled(FrozenStatistics):
    """One process gets SIGTERM in the middle of a forward pass, where the other waits for it."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        here = (self.global_rank, self.current_epoch, batch_idx)
        if here == (int(os.environ["SIGNALLED_RANK"]), 1, 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return loss
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight manipulated images to train on, every pixel known: equal shares of what counts."""
    folder = tmp_path_factory.mktemp("ddp")
    make_manifest(folder, "train", 8, 0, seed=1)
    make_manifest(folder, "val", 4, 3, seed=2)
    (folder / "ddp_task.py").write_text(MODULE)
    return folder


def command(data: Path, run: Path, processes: int, task: str = "FrozenStatistics") -> list[str]:
    return [
        "fit", "--trust=ddp_task", f"--model=ddp_task.{task}", "--seed_everything=7",
        f'--trainer.callbacks=[{{"class_path": "ddp_task.Diary", "init_args": '
        f'{{"folder": "{run}"}}}}, {{"class_path": "boxpromptiml.tasks.callbacks.MetricsFile"}}]',
        f"--data.train=[{data}/train.jsonl]", f"--data.val=[{data}/val.jsonl]",
        "--data.supervision=mask", f"--data.batch_size={4 // processes}",
        f"--data.eval_batch_size={4 // processes}",
        "--data.input.mode=native", "--data.input.size=[64,64]",
        "--data.augmentation.vertical_flip=0.5", "--data.augmentation.noise=0.5",
        "--model.student.backbone=mobilenetv3_small_050", "--model.student.fusion.width=16",
        "--model.student.fusion.prototypes=8", "--model.dice_weight=1", "--model.lr=0.003",
        f"--trainer.devices={processes}", "--trainer.accelerator=cpu",
        f"--trainer.strategy={'ddp' if processes > 1 else 'auto'}", "--trainer.precision=64-true",
        f"--trainer.default_root_dir={run}", f"--trainer.max_epochs={EPOCHS}",
        "--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the run in one process and of the run in two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for ended in (
        run(["boxpromptiml", *command(data, one, 1)], path=data),
        *run_as_torchrun(["boxpromptiml", *command(data, two, 2)], 2, path=data),
    ):
        assert ended.status == 0, ended.said[-3000:]
    return one, two


def diaries(run: Path) -> list[dict[str, Any]]:
    paths = sorted(run.glob("diary_*.pt"))
    return [torch.load(path, weights_only=True) for path in paths]  # noqa: TID251


@pytest.mark.slow
def test_the_same_images_in_the_same_steps_none_twice(runs: tuple[Path, Path]) -> None:
    (one,), two = diaries(runs[0]), diaries(runs[1])
    assert len(two) == 2
    for stage in ("train", "val"):
        together: Counter[tuple[int, str]] = Counter()
        for diary in two:
            together.update((epoch, id_) for epoch, _, ids in diary[stage] for id_ in ids)
        alone = Counter((epoch, id_) for epoch, _, ids in one[stage] for id_ in ids)
        assert together == alone
        assert set(together.values()) == {1}
    for number, (epoch, batch, ids) in enumerate(one["train"]):
        parts = [diary["train"][number] for diary in two]
        assert all(part[:2] == (epoch, batch) for part in parts)
        assert sorted(ids) == sorted(parts[0][2] + parts[1][2])
        assert len(parts[0][2]) == len(parts[1][2])


@pytest.mark.slow
def test_gradients_and_weights(runs: tuple[Path, Path]) -> None:
    (one,), two = diaries(runs[0]), diaries(runs[1])
    assert len(one["gradients"]) == 2 * EPOCHS
    for diary in two:
        for ours, theirs in zip(diary["gradients"], one["gradients"], strict=True):
            assert ours.keys() == theirs.keys()
            for name, gradient in theirs.items():
                torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-5, msg=name)
    moved = [gradient.abs().max() for gradient in one["gradients"][-1].values()]
    assert sum(value > 1e-3 for value in moved) > len(moved) / 4  # the comparison is alive
    states = [
        LocalCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt") for run in runs
    ]
    assert states[0]["global_step"] == states[1]["global_step"] == len(one["gradients"])
    for name, values in states[0]["state_dict"].items():
        torch.testing.assert_close(states[1]["state_dict"][name], values, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_scores(runs: tuple[Path, Path]) -> None:
    one, two = (json.loads((run / "metrics_val.json").read_text()) for run in runs)
    curves = [scores.pop("f1_curve") for scores in (one, two)]
    assert one.keys() == two.keys()
    assert {"pixel_f1", "iou", "auc", "image_auc"} <= one.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-6), name
    torch.testing.assert_close(torch.tensor(curves[1]), torch.tensor(curves[0]), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_one_process_writes(runs: tuple[Path, Path]) -> None:
    one, two = runs
    files = [
        sorted(
            path.relative_to(run).as_posix()
            for path in run.rglob("*")
            if path.is_file() and not path.name.startswith("diary_")
        )
        for run in runs
    ]
    assert files[0] == files[1]
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (one, two)]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_process_stops_both_at_the_same_batch(
    data: Path, runs: tuple[Path, Path], tmp_path: Path, rank: int
) -> None:
    """Each saves and ends, instead of waiting for the other; resumed, nothing is different.

    But for rounding: Lightning restores the weights of 64-true before it makes the network double.
    """
    words = ["boxpromptiml", *command(data, tmp_path, 2, "Signalled")]
    ended = run_as_torchrun(words, 2, {"SIGNALLED_RANK": str(rank)}, path=data)
    said = ended[0].said + ended[1].said
    assert [process.status for process in ended] == [143, 143], said[-3000:]
    interrupted = tmp_path / "checkpoints" / "interrupted.ckpt"
    assert LocalCheckpointIO().load_checkpoint(interrupted)["global_step"] == 3
    words = ["boxpromptiml", *command(data, tmp_path, 2), f"--ckpt_path={interrupted}"]
    assert [process.status for process in run_as_torchrun(words, 2, path=data)] == [0, 0]
    weights, expected = (
        LocalCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
        for run in (tmp_path, runs[1])
    )
    assert weights.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(weights[name], values, rtol=0, atol=1e-6, msg=name)


def shares(valid: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the loss of four images, in one process and as the mean of two."""
    torch.manual_seed(0)
    logits = torch.randn(4, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(4, dtype=torch.float64)

    def loss(part: slice) -> torch.Tensor:
        return distillation_loss(logits[part], target[part], valid[part], weight[part], 1.0)

    (whole,) = torch.autograd.grad(loss(slice(None)), logits)
    halves = (loss(slice(0, None, 2)) + loss(slice(1, None, 2))) / 2
    (mean,) = torch.autograd.grad(halves, logits)
    return whole, mean


def test_the_loss_of_shares() -> None:
    """Equal where processes hold equally many sure pixels and manipulated images, else not."""
    valid = torch.ones(4, 1, 6, 6, dtype=torch.bool)
    target = (torch.arange(4 * 36).reshape(4, 1, 6, 6) % 5 == 0).double()
    torch.testing.assert_close(*shares(valid, target), rtol=0, atol=1e-12)
    unsure = valid.clone()
    unsure[0, 0, :3] = False
    whole, mean = shares(unsure, target)
    assert (whole - mean).abs().max() > 1e-4
    unsure[1, 0, 3:] = False
    torch.testing.assert_close(*shares(unsure, target), rtol=0, atol=1e-12)
    authentic = target.clone()
    authentic[0] = 0
    whole, mean = shares(valid, authentic)
    assert (whole - mean).abs().max() > 1e-4
