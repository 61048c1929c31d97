"""`fit`, `validate`, `test`, `predict`: LightningCLI over our tasks and data."""

import json
import signal
import sys
from pathlib import Path
from traceback import walk_tb
from typing import Any

import jsonargparse
import lightning
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.utilities.exceptions import SIGTERMException

from boxpromptiml.cli.idle import refuse_idle
from boxpromptiml.cli.import_policy import TRUST_HELP, restrict_imports, take_trust
from boxpromptiml.cli.messages import OneLineErrors, one_line, quiet_libraries, refusal
from boxpromptiml.cli.words import (
    check_values,
    in_lists,
    read_none,
    with_ckpt_path,
    with_experiments,
    with_underscores,
)
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.io.files import refuse_address, write_text
from boxpromptiml.io.old_names import renamed_words
from boxpromptiml.io.outputs import CONFIGURATION
from boxpromptiml.io.processes import environment_for_children
from boxpromptiml.io.progress import is_quiet
from boxpromptiml.io.strict_yaml import read_yaml
from boxpromptiml.metrics.results import score_list
from boxpromptiml.tasks.callbacks import GuardedCheckpoint, LocalCheckpointIO, MetricsFile
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.history import HistoryLogger
from boxpromptiml.tasks.image_label import (
    ImageLabelTask,  # noqa: F401 - so that `--model=ImageLabelTask` finds it
)
from boxpromptiml.tasks.prediction_writer import PredictionWriter
from boxpromptiml.tasks.run_folder import summary
from boxpromptiml.tasks.wandb import PatientWandbLogger, WandbImages, sweep_folder

_RUN_FOLDER = "runs/student"
_RANGES = {
    "seed_everything": range(2**32),
    "trainer.accumulate_grad_batches": range(1, 2**31),
    "trainer.check_val_every_n_epoch": range(1, 2**31),
    "trainer.devices": range(-1, 2**10),
    "trainer.num_nodes": range(1, 2**16),
    "trainer.val_check_interval": range(1, 2**31),
}
_LIGHTNING = Path(lightning.__file__).parent
_FAILURES = (
    MisconfigurationException,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
_NOT_RESTORED = (
    "the training state in the checkpoint cannot be restored. To begin anew with its weights: "
    "--model.init_from=CHECKPOINT in place of --ckpt_path"
)
_SHOWN = ("enable_progress_bar", "enable_model_summary")
_MISSING = " is not installed: pip install "
_KILLED_WORKER = (
    "a loader process was killed, most likely for want of memory; checkpoints are untouched. Go on "
    "with --ckpt_path=last and fewer --data.num_workers"
)


class SaveConfig(SaveConfigCallback):
    """Writes the configuration to the run's folder and to Weights & Biases, if used.

    `fit` writes config.yaml; the other verbs write config_test.yaml and so on beside it. Lightning
    itself would write through a link, and leave half a file on a full disk.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write config_STAGE.yaml; config.yaml waits until `fit` has passed all checks.

        Raises:
            UserError: If a file that no training wrote would be replaced, such as a configuration
                by hand in a run's folder.
        """
        if stage != "fit":
            self.config_filename = f"config_{getattr(stage, 'value', stage)}.yaml"
        # Asked for on every process, since Lightning broadcasts it.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)
        CONFIGURATION.require_ours(self._folder / self.config_filename)
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write config.yaml."""
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration, and send it to Weights & Biases; on the first process only."""
        text = self.parser.dump(self.config, skip_none=False)
        write_text(self._folder / self.config_filename, text)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                values = json.loads(self.parser.dump(self.config, format="json", skip_none=False))
                logger.experiment.config.update(values, allow_val_change=True)


class TrainerCLI(LightningCLI):
    """LightningCLI with our defaults; links the network's input between data and task.

    It knows the verbs that `parser_kwargs` names.
    """

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # a static method there
        """Only the verb of the command line: each of the other parsers takes as long to build."""
        every = LightningCLI.subcommands()
        return {verb: every[verb] for verb in every if verb in self.parser_kwargs}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add `--checkpoint.*` and tie `model.input` to `data.input`."""
        parser.add_lightning_class_args(GuardedCheckpoint, "checkpoint")
        parser.link_arguments("data.input", "model.init_args.input")
        parser.set_defaults(
            {"model": {"class_path": f"{DistillTask.__module__}.{DistillTask.__name__}"}}
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and keep it to see what it says by itself."""
        self._words = args
        super().parse_arguments(parser, args)
        if verb := self.config.get("subcommand"):
            _refuse_out_of_range(self.config[verb])

    def before_instantiate_classes(self) -> None:
        """Keep a run's files in its folder; load checkpoints as data only.

        Raises:
            UserError: If the configuration asks for what is not supported, such as code from a
                checkpoint, or the command line for what has no effect.
        """
        config = self.config[self.subcommand]
        if self.subcommand == "fit":
            refuse_idle(config, self._words)
        _refuse_moved_run(config)
        config.trainer.default_root_dir = sweep_folder(str(config.trainer.default_root_dir))
        _settle_loggers(config.trainer, fitting=self.subcommand == "fit")
        if self.subcommand == "predict":
            config.return_predictions = False  # PredictionWriter writes them; memory stays flat
        self._wanted = config.get("ckpt_path")
        if self._wanted is not None:
            refuse_address(self._wanted)
            folder = Path(config.trainer.default_root_dir) / "checkpoints"
            config.ckpt_path = _checkpoint(self._wanted, folder, fitting=self.subcommand == "fit")
        if config.get("weights_only") is False:
            raise UserError("--weights_only=false runs code from the checkpoint; it is not offered")
        config.weights_only = True  # Lightning's None yields to an environment variable

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add our checkpoint I/O to whatever plugins the configuration names.

        Raises:
            UserError: The trainer's options do not fit together.
        """
        plugins = self.config_init[self.subcommand].trainer.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        try:
            return super().instantiate_trainer(plugins=[*plugins, LocalCheckpointIO()], **kwargs)
        except (
            TypeError,
            ValueError,
            MisconfigurationException,
        ) as error:  # options that do not fit together
            raise UserError(" ".join(str(error).split())) from error

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the verb; an optimiser that fails on another one's state is a user's mistake."""
        try:
            super()._run_subcommand(subcommand)
        except _FAILURES as error:
            if self._wanted is not None and (_optimizes(error) or _counts(error)):
                raise UserError(_not_restored(error)) from error
            raise

    def after_fit(self) -> None:
        """Say what was learned from, where the checkpoints are, and what to do next."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            sys.stdout.write(summary(self.trainer, self.model, self._wanted))

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Print the scores by name, in place of Lightning's table of logged keys."""
        options = super()._prepare_subcommand_kwargs(subcommand)
        self._print_scores = options.get("verbose", False)
        return options | {"verbose": False} if "verbose" in options else options

    def before_validate(self) -> None:
        """Raise UserError without a checkpoint: untrained weights would replace a run's scores."""
        if self._wanted is None:
            raise UserError("`validate` needs trained weights: add --ckpt_path FILE.ckpt")

    def after_validate(self) -> None:
        """Print the validation scores."""
        self._say_scores("val/")

    def after_test(self) -> None:
        """Print the test scores."""
        self._say_scores("test/")

    def _say_scores(self, prefix: str) -> None:
        logged = self.trainer.callback_metrics.items()
        scores = {k.removeprefix(prefix): float(v) for k, v in logged if k.startswith(prefix)}
        if self._print_scores and self.trainer.is_global_zero:
            sys.stdout.write(score_list(scores))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning's version imports what the checkpoint's `hyper_parameters` name."""


def _checkpoint(wanted: str, folder: Path, fitting: bool) -> str | None:
    """The file that `--ckpt_path=last` or `best` means, whatever the loggers are.

    Raises:
        UserError: If it does not exist; only `fit --ckpt_path=last` starts from scratch then.
    """
    if wanted in ("", "hpc"):
        raise UserError(f"--ckpt_path={wanted}: name a checkpoint, or `last`")
    if wanted not in ("last", "best"):
        return wanted
    file = folder / f"{wanted}.ckpt"
    if file.exists():
        return str(file)
    if fitting and wanted == "last":
        return None
    raise UserError(f"--ckpt_path={wanted}: there is no {file}")


def _refuse_out_of_range(config: Namespace) -> None:
    """Refuse numbers of Lightning's own options that it would fail on later, with a traceback.

    Raises:
        UserError: Names the option.
    """
    for option, allowed in _RANGES.items():
        value = config.get(option)
        if isinstance(value, str) and value.isdecimal():  # of `devices`, which may be text too
            value = int(value)
        if type(value) is int and value not in allowed:
            raise UserError(f"--{option} must be from {allowed[0]} to {allowed[-1]}, got {value}")


def _refuse_moved_run(config: Namespace) -> None:
    """Refuse the config.yaml of a run that was moved: it names the folder that the run had before.

    Results would go there, and there may be another run by now.

    Raises:
        UserError: Says which option names the folder that the run has now.
    """
    named = str(config.trainer.default_root_dir)
    for given in config.get("config") or []:
        path = Path(str(given))
        if not CONFIGURATION.is_of(path) or path.resolve().is_relative_to(Path(named).resolve()):
            continue  # a logger's folder may lie below
        content = read_yaml(path)
        if str((content.get("trainer") or {}).get("default_root_dir")) == named:
            raise UserError(
                f"{path}: is of a run in {named}, and results would go there; add "
                f"--trainer.default_root_dir={path.parent}, or the folder that you mean"
            )


def _settle_loggers(trainer: Namespace, fitting: bool) -> None:
    """Point loggers at the run's folder; never overwrite the metrics.csv of a training."""
    given, folder = trainer.logger, Path(trainer.default_root_dir)
    loggers = given if isinstance(given, list) else [given]
    kept = [logger for logger in loggers if fitting or not _is_ours(logger)]
    for logger in kept:
        if isinstance(logger, Namespace):
            _settle_logger(logger, folder)
    trainer.logger = kept if isinstance(given, list) else (kept or [False])[0]


def _is_ours(logger: object) -> bool:
    """Whether a logger is the CSVLogger that writes metrics.csv to the run's folder."""
    if not isinstance(logger, Namespace):
        return False
    return logger.class_path.endswith(("CSVLogger", "HistoryLogger")) and not logger.init_args.get(
        "name"
    )


def _settle_logger(logger: Namespace, folder: Path) -> None:
    if _is_ours(logger):
        logger.class_path = f"{HistoryLogger.__module__}.{HistoryLogger.__name__}"
        logger.init_args.save_dir = str(folder)
        return
    if logger.class_path.endswith(".WandbLogger"):
        logger.class_path = f"{PatientWandbLogger.__module__}.{PatientWandbLogger.__name__}"
    if logger.init_args.get("save_dir") in (None, ".", _RUN_FOLDER):
        logger.init_args.save_dir = str(folder)
    for key in ("name", "version"):  # jsonargparse carries ours over to another class of logger
        if logger.init_args.get(key) == "":
            logger.init_args[key] = None


class _Parser(OneLineErrors, LightningArgumentParser):
    """Lightning's, with mistakes in one line."""


def run_trainer(args: list[str]) -> None:
    """Parse a LightningCLI command line, which begins with the verb, and run it.

    Raises:
        UserError: If a configuration names a class that it may not, options do not fit together, or
            a loader process was killed.
        KeyboardInterrupt: After Ctrl-C, when checkpoints and logs are written.
        SystemExit: With status 143 when SIGTERM ended it, after checkpoints and logs are written.
    """
    trusted, args = take_trust(with_underscores(args))
    restrict_imports(trusted)
    quiet_libraries()
    try:
        with environment_for_children():  # Lightning starts processes for DDP
            TrainerCLI(
                LightningModule,
                LocalizationData,
                subclass_mode_model=True,
                auto_configure_optimizers=False,
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                parser_class=_Parser,
                parser_kwargs={args[0]: {"epilog": TRUST_HELP}, "prog": "boxpromptiml"},
                trainer_defaults=_trainer_defaults(),
                args=_words(args),
            )
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns it into status 1
            raise KeyboardInterrupt from None
        raise
    except _FAILURES as error:
        if text := _failure(error):
            raise UserError(text) from error
        raise


def _failure(error: Exception) -> str | None:
    """The user's or the checkpoint's mistake that Lightning failed on; None for other errors."""
    text = " ".join(str(error).split())
    if isinstance(error, MisconfigurationException):
        return text
    if isinstance(error, UserError):
        return None  # has its message
    if _restores(error):
        return _not_restored(error)
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return _KILLED_WORKER
    if isinstance(error, ValueError) and (mistake := _mistake(error)):
        return mistake  # from below a --config file, past the parser's own handling
    return text if _is_complaint_of_lightning(error) else None


def _not_restored(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{_NOT_RESTORED} ({type(error).__name__}: {reason})"


def _restores(error: Exception) -> bool:
    """Whether Lightning was restoring a checkpoint's state, which it does not check."""
    return any(
        frame.f_code.co_filename == checkpoint_connector.__file__
        and "restore" in frame.f_code.co_name
        for frame, _ in walk_tb(error.__traceback__)
    )


def _counts(error: Exception) -> bool:
    """Whether Lightning failed on a counter or the like, which it does not check on restoring."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    wrong_kind = isinstance(error, (TypeError, LookupError, AttributeError))
    return wrong_kind and _LIGHTNING in Path(frame.f_code.co_filename).parents


def _is_complaint_of_lightning(error: Exception) -> bool:
    """Whether Lightning raised it, as it does where options do not fit the data or the cluster."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    raised = isinstance(error, (ValueError, RuntimeError)) and not isinstance(error, LookupError)
    return raised and _LIGHTNING in Path(frame.f_code.co_filename).parents


def _optimizes(error: Exception) -> bool:
    """Whether an optimiser or scheduler failed, on a state that is for other weights."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    optimizers = Path(str(torch.optim.__file__)).parent
    full = isinstance(error, torch.OutOfMemoryError)
    return Path(frame.f_code.co_filename).parent == optimizers and not full


def _words(args: list[str]) -> list[str]:
    """The command line as LightningCLI accepts it."""
    words = with_experiments(in_lists(with_ckpt_path(read_none(renamed_words(args)))))
    check_values(words)
    return words + [f"--trainer.{shown}=false" for shown in _SHOWN] if is_quiet() else words


def _mistake(error: ValueError) -> str | None:
    """The mistake behind an error of jsonargparse, such as a refused import; None for others."""
    if text := refusal(str(error)):
        return text
    if isinstance(cause := _root(error), ImportError):  # an optional package of Lightning's
        return str(cause).splitlines()[0]
    # of one logger in a list: what it raised is but a line of the message
    if missing := next((x.strip(" -") for x in str(error).splitlines() if _MISSING in x), None):
        return missing
    *_, (frame, _) = walk_tb(error.__traceback__)
    parsed = Path(frame.f_code.co_filename).parent == Path(jsonargparse.__file__).parent
    return one_line(str(error), ()) if parsed and not isinstance(cause, UserError) else None


def _root(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _root(error.__cause__)


def _trainer_defaults() -> dict[str, Any]:
    return {
        "max_epochs": 20,
        "default_root_dir": _RUN_FOLDER,
        "log_every_n_steps": 10,
        "gradient_clip_val": 1.0,
        "callbacks": [MetricsFile(), PredictionWriter(), WandbImages()],
        "logger": {
            "class_path": "lightning.pytorch.loggers.CSVLogger",
            "init_args": {"save_dir": _RUN_FOLDER, "name": "", "version": ""},
        },
    }
