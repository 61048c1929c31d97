"""Trains the student from masks, pseudo-masks, boxes and labels (arXiv 2511.20359)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.options import Amount
from boxpromptiml.losses import distillation_loss, image_label_loss, masked_bce
from boxpromptiml.models.configs import OwnConfig, StudentConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import Student
from boxpromptiml.records import Batch
from boxpromptiml.tasks.base import LocalizerTask

_MEMORY = ("memory.prototypes", "alpha_logit")  # endings of the names of its parameters
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class DistillTask(LocalizerTask):
    """Trains and evaluates the student network of BoxPromptIML (arXiv 2511.20359).

    Args:
        student: Configuration of the network.
        input: How an image becomes the network's input; linked to `data.input`.
        pretrained: Weights of the backbone: `imagenet` (for tf_efficientnet_lite0, from a package),
            or a local file of timm's (.safetensors or .pth); random by default.
        init_from: A localizer (.ckpt or .safetensors) of the same architecture; training starts
            from all of its weights, with a new optimiser. Not together with `pretrained`.
        dice_weight: Weight of the Dice loss, added to binary cross-entropy; 0 in the paper.
        image_weight: Weight of the binary cross-entropy between image score and image label; 0 in
            the paper.
        attention_weight: Weight of the binary cross-entropy between the training target and A_base
            and A_mem each, beside that of the map; ours, 0 in the paper.
        lr: Peak learning rate of AdamW.
        memory_lr: Peak learning rate of the memory's prototypes and of alpha, which then have no
            weight decay; ours. None: as of all other weights.
        weight_decay: Weight decay of AdamW; not applied to biases and normalisation.
        warmup: Fraction of the steps over which the learning rate rises linearly; afterwards it
            falls to 0 as a cosine.
        threshold: A pixel is flagged where its probability is strictly above.
        network: Another network instead of the student.
        loss: Instead of the paper's cross-entropy: a function of `logits`, `target`, `valid` and
            `weight` as those in `boxpromptiml.losses`.

    Raises:
        UserError: If `dice_weight` is given beside `loss` or `attention_weight` beside `network`,
            and as `LocalizerTask`.
    """

    def __init__(
        self,
        student: StudentConfig = StudentConfig(),
        input: NetworkInput = NetworkInput(),  # noqa: A002
        pretrained: Pretrained | None = None,
        init_from: Path | None = None,
        dice_weight: Amount = 0.0,
        image_weight: Amount = 0.0,
        attention_weight: Amount = 0.0,
        lr: Amount = 1e-4,
        memory_lr: Amount | None = None,
        weight_decay: Amount = 1e-4,
        warmup: Amount = 0.05,
        threshold: float = 0.5,
        network: OwnConfig | None = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__(
            ModelSpec(network or student, input, threshold),
            pretrained,
            init_from,
            lr,
            weight_decay,
            warmup,
        )
        if loss is not None and dice_weight:
            raise UserError("--model.dice_weight is part of the default loss: set it to 0")
        if network is not None and attention_weight:
            raise UserError("--model.attention_weight needs the student's attention: set it to 0")
        self.loss = loss
        self.dice_weight = dice_weight
        self.image_weight = image_weight
        self.attention_weight = attention_weight
        self.memory_lr = memory_lr

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Loss of a batch over its valid pixels and, if `image_weight` is set, its labels.

        Raises:
            DivergedError: If the loss is not finite.
            UserError: If no image of ten batches in a row could be read.
        """
        label, weight = batch["label"], batch["weight"]
        self.require_content(bool(batch["valid"].any() or (~label.isnan()).any()))
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        target, valid = batch["target"], batch["valid"]
        of_map = self.loss or partial(distillation_loss, dice_weight=self.dice_weight)
        if isinstance(self.network, Student):
            (logits, image_logit), fused = self.network.attend(image)
            loss = of_map(logits, target, valid, weight)
            if self.attention_weight:
                for attention in (a for a in (fused.base, fused.memory) if a is not None):
                    enlarged = self.network.enlarged(attention, *logits.shape[-2:])
                    side = masked_bce(enlarged, target, valid, weight)
                    loss = loss + self.attention_weight * side
        else:
            logits, image_logit = self.network(image)
            loss = of_map(logits, target, valid, weight)
        if self.image_weight:
            loss = loss + self.image_weight * image_label_loss(image_logit, label, weight)
        return self.finite_loss(loss, len(image))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser: `params`, `weight_decay` and, for the memory, its own `lr`."""
        groups = super().parameter_groups()
        if self.memory_lr is None:
            return groups
        named = self.network.named_parameters()
        own = [p for name, p in named if name.endswith(_MEMORY) and p.requires_grad]
        ids = {id(p) for p in own}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in ids]
        return [*groups, {"params": own, "lr": self.memory_lr, "weight_decay": 0.0}]

    def on_fit_start(self) -> None:
        """Check that the settings of task and data fit together.

        Raises:
            UserError: If images are supervised by their label, or the network has an image head,
                but `image_weight` is 0; or if `data.segmenter` is set.
        """
        if (data := self.data) is None:
            return
        by_label = data.selection.supervision == "label" or (
            data.selection.supervision == "mixed" and data.selection.weights.label > 0
        )
        if by_label and not self.image_weight:
            raise UserError(
                "an image label alone supervises only the image score: set "
                "--model.image_weight=1 (or --data.weights.label=0)"
            )
        if getattr(self.spec.network, "image_head", False) and not self.image_weight:
            raise UserError(
                "only the image label trains the image head: set --model.image_weight=0.2 "
                "(or --model.student.image_head=false)"
            )
        if data.segmenter.name != "none":
            raise UserError(
                "data.segmenter refines the maps of the image-label branch; for a student's use "
                "`localize --segmenter.name`"
            )
