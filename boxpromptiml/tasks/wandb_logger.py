"""Weights & Biases that never ends a run: without a server or a key it goes on offline."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:  # takes more than half a second, and most runs do not log there
    from wandb import Run
    from wandb.sdk.lib import RunDisabled

    Experiment = Run | RunDisabled

log = logging.getLogger(__name__)

# Seconds to wait for the server before a run and after it; what was not sent stays on disk.
_PATIENCE = {"WANDB_INIT_TIMEOUT": "20", "WANDB_FINISH_TIMEOUT": "120"}


class PatientWandbLogger(WandbLogger):
    """Lightning's WandbLogger, but what keeps it from the server becomes one warning.

    No key, a refused one, an unreachable server: the run is kept on disk, where `wandb sync` finds
    it. It never asks for a key. The waits are those of the environment variables WANDB_INIT_TIMEOUT
    (20 seconds here) and WANDB_FINISH_TIMEOUT (120 seconds here). The images of tables lie in the
    run's folder, not in the user's home, unless WANDB_DATA_DIR says where.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Repeats nothing: jsonargparse follows super() to every argument of wandb.init, but would
        # not find those behind an __init__ that is inherited.
        super().__init__(**kwargs)

    @property
    def experiment(self) -> "Experiment":
        """The run; started, on the first process, when it is first asked for."""
        rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
        if self._experiment is not None or rank != 0:
            return self._start()
        for name, value in (_PATIENCE | {"WANDB_DATA_DIR": self._data_folder()}).items():
            os.environ.setdefault(name, value)
        import wandb  # noqa: PLC0415

        try:
            if self._is_online() and not wandb.login(prompt=False):
                return self._start_offline("no API key is set (`wandb login`)")
            return self._start()
        except (wandb.errors.Error, OSError) as error:
            return self._start_offline(str(error).strip().partition("\n")[0].rstrip("."))

    def _start(self) -> "Experiment":
        run: Experiment = super().experiment
        return run

    def _start_offline(self, reason: str) -> "Experiment":
        self._wandb_init["mode"] = "offline"
        run = self._start()
        log.warning(
            "Weights & Biases: %s; this run is kept in %s, `wandb sync` it later",
            reason,
            Path(run.dir).parent,
        )
        return run

    def _data_folder(self) -> str:
        return str((Path(self.save_dir or ".") / "wandb" / "data").absolute())

    def _is_online(self) -> bool:
        import wandb  # noqa: PLC0415

        mode = self._wandb_init.get("mode") or wandb.setup().settings.mode
        return not self._offline and mode in ("online", "run", "shared")


def sweep_folder(folder: str) -> str:
    """Where a run's files go: below `folder`, each run of a `wandb agent` in a folder of its own.

    Unless an agent started this process, that is `folder` itself.
    """
    run = os.environ.get("WANDB_RUN_ID")
    if not run or not os.environ.get("WANDB_SWEEP_ID"):
        return folder
    return str(Path(folder) / f"sweep_{os.environ['WANDB_SWEEP_ID']}" / run)
