"""One training a folder; and no file is deleted because a checkpoint names it."""

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from boxpromptiml.tasks.callbacks import GuardedCheckpoint, LocalCheckpointIO
from boxpromptiml.tasks.run_folder import lock_folder, own_state
from tests.helpers.fit import fit

PLAIN = (
    '{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", '
    '"init_args": {"monitor": "val/auc", "mode": "max", "filename": "auc", "save_last": true}}'
)


def test_a_strangers_checkpoint_deletes_nothing(data_root: Path, tmp_path: Path) -> None:
    """Neither by our callback's state nor by that of Lightning's own."""
    words = [f"--trainer.callbacks=[{PLAIN}]", "--model.lr=0.003"]
    run = tmp_path / "run"
    assert fit(data_root, run, *words, "--trainer.max_epochs=1") == 0
    checkpoint = LocalCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")
    victims = [tmp_path / f"thesis{n}.txt" for n in range(2)]
    states = [s for s in checkpoint["callbacks"].values() if "best_model_path" in s]
    assert len(states) == 2
    for victim, state in zip(victims, states, strict=True):
        victim.write_text("years of work")
        named = f"{run}/checkpoints/../../{victim.name}"
        state |= {
            "dirpath": str(run / "checkpoints"), "best_model_path": named,
            "best_k_models": {named: torch.tensor(-1.0)}, "kth_best_model_path": named,
            "kth_value": torch.tensor(-1.0), "last_model_path": named,
            "best_model_score": torch.tensor(-1.0),
        }  # fmt: skip
    stranger = tmp_path / "stranger.ckpt"
    LocalCheckpointIO().save_checkpoint(checkpoint, stranger)
    words += ["--trainer.max_epochs=2", f"--ckpt_path={stranger}"]
    for folder in (run, tmp_path / "new"):
        assert fit(data_root, folder, *words) == 0
        assert [victim.read_text() for victim in victims] == ["years of work"] * 2
        assert (folder / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize(("decay", "warned"), [(0.998, True), (0.1, False)])
def test_an_average_that_is_mostly_the_first_step_is_said(
    decay: float, warned: bool, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few images and a slow average give a network that has hardly been trained."""
    path = "lightning.pytorch.callbacks.EMAWeightAveraging"
    average = f'[{{"class_path": "{path}", "init_args": {{"decay": {decay}}}}}]'
    words = [f"--trainer.callbacks={average}", "--trainer.max_epochs=1"]
    assert fit(data_root, tmp_path / "run", *words) == 0
    assert ("still the first step's" in capsys.readouterr().out) == warned


def _callback(folder: Path, mode: str = "max") -> GuardedCheckpoint:
    callback = GuardedCheckpoint(mode=mode, save_top_k=2)
    callback.dirpath = str(folder)
    return callback


def _state(**changes: Any) -> dict[str, Any]:
    return {"monitor": "val/pixel_f1", "best_k_models": {}} | changes


@pytest.mark.parametrize(("mode", "best", "worst"), [("max", "b", "a"), ("min", "a", "b")])
def test_earlier_checkpoints_of_the_folder_are_known_by_name(
    tmp_path: Path, mode: str, best: str, worst: str
) -> None:
    models = {}
    for name, score in (("a", 0.1), ("b", 0.2)):
        (tmp_path / f"{name}.ckpt").write_bytes(b"")
        models[f"/moved/from/elsewhere/{name}.ckpt"] = torch.tensor(score)
    models["/gone.ckpt"] = torch.tensor(0.9)
    state = own_state(_callback(tmp_path, mode), _state(best_k_models=models))
    assert state["best_k_models"].keys() == {str(tmp_path / f"{n}.ckpt") for n in "ab"}
    assert state["best_model_path"] == str(tmp_path / f"{best}.ckpt")
    assert state["kth_best_model_path"] == str(tmp_path / f"{worst}.ckpt")
    assert state["dirpath"] == str(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        None, (1, 2), {}, _state(monitor="val/auc"), _state(best_k_models=[1]),
        _state(best_k_models={"a.ckpt": "0.9"}), _state(best_k_models={3: torch.ones(2)}),
        _state(best_k_models={"..": torch.tensor(1.0), "/": torch.tensor(1.0)}),
    ],
)  # fmt: skip
def test_what_is_no_state_is_ignored(tmp_path: Path, state: object) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"")
    callback = _callback(tmp_path)
    assert own_state(callback, state) == callback.state_dict()


def _hold(folder: Path, held: Any) -> None:
    lock = lock_folder(folder)
    held.set()
    signal.pause()  # until it is killed
    lock.release()


def test_a_second_training_in_a_folder_is_refused(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    folder = tmp_path / "checkpoints"
    first = fork.Process(target=_hold, args=(folder, held))
    first.start()
    try:
        held.wait()
        half = folder / ".0123456789abcdef.99.tmp"  # what the first one is writing
        half.write_bytes(b"half")
        assert fit(data_root, tmp_path, "--trainer.max_epochs=1") == 1
        assert f"another job is writing to {folder}" in capsys.readouterr().err
        assert half.exists()
        first.kill()
        first.join()
        assert fit(data_root, tmp_path, "--trainer.max_epochs=1") == 0
        assert not half.exists()
    finally:
        first.kill()


def test_the_lock_is_released_by_a_fit_that_fails(data_root: Path, tmp_path: Path) -> None:
    assert fit(data_root, tmp_path, "--trainer.max_epochs=1", "--model.lr=1e30") == 1
    lock_folder(tmp_path / "checkpoints").release()
