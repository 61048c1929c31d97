"""Checkpoints: which are kept, and that a file under its final name is always complete."""

import errno
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from ctypes import c_int64
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.spec import DESCRIPTION_KEY
from boxpromptiml.tasks.callbacks import GuardedCheckpoint, LocalCheckpointIO, MetricsFile
from boxpromptiml.tasks.numeric import DivergedError
from tests.helpers.training import checkpoints_in, make_data, make_task, make_trainer

KILLS = 20 if os.environ.get("BOXPROMPTIML_CAMPAIGN") == "long" else 3


FORK = multiprocessing.get_context("fork")


OTHER_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - a tmpfs


def save_for_ever(path: Path, temporary: str, started: int, done: "Synchronized[int]") -> None:
    """Checkpoints of 40 MB, numbered; `done` is the last one that was finished."""
    os.environ["TMPDIR"] = temporary
    tempfile.tempdir = None
    tensors = {f"layer{n}": torch.full((1000, 1000), float(n)) for n in range(10)}
    for number in range(started, 10**9):
        LocalCheckpointIO().save_checkpoint({"number": number, "state_dict": tensors}, path)
        done.value = number


@pytest.mark.skipif(not OTHER_FILE_SYSTEM.is_dir(), reason="needs a second file system")
def test_the_newest_complete_checkpoint_loads_after_every_kill(tmp_path: Path) -> None:
    """A10: killed at random points, nearly all inside the write, $TMPDIR elsewhere."""
    rng, path = np.random.default_rng(0), tmp_path / "last.ckpt"
    assert OTHER_FILE_SYSTEM.stat().st_dev != tmp_path.stat().st_dev
    done = FORK.Value(c_int64, -1)
    inside = 0
    others = set(OTHER_FILE_SYSTEM.glob("tmp*"))
    for _ in range(KILLS):
        before = done.value
        arguments = (path, str(OTHER_FILE_SYSTEM), before + 1, done)
        child = FORK.Process(target=save_for_ever, args=arguments)
        child.start()
        deadline = time.monotonic() + 60
        while done.value == before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.2)))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        checkpoint = LocalCheckpointIO().load_checkpoint(path)
        assert checkpoint["number"] in (done.value, done.value + 1)
        assert all(
            float(v.sum()) == n * 1e6 for n, v in enumerate(checkpoint["state_dict"].values())
        )
        left = {entry.name for entry in tmp_path.iterdir()} - {path.name}
        assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
        inside += bool(left)
        for name in left:
            (tmp_path / name).unlink()
    assert inside >= KILLS // 4, "the kills missed the writes: the test shows nothing"
    assert set(OTHER_FILE_SYSTEM.glob("tmp*")) <= others


def test_what_a_kill_left_behind_goes_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / ".0123456789abcdef.99.tmp").write_bytes(b"half")
    (folder / "best.ckpt").write_bytes(b"GuardedCheckpoint")
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, max_epochs=1)
    GuardedCheckpoint().setup(trainer, LightningModule(), "fit")
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "best.ckpt"]


def in_a_child(target: Callable[..., None], *args: Any) -> int | None:
    child = FORK.Process(target=target, args=args)
    child.start()
    child.join()
    return child.exitcode


def save_with_little_room(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        LocalCheckpointIO().save_checkpoint({"a": torch.zeros(10**6)}, path)
    except OSError as error:
        os._exit((error.errno or 1) if error.filename == str(path) else 1)
    os._exit(0)


def test_a_full_disk_is_an_os_error_and_keeps_the_old_one(tmp_path: Path) -> None:
    """cli.run prints it as one line: the file, and what is wrong."""
    path = tmp_path / "last.ckpt"
    LocalCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)
    assert in_a_child(save_with_little_room, path) == errno.EFBIG
    assert LocalCheckpointIO().load_checkpoint(path)["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_addresses_are_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in (
        "http://localhost/x.ckpt",
        "s3://b/x.ckpt",
        "memory://x",
        "simplecache::http://h/x",
    ):
        with pytest.raises(UserError, match="addresses"):
            LocalCheckpointIO().save_checkpoint({}, address)
        with pytest.raises(UserError, match="addresses"):
            LocalCheckpointIO().load_checkpoint(address)
    assert not list(tmp_path.iterdir())


def test_removing(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    LocalCheckpointIO().save_checkpoint({"a": 1}, str(path))
    LocalCheckpointIO().remove_checkpoint(str(path))
    LocalCheckpointIO().remove_checkpoint(str(path))
    assert not path.exists()


class _Poison(MetricsFile):
    """Makes the loss NaN, or raises, at the second step of the second epoch."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self.error = error

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            if self.error:
                raise self.error
            batch["image"].fill_(math.nan)


def test_a_nan_loss_stops_the_run_and_keeps_the_good_checkpoints(
    data_root: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), _Poison(), max_epochs=3)
    with pytest.raises(DivergedError, match=r"--model\.lr"):
        trainer.fit(make_task(), make_data(data_root))
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(tmp_path / name, weights_only=True)  # noqa: TID251
        assert checkpoint["global_step"] == 2  # of the end of the first epoch
        load_localizer(tmp_path / name)


def test_an_interruption_is_saved_beside_the_end_of_the_last_epoch(
    data_root: Path, tmp_path: Path
) -> None:
    poison = _Poison(MemoryError)
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), poison, max_epochs=3)
    with pytest.raises(MemoryError):
        trainer.fit(make_task(), make_data(data_root))
    steps = {
        name: torch.load(tmp_path / name, weights_only=True)["global_step"]  # noqa: TID251
        for name in ("best.ckpt", "last.ckpt", "interrupted.ckpt")
    }
    assert steps == {"best.ckpt": 2, "last.ckpt": 2, "interrupted.ckpt": 3}


def test_last_is_the_last_epoch_whatever_was_best(data_root: Path, tmp_path: Path) -> None:
    callback = checkpoints_in(tmp_path)
    make_trainer(tmp_path, callback, max_epochs=3, check_val_every_n_epoch=2).fit(
        make_task(), make_data(data_root)
    )
    epochs = {
        name: torch.load(tmp_path / name, weights_only=True)["epoch"]  # noqa: TID251
        for name in ("best.ckpt", "last.ckpt")
    }
    assert epochs == {"best.ckpt": 1, "last.ckpt": 2}


def test_a_run_that_would_never_validate_is_refused(data_root: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), check_val_every_n_epoch=5)
    with pytest.raises(UserError, match="check_val_every_n_epoch=2"):
        trainer.fit(make_task(), make_data(data_root))


def test_averaged_weights_are_what_is_tested_and_saved(data_root: Path, tmp_path: Path) -> None:
    """With decay 0 averaging is the identity; with 0.9 the saved weights lag behind."""

    def saved(decay: float, folder: Path) -> dict[str, torch.Tensor]:
        trainer = make_trainer(folder, checkpoints_in(folder), EMAWeightAveraging(decay=decay))
        trainer.fit(make_task(), make_data(data_root))
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)  # noqa: TID251
        assert DESCRIPTION_KEY in checkpoint
        return {k: v for k, v in checkpoint["state_dict"].items() if v.is_floating_point()}

    plain, lagging = saved(0.0, tmp_path / "plain"), saved(0.9, tmp_path / "lag")
    assert plain.keys() == lagging.keys()
    assert any(not torch.equal(plain[k], lagging[k]) for k in plain)
