"""`fit`, `validate`, `test`, `predict`: LightningCLI over our tasks and data."""

import warnings
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.reporting.predictions import PredictionWriter
from boxpromptiml.tasks.callbacks import GuardedCheckpoint, MetricsFile
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.image_label import (
    ImageLabelTask,  # noqa: F401 - so that `--model=ImageLabelTask` finds it
)

_RUN_FOLDER = "runs/student"


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the run's folder, and into Weights & Biases where that logs.

    Only `fit` writes config.yaml; the others write config_test.yaml and so on beside it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the file's name before Lightning writes it."""
        if stage != "fit":
            self.config_filename = f"config_{getattr(stage, 'value', stage)}.yaml"
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called once, on the first process."""
        if isinstance(trainer.logger, WandbLogger):
            values = self.parser.dump(self.config, format="parser_mode", skip_none=False)
            trainer.logger.experiment.config.update({"config": values}, allow_val_change=True)


class TrainerCLI(LightningCLI):
    """Our defaults, and the one link between data and task: what the network is fed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--checkpoint.*` and tie `model.input` to `data.input`."""
        parser.add_lightning_class_args(GuardedCheckpoint, "checkpoint")
        parser.link_arguments("data.input", "model.init_args.input")
        parser.set_defaults(
            {"model": {"class_path": f"{DistillTask.__module__}.{DistillTask.__name__}"}}
        )

    def before_instantiate_classes(self) -> None:
        """Keep a run's files in its folder; load checkpoints as data only."""
        config = self.config[self.subcommand]
        _settle_logger(config.trainer, fitting=self.subcommand == "fit")
        if self.subcommand == "predict":
            config.return_predictions = False  # PredictionWriter writes them; memory stays flat
        path = config.get("ckpt_path")
        if path and "://" in str(path):  # Lightning would unpickle it
            raise UserError(f"--ckpt_path {path}: download it first; only local files are loaded")
        if config.get("weights_only") is False:
            raise UserError("--weights_only=false runs code from the checkpoint; it is not offered")
        config.weights_only = True  # Lightning's None yields to an environment variable


def _settle_logger(trainer: Namespace, fitting: bool) -> None:
    """Point the logger at the run's folder, and never write over a training's history."""
    logger, folder = trainer.logger, Path(trainer.default_root_dir)
    if not isinstance(logger, Namespace):
        return
    ours = logger.class_path.endswith("CSVLogger") and not logger.init_args.get("name")
    if ours and not fitting:
        trainer.logger = False
    elif ours or logger.init_args.get("save_dir") in (None, ".", _RUN_FOLDER):
        logger.init_args.save_dir = str(folder)
    for key in ("name", "version"):  # jsonargparse carries ours over to another class of logger
        if not ours and logger.init_args.get(key) == "":
            logger.init_args[key] = None
    if ours and fitting:
        _keep_history(folder)


@rank_zero_only
def _keep_history(folder: Path) -> None:
    """Move the metrics.csv of an earlier run aside: CSVLogger would delete it."""
    history = folder / "metrics.csv"
    if history.exists():
        number = len(list(folder.glob("metrics_before_*.csv")))
        history.rename(folder / f"metrics_before_{number}.csv")


def run_trainer(args: list[str]) -> None:
    """Parse a LightningCLI command line and run it."""
    # Lightning warns when a program passes its own command line on; here that is the point.
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    TrainerCLI(
        LightningModule,
        LocalizationData,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "boxpromptiml"},
        trainer_defaults=_trainer_defaults(),
        args=args,
    )


def _trainer_defaults() -> dict[str, Any]:
    return {
        "max_epochs": 20,
        "default_root_dir": _RUN_FOLDER,
        "log_every_n_steps": 10,
        "gradient_clip_val": 1.0,
        "callbacks": [MetricsFile(), PredictionWriter()],
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": _RUN_FOLDER, "name": "", "version": ""},
        },
    }
