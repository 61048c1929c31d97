"""Training the student from masks of any origin (BoxPromptIML, arXiv 2511.20359)."""

from pathlib import Path

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.losses import distillation_loss, image_label_loss
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch
from boxpromptiml.tasks.base import LocalizerTask


class DistillTask(LocalizerTask):
    """Loss, metrics and optimiser of the student.

    Args:
        student: The network.
        input: What the network is fed; set by the data module's `data.input`.
        pretrained: Local weights of the backbone (.safetensors or .pth), from timm.
        dice_weight: Weight of the Dice term beside binary cross-entropy; 0 is the paper.
        image_weight: Weight of binary cross-entropy of the image score with the image label.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW; not for biases and normalisation.
        warmup: Share of the steps in which the rate rises linearly; then it falls as a cosine to 0.
        threshold: A pixel is flagged where its probability is strictly above.
    """

    def __init__(
        self,
        student: StudentConfig = StudentConfig(),  # noqa: B008
        input: NetworkInput = NetworkInput(),  # noqa: A002, B008
        pretrained: Path | None = None,
        dice_weight: float = 0.0,
        image_weight: float = 0.0,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(ModelSpec(student, input, threshold), pretrained, lr, weight_decay, warmup)
        self.dice_weight = dice_weight
        self.image_weight = image_weight

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Loss of one batch: its valid pixels, and its labels if `image_weight` is set.

        Raises:
            DivergedError: If the loss is not finite.
            UserError: If nothing of many batches could be read.
        """
        label, weight = batch["label"], batch["weight"]
        self.require_content(bool(batch["valid"].any() or (~label.isnan()).any()))
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        logits, image_logit = self.network(image)
        loss = distillation_loss(logits, batch["target"], batch["valid"], weight, self.dice_weight)
        if self.image_weight:
            loss = loss + self.image_weight * image_label_loss(image_logit, label, weight)
        return self.finite_loss(loss, len(image))

    def on_fit_start(self) -> None:
        """Refuse a combination that would learn nothing from manipulated images."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        by_label = data.selection.supervision == "label" or (
            data.selection.supervision == "mixed" and data.selection.weights.label > 0
        )
        if by_label and not self.image_weight:
            raise UserError(
                "an image with a label alone teaches only the image score: set "
                "--model.image_weight=1 (or --data.weights.label=0)"
            )
        if data.segmenter.name != "none":
            raise UserError(
                "data.segmenter refines the maps of the image-label branch; for a student's use "
                "`localize --segmenter.name`"
            )
