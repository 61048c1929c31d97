"""Evaluation of a localizer in Lightning: maps and predictions; `metrics.pixel` computes scores."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn, NotRequired, TypedDict

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import TorchNetwork, build_network
from boxpromptiml.inference.maps import probability_maps
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.metrics.pixel import LocalizationMetrics
from boxpromptiml.models.configs import StudentConfig, WCBConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.inputs import FloatArray
from boxpromptiml.records import Batch, ProbArray
from boxpromptiml.tasks.numeric import REMEDY, DivergedError, all_scores

_OURS = (StudentConfig, WCBConfig)


class Maps(TypedDict):
    """Predictions of a batch, in the order of the batch."""

    id: list[str]
    prob: list[torch.Tensor]  # (H, W) at the stored size
    image_score: torch.Tensor  # (B,) in [0, 1]
    lost: NotRequired[
        list[bool]
    ]  # whether the image could not be read; its map and score mean nothing then


class ScoredModule(LightningModule):
    """A network with the steps of `validate`, `test` and `predict`; `LocalizerTask` trains it.

    Args:
        spec: Network, input and threshold, as they are stored in its checkpoints.
        pretrained: Local weights of the backbone.
    """

    def __init__(self, spec: ModelSpec, pretrained: Pretrained | None) -> None:
        super().__init__()
        network = build_network(spec, pretrained).to(memory_format=torch.channels_last)
        taken = getattr(network, "config", None)  # with the RGB normalisation it took
        self.spec = replace(spec, network=taken) if isinstance(taken, _OURS) else spec
        self.add_module(spec.kind, network)
        # In a dictionary, so that Lightning does not move them: MPS has no float64.
        self._metrics = {s: LocalizationMetrics(spec.threshold) for s in ("val", "test")}
        self.f1_curves: dict[str, list[tuple[float, float]]] = {}

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: Lightning imports and calls what the checkpoint names.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "load_from_checkpoint runs what the file names: use boxpromptiml.Localizer.load(path), "
            "or trainer.fit, validate, test or predict with ckpt_path"
        )

    @property
    def network(self) -> nn.Module:
        """The network being trained: the student or WCBnet."""
        return self.get_submodule(self.spec.kind)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the images of a batch to the validation scores."""
        self.score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the images of a batch to the test scores."""
        self.score(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Maps:
        """Predict probability maps at the stored size."""
        prob, score = self.localize(batch)
        lost = batch.get("lost", [False] * len(prob))
        return Maps(id=batch["id"], prob=prob, image_score=score, lost=lost)

    def localize(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Predict maps (H, W) in [0, 1] at the stored sizes and image scores (B,) in [0, 1].

        By the network alone: without mirror images or regions that were copied within the image.
        """
        images = [
            image[:, :height, :width].float().cpu().numpy()
            for image, (height, width) in zip(batch["image"], batch["extent"], strict=True)
        ]
        network = TorchNetwork(self.network)
        maps, logits = probability_maps(network, images, batch["size"], finite=False)
        scores = self.spec.image_scores(logits)
        self._refuse_diverged(batch["id"], maps, scores)
        return [torch.from_numpy(prob) for prob in maps], torch.from_numpy(scores)

    def _refuse_diverged(
        self, ids: list[str], maps: Sequence[ProbArray], scores: FloatArray
    ) -> None:
        for name, prob, score in zip(ids, maps, scores, strict=True):
            if not (np.isfinite(prob).all() and np.isfinite(score)):
                fitting = self.trainer.state.fn == TrainerFn.FITTING
                raise DivergedError(
                    f"the network's map of image {name!r} is not finite: "
                    + ("the training diverged. " + REMEDY if fitting else "its weights diverged")
                )

    def score(self, batch: Batch, stage: str) -> None:
        """Add the images of a batch to the scores of a stage, `val` or `test`."""
        prob, score = self.localize(batch)
        self.add_scores(self._metrics[stage], batch, prob, score)

    def add_scores(
        self,
        metrics: LocalizationMetrics,
        batch: Batch,
        prob: list[torch.Tensor],
        image_score: torch.Tensor,
    ) -> None:
        """Update metrics with the maps of a batch, on a device that supports float64.

        Args:
            metrics: To update.
            batch: With the ground truth of every image.
            prob: A map (H, W) in [0, 1] of every image, at its stored size.
            image_score: (B,) in [0, 1].
        """
        device = "cpu" if self.device.type == "mps" else self.device
        metrics.to(device).update(prob, batch["truth"], batch["label"], image_score)

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores under `val/`."""
        self.log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the test scores under `test/`."""
        self.log_scores("test")

    def log_scores(self, stage: str) -> None:
        """Log the scores of a stage and reset its metrics."""
        metrics = self._metrics[stage]
        thresholds, curve = metrics.f1_curve()
        self.f1_curves[stage] = list(zip(thresholds.tolist(), curve.tolist(), strict=True))
        scores = all_scores(metrics)
        metrics.reset()
        for name, value in scores.items():
            show = stage == "val" and name in ("pixel_f1", "auc")
            self.log(f"{stage}/{name}", value.float(), prog_bar=show, rank_zero_only=True)
