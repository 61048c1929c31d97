"""The folder of a run: its lock, files of earlier runs, and the state of its last training."""

import logging
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from boxpromptiml.errors import UserError
from boxpromptiml.tasks.supervised import SupervisionCount

log = logging.getLogger(__name__)

_LARGEST_FIRST = 0.25  # weight of the first step in an average; reached after 700 steps at .998


def lock_folder(folder: Path) -> FileLock:
    """Create a folder and lock it for this process, until released or until the process ends.

    Raises:
        UserError: If another job holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"another job is writing to {folder}: wait for it, or choose another "
            "--trainer.default_root_dir"
        ) from None
    except NotImplementedError:
        log.warning("%s: its file system has no locks; start only one job there", folder)
    return lock


def own_state(callback: ModelCheckpoint, state: object) -> dict[str, Any]:
    """The state of a checkpoint callback without any path that its checkpoint file gave.

    Lightning deletes what the paths in this state name as soon as there is a better checkpoint, and
    the file may be untrusted. So of every path only the name is used, and only if the
    callback's own folder holds a file of this name.

    Args:
        callback: After its setup, so that its folder is known.
        state: What the checkpoint holds for it.
    """
    own = callback.state_dict()
    given = state if isinstance(state, dict) and state.get("monitor") == callback.monitor else {}
    listed, folder = given.get("best_k_models"), Path(str(callback.dirpath))
    models: dict[str, torch.Tensor] = {}
    for path, score in listed.items() if isinstance(listed, dict) else ():
        file = folder / Path(str(path)).name
        if file.is_file() and isinstance(score, torch.Tensor) and score.numel() == 1:
            models[str(file)] = score
    if not models:
        return own
    best_first = sorted(models, key=lambda path: -float(models[path]))
    if callback.mode == "min":
        best_first.reverse()
    return own | {
        "best_k_models": models,
        "best_model_path": best_first[0],
        "best_model_score": models[best_first[0]],
        "kth_best_model_path": best_first[-1],
        "kth_value": models[best_first[-1]],
    }


def summary(trainer: Trainer, task: LightningModule, wanted: str | None) -> str:
    """Summary of a finished training, in a few lines.

    Args:
        trainer: After `fit`.
        task: What was trained.
        wanted: The `ckpt_path` that was asked for.
    """
    checkpoints = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
    folder = Path(str(checkpoints.dirpath))
    best, score = checkpoints.best_model_path, checkpoints.best_model_score
    lines = [f"{_start(trainer, folder, wanted)}; {_end(trainer, checkpoints)}"]
    supervised = getattr(task, "supervised", None)
    if isinstance(supervised, SupervisionCount) and supervised.counts.any():
        lines.append(f"last epoch: {supervised}")
    if warning := _too_short_to_average(trainer):
        lines.append(warning)
    if best:
        lines.append(f"best: {best} ({checkpoints.monitor} {float(score or 0):.4f})")
        config = Path(trainer.default_root_dir) / "config.yaml"
        lines.append(f"next: boxpromptiml test --config {config} --ckpt_path {best}")
    return "".join(f"{line}\n" for line in lines)


def _too_short_to_average(trainer: Trainer) -> str | None:
    """A warning if the averaged weights, which are what is saved, are mostly the first step's."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        model = getattr(callback, "_average_model", None)
        if not isinstance(callback, EMAWeightAveraging) or model is None:
            continue
        kept = float(model.avg_fn(torch.ones(()), torch.zeros(()), 1))  # the decay
        first = kept ** max(int(model.n_averaged) - 1, 0)
        if first > _LARGEST_FIRST:
            return (
                f"WARNING: the saved weights are a moving average; after {trainer.global_step} "
                f"steps with decay {kept:g}, {first:.0%} of it is still the first step's. Train "
                "longer, or again with --trainer.callbacks.init_args.decay=0.9"
            )
    return None


def _start(trainer: Trainer, folder: Path, wanted: str | None) -> str:
    if trainer.ckpt_path:
        return f"resumed from {trainer.ckpt_path}"
    if wanted == "last":
        return f"STARTED FROM SCRATCH, since {folder} had no last.ckpt"
    return "started from scratch"


def _end(trainer: Trainer, checkpoints: ModelCheckpoint) -> str:
    epochs = f"{trainer.current_epoch} epochs, {trainer.global_step} steps"
    if getattr(checkpoints, "started_at", None) is None:
        return (
            f"NOTHING WAS TRAINED: it has {epochs} already, all that were asked for. The learning "
            "rate has fallen to 0; to train its weights further, start anew with "
            "--model.init_from=CHECKPOINT"
        )
    return f"{epochs} in all"
