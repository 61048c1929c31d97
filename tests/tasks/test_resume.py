"""A9: interrupted and resumed is the same, bit for bit, as never interrupted.

With dropout, augmentation, averaged weights, a learning rate that changes at every step, and draws
from every global generator. The interrupted runs are processes of their own, killed from inside at
chosen points; they are resumed, and the whole run is done, in this one.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxpromptiml.cli import main
from boxpromptiml.tasks.callbacks import LocalCheckpointIO
from tests.helpers.commands import run, run_as_torchrun
from tests.helpers.processes import alive, wait_for

HERE = Path(__file__).parent
LONG = os.environ.get("BOXPROMPTIML_CAMPAIGN") == "long"
EPOCHS, BATCHES = 4, 4

# A module of the user's own, as `--trust` lets it in. The first process kills itself; any other
# leaves its number in the run's folder.
MODULE = '''
import os, random, signal
from pathlib import Path
import numpy as np, torch
from lightning.pytorch import Callback
from boxpromptiml.tasks.distill import DistillTask

class DropoutTask(DistillTask):
    """The student with dropout, and with noise from every generator."""

    def training_step(self, batch, batch_idx):
        noise = random.random() + np.random.random() + float(torch.rand(()))
        image = torch.nn.functional.dropout(batch["image"], 0.2)
        return super().training_step(batch | {"image": image * (0.7 + 0.2 * noise)}, batch_idx)

class Killer(Callback):
    def __init__(self, hook: str = "", epoch: int = -1, batch: int = -1, name: str = "SIGKILL"):
        self.at, self.signal = (hook, epoch, batch), getattr(signal, name)

    def _here(self, hook, trainer, batch):
        if self.at == (hook, trainer.current_epoch, batch) and trainer.is_global_zero:
            os.kill(os.getpid(), self.signal)

    def on_train_start(self, trainer, module):
        if not trainer.is_global_zero:
            (Path(trainer.default_root_dir) / "second").write_text(str(os.getpid()))

    def on_train_batch_start(self, trainer, module, batch, number):
        self._here("train", trainer, number)

    def on_validation_batch_start(self, trainer, module, batch, number, dataloader_idx=0):
        if not trainer.sanity_checking:
            self._here("validation", trainer, number)

    def on_save_checkpoint(self, trainer, module, checkpoint):
        self._here("save", trainer, -1)
'''

# hook, epoch, batch, signal, loader processes, the checkpoint's epoch
POINTS = [
    ("train", 2, 1, "SIGKILL", 2, 1),
    ("train", 1, 2, "SIGTERM", 0, 0),
    ("save", 3, -1, "SIGKILL", 0, 2),
]
if LONG:
    POINTS += [
        ("validation", 2, 0, "SIGKILL", 0, 1),
        ("validation", 1, 0, "SIGTERM", 0, 0),
        ("train", 2, 3, "SIGTERM", 0, 1),
        ("train", 1, 0, "SIGKILL", 2, 0),
        ("train", 3, 1, "SIGTERM", 1, 2),
    ]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Makes the user's module importable, here and in the processes to be killed."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "dropout_task.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def command(
    data: Path, run: Path, workers: int = 0, kill: tuple[str, int, int, str] | None = None
) -> list[str]:
    hook, epoch, batch, name = kill or ("", -1, -1, "SIGKILL")
    killer = (
        f'{{"class_path": "dropout_task.Killer", "init_args": {{"hook": "{hook}", '
        f'"epoch": {epoch}, "batch": {batch}, "name": "{name}"}}}}'
    )
    average = (
        '{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", '
        '"init_args": {"decay": 0.5, "update_every_n_steps": 2}}'
    )
    return [
        "fit", "--trust=dropout_task", "--model=dropout_task.DropoutTask",
        f"--trainer.callbacks=[{average}, {killer}]", "--seed_everything=7",
        f"--data.train=[{data}/train.jsonl]", f"--data.val=[{data}/val.jsonl]",
        "--data.supervision=mask", "--model.student.backbone=mobilenetv3_small_050",
        "--model.student.fusion.width=16", "--model.student.fusion.prototypes=8",
        "--data.input.mode=native", "--data.input.size=[64,64]", "--data.batch_size=2",
        "--data.eval_batch_size=2",
        "--data.augmentation.vertical_flip=0.5", "--data.augmentation.noise=0.5",
        f"--data.num_workers={workers}", f"--trainer.default_root_dir={run}",
        f"--trainer.max_epochs={EPOCHS}", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        "--model.lr=0.003",
    ]  # fmt: skip


def last(run: Path) -> dict[str, Any]:
    return LocalCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")


def differences(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Where two nested values of tensors and plain values are not the same, to the last bit."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return [d for key in ours for d in differences(ours[key], theirs[key], f"{place}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [d for n, (a, b) in pairs for d in differences(a, b, f"{place}.{n}")]
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [place]
    return [] if ours == theirs else [place]


@pytest.fixture(scope="module")
def whole(
    module: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The run that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole")
    assert main(command(data_root, run)) == 0
    return last(run)


def scramble() -> None:
    """Whatever ran before in this process must not matter."""
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[0]}{point[1]}-{point[3]}")
def test_resumed_is_bit_identical(
    whole: dict[str, Any],
    module: Path,
    data_root: Path,
    tmp_path: Path,
    point: tuple[str, int, int, str, int, int],
) -> None:
    *_, workers, saved_epoch = point
    kill = point[:4]
    words = ["boxpromptiml", *command(data_root, tmp_path, workers, kill)]
    killed = run(words, path=module, seconds=300)
    terminated = kill[3] == "SIGTERM"
    expected = 128 + signal.SIGTERM if terminated else -signal.SIGKILL
    assert killed.status == expected, killed.said[-2000:]
    assert "Traceback" not in killed.said
    assert last(tmp_path)["epoch"] == saved_epoch
    interrupted = tmp_path / "checkpoints" / "interrupted.ckpt"
    within_epoch = kill[0] == "train" and kill[2] < BATCHES - 1
    assert interrupted.exists() == (terminated and within_epoch)
    scramble()
    checkpoint = interrupted if interrupted.exists() else "last"
    assert main([*command(data_root, tmp_path, workers), f"--ckpt_path={checkpoint}"]) == 0
    resumed = last(tmp_path)
    assert not interrupted.exists()
    assert resumed["epoch"] == whole["epoch"] == EPOCHS - 1
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states",
                 "lr_schedulers", "loops", "global_step", "training_seed"):  # fmt: skip
        assert differences(resumed[part], whole[part], part) == []


@pytest.mark.slow
def test_the_comparison_and_the_noise_are_alive(
    whole: dict[str, Any], module: Path, data_root: Path, tmp_path: Path
) -> None:
    """Another seed is seen in the weights, averaged and current ones."""
    assert main([*command(data_root, tmp_path), "--seed_everything=8", "--data.seed=0",
                 "--trainer.max_epochs=1"]) == 0  # fmt: skip
    other = last(tmp_path)
    assert differences(other["state_dict"], whole["state_dict"])
    assert differences(other["current_model_state"], whole["state_dict"])


def test_last_starts_afresh_where_there_is_none(
    module: Path, data_root: Path, tmp_path: Path
) -> None:
    """So that a job may be queued with --ckpt_path=last from its first start on."""
    arguments = [*command(data_root, tmp_path), "--trainer.max_epochs=1", "--ckpt_path=last"]
    assert main(arguments) == 0
    assert last(tmp_path)["epoch"] == 0


def ended(program: list[str], environment: dict[str, str], said: Path) -> int | None:
    """Status of a program that kills itself; None and a warning with all stacks if it hangs.

    On a busy machine two processes have hung before their first step, once in some fifty runs.
    """
    with said.open("wb") as stream:
        process = subprocess.Popen(
            program, env=environment | {"PYTHONFAULTHANDLER": "1"}, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(200)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)  # which faulthandler answers with the stacks
            process.wait(60)
    warnings.warn(f"two processes stood still: {said.read_text()[-20_000:]}", stacklevel=1)
    return None


@pytest.mark.slow
def test_two_processes_resume_bit_identically_too(
    module: Path, data_root: Path, tmp_path: Path
) -> None:
    """With averaged weights and loader processes; Lightning starts the second one of the killed.

    That one, which waits for the first in native code, ends when the first is killed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{module}:{Path.cwd()}"}

    def words(name: str, kill: tuple[str, int, int, str] | None, *more: str) -> list[str]:
        return [
            "boxpromptiml", *command(data_root, tmp_path / name, 1, kill), "--trainer.devices=2",
            "--trainer.strategy=ddp", "--data.batch_size=1", "--trainer.max_epochs=2", *more,
        ]  # fmt: skip

    def fit(name: str, *more: str) -> None:
        for one in run_as_torchrun(words(name, None, *more), 2, path=module):
            assert one.status == 0, one.said[-2000:]

    fit("whole")
    program = [sys.executable, "-m", *words("killed", ("train", 1, 1, "SIGKILL"))]
    if ended(program, environment, tmp_path / "said") is None:
        shutil.rmtree(tmp_path / "killed")
        assert ended(program, environment, tmp_path / "said") == -signal.SIGKILL
    second = int((tmp_path / "killed" / "second").read_text())
    assert wait_for(lambda: not alive(second), 30)
    fit("killed", "--ckpt_path=last")
    whole, resumed = last(tmp_path / "whole"), last(tmp_path / "killed")
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert differences(resumed[part], whole[part], part) == []
