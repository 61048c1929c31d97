"""Training WCBnet from image labels, and reading maps off it (arXiv 2505.23586)."""

from dataclasses import replace
from pathlib import Path

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.spec import ModelSpec, Refinement
from boxpromptiml.losses import image_label_loss
from boxpromptiml.metrics.pixel import LocalizationMetrics
from boxpromptiml.models.bayes import Prior, region_posterior
from boxpromptiml.models.configs import CamConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch
from boxpromptiml.tasks.base import LocalizerTask


class ImageLabelTask(LocalizerTask):
    """Loss, metrics and optimiser of the image-label branch.

    The loss sees image labels and nothing else. In evaluation the coarse map is refined by the
    regions of `data.segmenter`, if there is one: `val/auc` and its like are of the final map, and
    `val/coarse_auc` and its like of the map before.

    Args:
        wcbnet: The network.
        input: What the network is fed; set by the data module's `data.input`.
        cam: How the coarse map is read off the network.
        prior: Of the refinement by regions: the pixel's own, or the image's mean.
        pretrained: Local weights of the backbone (.safetensors or .pth), from timm.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW; not for biases and normalisation.
        warmup: Share of the steps in which the rate rises linearly; then it falls as a cosine to 0.
        threshold: A pixel is flagged where its probability is strictly above.
    """

    def __init__(
        self,
        wcbnet: WCBConfig = WCBConfig(),  # noqa: B008
        input: NetworkInput = NetworkInput(error_levels=(75,)),  # noqa: A002, B008
        cam: CamConfig = CamConfig(),  # noqa: B008
        prior: Prior = "image",
        pretrained: Path | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.05,
        threshold: float = 0.5,
    ) -> None:
        spec = ModelSpec(wcbnet, input, threshold, cam)
        super().__init__(spec, pretrained, lr, weight_decay, warmup)
        self.prior: Prior = prior
        self._coarse = {s: LocalizationMetrics(threshold) for s in ("val", "test")}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Binary cross-entropy of the image logit with the image label.

        Raises:
            DivergedError: If the loss is not finite.
            UserError: If nothing of many batches could be read.
        """
        label = batch["label"]
        self.require_content(bool((~label.isnan()).any()))
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        image_logit = self.network.classify(image)[0]  # type: ignore[operator]
        return self.finite_loss(image_label_loss(image_logit, label, batch["weight"]), len(image))

    def localize(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The final maps, refined where the batch brings regions."""
        coarse, score = super().localize(batch)
        return self._refined(coarse, batch), score

    def _refined(self, coarse: list[torch.Tensor], batch: Batch) -> list[torch.Tensor]:
        if "regions" not in batch:
            return coarse
        pairs = zip(coarse, batch["regions"], strict=True)
        return [
            torch.from_numpy(region_posterior(prob.numpy(), regions.cpu().numpy(), self.prior))
            for prob, regions in pairs
        ]

    def score(self, batch: Batch, stage: str) -> None:
        """Score the final map, and beside it the coarse one if they differ."""
        coarse, score = super().localize(batch)
        if "regions" in batch:
            self.add_scores(self._coarse[stage], batch, coarse, score)
        self.add_scores(self._metrics[stage], batch, self._refined(coarse, batch), score)

    def log_scores(self, stage: str) -> None:
        """Log the scores of the final map, and those of the coarse one as `coarse_*`."""
        super().log_scores(stage)
        metrics = self._coarse[stage]
        if self._refines():  # the same on every process, also on one without images
            scores = metrics.compute()
            for name in ("pixel_f1", "iou", "auc", "false_alarm_pixels"):
                self.log(f"{stage}/coarse_{name}", scores[name].float(), rank_zero_only=True)
            metrics.reset()

    def _refines(self) -> bool:
        return bool(self.trainer.datamodule.segmenter.name != "none")  # type: ignore[attr-defined]

    def on_fit_start(self) -> None:
        """Refuse to open anything but labels; note in the checkpoints what refines the map."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        supervision = data.selection.supervision
        if supervision != "label":
            raise UserError(
                "this task learns from image labels alone: set --data.supervision=label, not "
                f"{supervision}"
            )
        if self._refines():
            refinement = Refinement(data.segmenter.to_dict(), self.prior)
            self.spec = replace(self.spec, refinement=refinement)
