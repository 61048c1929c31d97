"""Trains WCBnet from image labels and computes its activation maps (arXiv 2505.23586)."""

from dataclasses import replace
from pathlib import Path

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.spec import ModelSpec, Refinement
from boxpromptiml.io.options import Amount
from boxpromptiml.losses import image_label_loss
from boxpromptiml.metrics.pixel import LocalizationMetrics
from boxpromptiml.models.bayes import Prior, region_posterior
from boxpromptiml.models.configs import CamConfig, WCBConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch
from boxpromptiml.tasks.base import LocalizerTask


class ImageLabelTask(LocalizerTask):
    """Trains and evaluates WCBnet, the network of the image-label branch.

    The loss uses image labels only. In evaluation the coarse map is refined with the regions of
    `data.segmenter`, if one is set: `val/auc` etc. score the final map, `val/coarse_auc` etc. the
    map before the refinement.

    Args:
        wcbnet: Configuration of the network.
        input: How an image becomes the network's input; linked to `data.input`.
        cam: How the coarse map is computed from the network's activations.
        prior: Prior of the refinement with regions: each pixel's own, or the image's mean.
        pretrained: Weights of the backbone: `imagenet` (for tf_efficientnet_lite0, from a package),
            or a local file of timm's (.safetensors or .pth); random by default.
        init_from: A localizer (.ckpt or .safetensors) of the same architecture; training starts
            from all of its weights, with a new optimiser. Not together with `pretrained`.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW; not applied to biases and normalisation.
        warmup: Fraction of the steps over which the learning rate rises linearly; afterwards it
            falls to 0 as a cosine.
        threshold: A pixel is flagged where its probability is strictly above.
    """

    def __init__(
        self,
        wcbnet: WCBConfig = WCBConfig(),
        input: NetworkInput = NetworkInput(error_levels=(75,)),  # noqa: A002
        cam: CamConfig = CamConfig(),
        prior: Prior = "image",
        pretrained: Pretrained | None = None,
        init_from: Path | None = None,
        lr: Amount = 1e-3,
        weight_decay: Amount = 1e-2,
        warmup: Amount = 0.05,
        threshold: float = 0.5,
    ) -> None:
        spec = ModelSpec(wcbnet, input, threshold, cam)
        super().__init__(spec, pretrained, init_from, lr, weight_decay, warmup)
        self.prior: Prior = prior
        self._coarse = {s: LocalizationMetrics(threshold) for s in ("val", "test")}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Binary cross-entropy between image logit and image label.

        Raises:
            DivergedError: If the loss is not finite.
            UserError: If no image of ten batches in a row could be read.
        """
        label = batch["label"]
        self.require_content(bool((~label.isnan()).any()))
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        image_logit = self.network.classify(image)[0]  # type: ignore[operator]
        return self.finite_loss(image_label_loss(image_logit, label, batch["weight"]), len(image))

    def localize(self, batch: Batch) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Predict the final maps, refined where the batch has regions, and the image scores.

        Shapes and ranges: `ScoredModule.localize`.
        """
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
        """Add the final maps to the scores and, where they were refined, the coarse maps."""
        coarse, score = super().localize(batch)
        if "regions" in batch:
            self.add_scores(self._coarse[stage], batch, coarse, score)
        self.add_scores(self._metrics[stage], batch, self._refined(coarse, batch), score)

    def log_scores(self, stage: str) -> None:
        """Log the scores of the final maps and, as `coarse_*`, those of the coarse maps."""
        super().log_scores(stage)
        metrics = self._coarse[stage]
        if self._refines():  # the same on every process, also on one without images
            scores = metrics.compute()
            for name in ("pixel_f1", "iou", "auc", "false_alarm_pixels"):
                self.log(f"{stage}/coarse_{name}", scores[name].float(), rank_zero_only=True)
            metrics.reset()

    def _refines(self) -> bool:
        return self.data is not None and self.data.segmenter.name != "none"

    def on_fit_start(self) -> None:
        """Check that labels are the only supervision; record the refinement in the spec.

        Raises:
            UserError: If `data.supervision` is not `label`.
        """
        if (data := self.data) is None:
            return
        supervision = data.selection.supervision
        if supervision != "label":
            raise UserError(
                "this task learns from image labels alone: set --data.supervision=label, not "
                f"{supervision}"
            )
        if self._refines():
            refinement = Refinement(data.segmenter, self.prior)
            self.spec = replace(self.spec, refinement=refinement)
