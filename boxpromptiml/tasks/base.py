"""Base class of the LightningModules: training, optimiser, checkpoints."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim.lr_scheduler import LambdaLR

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.spec import DESCRIPTION_KEY, ModelSpec
from boxpromptiml.io.files import sha256_file
from boxpromptiml.models.backbone import rgb_planes
from boxpromptiml.models.configs import OwnConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.records import Batch
from boxpromptiml.tasks.numeric import (
    REMEDY,
    DivergedError,
    finite_weights,
    seed_generators,
    warmup_cosine,
)
from boxpromptiml.tasks.scoring import ScoredModule
from boxpromptiml.tasks.supervised import SupervisionCount

log = logging.getLogger(__name__)

_MAX_BLANK_BATCHES = 10
_SEED_KEY = "training_seed"


class LocalizerTask(ScoredModule):
    """A localizer as a LightningModule; subclasses add the training loss.

    Args:
        spec: Network, input and threshold, as they are stored in its checkpoints.
        pretrained: Weights of the backbone, see `Backbone`.
        init_from: A localizer (.ckpt or .safetensors) of the same architecture; training starts
            from all of its weights, with a new optimiser.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW; not applied to biases and normalisation.
        warmup: Fraction of the steps over which the learning rate rises linearly; afterwards it
            falls to 0 as a cosine.

    Raises:
        UserError: If `init_from` is no such file, or is given together with `pretrained`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        pretrained: Pretrained | None,
        init_from: Path | None,
        lr: float,
        weight_decay: float,
        warmup: float,
    ) -> None:
        if pretrained is not None and init_from is not None:
            raise UserError("--model.init_from and --model.pretrained: give one of them")
        super().__init__(spec, pretrained)
        self.lr = lr
        self.weight_decay = weight_decay
        self.warmup = warmup
        self._trained = False
        self._blank_batches = 0
        self._seed: int | None = None
        self.supervised = SupervisionCount()  # of the current or last training epoch
        if init_from is not None:
            self._start_from(init_from)

    def _start_from(self, path: Path) -> None:
        network, spec = load_localizer(path)
        self._take_normalization(spec)
        channels = self.spec.input.extra_channels
        if spec.network != self.spec.network or spec.input.extra_channels != channels:
            raise UserError(
                f"--model.init_from={path}: holds another network: {spec.network} with "
                f"{spec.input.extra_channels} channels beside RGB; the configuration asks for "
                f"{self.spec.network} with {channels}"
            )
        self.network.load_state_dict(network.state_dict())
        self.spec = replace(self.spec, trained_on=spec.trained_on, started_from=sha256_file(path))
        log.info("training starts from all %d weights of %s", len(network.state_dict()), path)

    @property
    def data(self) -> LocalizationData | None:
        """Our data module; None if the batches come from another one, or from loaders."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, LocalizationData) else None

    def _refuse_loss(self, finished: bool) -> None:
        if self.data is not None:
            self.supervised.refuse_loss(self.data.manipulated, finished)

    def setup(self, stage: str) -> None:
        """Check that the precision suits the network's input.

        Raises:
            UserError: If pixels would be rounded to half precision before their residuals or error
                levels are used.
        """
        residuals = getattr(self.spec.network, "residuals", "none") != "none"
        fine = residuals or self.spec.input.error_levels
        if fine and self.trainer.precision in ("bf16-true", "16-true"):
            raise UserError(
                f"--trainer.precision={self.trainer.precision} rounds pixels to half precision, "
                "and residuals and error levels live below that: use bf16-mixed"
            )

    def require_content(self, has_content: bool) -> None:
        """Count consecutive batches of which nothing could be read.

        Args:
            has_content: Whether any pixel or label of the current batch is known.

        Raises:
            UserError: After ten empty batches in a row.
        """
        self._blank_batches = 0 if has_content else self._blank_batches + 1
        if self._blank_batches >= _MAX_BLANK_BATCHES:
            raise UserError(
                f"no image of {_MAX_BLANK_BATCHES} batches could be read (see the warnings): are "
                "the manifest's paths still right?"
            )

    def finite_loss(self, loss: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Log the loss of a step and return it.

        Raises:
            DivergedError: If it is not finite.
        """
        if not torch.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss.item()} (epoch {self.current_epoch}, step {self.global_step}): "
                f"the training diverged. {REMEDY}"
            )
        self.log("train/loss", loss, prog_bar=True, batch_size=batch_size)
        return loss

    def on_train_start(self) -> None:
        """Record the training datasets, and drop the calibration of a checkpoint tested before."""
        names = sorted({*self.spec.trained_on, *(self.data.trained_on if self.data else ())})
        self.spec = replace(self.spec, trained_on=tuple(names), calibration=None)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random generators from the run's seed, the epoch, the batch and the rank.

        Dropout then does not depend on whether earlier epochs ran in this process or before an
        interruption, nor on how often validation ran in between.
        """
        if self._seed is None:
            self._seed = torch.initial_seed()
        seed_generators(self._seed, self.current_epoch, batch_idx, self.global_rank)
        self.supervised.add(batch)
        if self.trainer.world_size == 1:  # several processes compare at the end of the epoch
            self._refuse_loss(finished=False)

    def on_train_epoch_start(self) -> None:
        """Count the images of the new epoch."""
        self.supervised = SupervisionCount()

    def on_train_epoch_end(self) -> None:
        """Add up the images of all processes, and stop if most manipulated ones could not be read.

        Raises:
            UserError: See `SupervisionCount.refuse_loss`.
        """
        counts = self.supervised.counts.to(self.device)
        self.supervised.counts = self.trainer.strategy.reduce(counts, reduce_op="sum").cpu()
        self._refuse_loss(finished=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters with their weight decay: none for biases and normalisation."""
        decayed = [p for p in self.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.parameters() if p.requires_grad and p.ndim <= 1]
        return [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with a linear warm-up followed by a cosine decay to zero, updated every step.

        Raises:
            UserError: If neither epochs nor steps are limited.
        """
        optimizer = torch.optim.AdamW(self.parameter_groups(), lr=self.lr)
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise UserError(
                "the learning rate falls to 0 at the end of the training, so it needs one: set "
                "--trainer.max_epochs or --trainer.max_steps (--trainer.max_time may end it sooner)"
            )
        steps = max(int(self.trainer.estimated_stepping_batches), 1)
        scheduler = LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, self.warmup))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the model spec and the run's seed to a checkpoint.

        Raises:
            DivergedError: If a weight is not finite; nothing is written then.
        """
        if not finite_weights(self):
            raise DivergedError("the weights are not finite; the checkpoint was not written")
        checkpoint[DESCRIPTION_KEY] = self.spec.to_dict()
        if self._seed is not None:
            checkpoint[_SEED_KEY] = self._seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint's model spec before any weight is loaded.

        Raises:
            UserError: If it is of another network, input or threshold than the configuration.
        """
        if DESCRIPTION_KEY not in checkpoint:
            raise UserError("not a checkpoint of `boxpromptiml fit` for this task")
        spec = ModelSpec.from_dict(checkpoint[DESCRIPTION_KEY])
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        other_channels = spec.input.error_levels != self.spec.input.error_levels
        differs = (spec.input, spec.threshold) != (self.spec.input, self.spec.threshold)
        if other_channels or (differs and not fitting):
            raise UserError(
                f"the checkpoint was trained for {spec.input}, threshold {spec.threshold}; the "
                f"configuration asks for {self.spec.input}, {self.spec.threshold}. Use the "
                "config.yaml beside the checkpoint: --config RUN/config.yaml"
            )
        self._take_normalization(spec)
        if spec.network != self.spec.network:
            raise UserError(
                f"the checkpoint holds another network:\n  {spec.network}\nthe configuration asks "
                f"for\n  {self.spec.network}\nuse the config.yaml beside the checkpoint"
            )
        self._trained = True
        by_network_alone = spec.with_maps(copy_move=False, flips=False)
        self.spec = replace(self.spec, calibration=by_network_alone.calibration)
        if fitting:
            _refuse_fewer_epochs(checkpoint, self.trainer.max_epochs)
            self._seed = seed = checkpoint.get(_SEED_KEY)
            if seed is not None and not (isinstance(seed, int) and seed >= 0):
                raise UserError(f"the checkpoint's {_SEED_KEY} is not a number of 0 or more")
            self.spec = replace(
                self.spec, trained_on=spec.trained_on, started_from=spec.started_from
            )

    def _take_normalization(self, spec: ModelSpec) -> None:
        """Normalise RGB as the weights of a checkpoint expect: earlier versions did otherwise."""
        if isinstance(spec.network, OwnConfig) or isinstance(self.spec.network, OwnConfig):
            return
        mean, std = spec.network.rgb_mean, spec.network.rgb_std
        config = replace(self.spec.network, rgb_mean=mean, rgb_std=std)
        self.spec = replace(self.spec, network=config)
        network: Any = self.network
        network.config = config
        network.mean.copy_(rgb_planes(mean or ()))
        network.std.copy_(rgb_planes(std or ()))

    def on_train_end(self) -> None:
        """Allow `test` and `predict` with the weights just trained."""
        self._trained = True

    def on_test_start(self) -> None:
        """Raise UserError if the weights are untrained."""
        self._require_trained("test")

    def on_predict_start(self) -> None:
        """Raise UserError if the weights are untrained."""
        self._require_trained("predict")

    def _require_trained(self, verb: str) -> None:
        if not self._trained:
            raise UserError(f"`{verb}` needs trained weights: add --ckpt_path FILE.ckpt")


def _refuse_fewer_epochs(checkpoint: dict[str, Any], max_epochs: int | None) -> None:
    """UserError if a checkpoint has more epochs than the training is to have."""
    try:
        done = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError):
        return
    if done < 0:
        raise UserError(f"the checkpoint has {done} epochs: it is damaged")
    if max_epochs is not None and 0 <= max_epochs < done:
        raise UserError(
            f"the checkpoint has {done} epochs already, more than --trainer.max_epochs={max_epochs}"
        )
