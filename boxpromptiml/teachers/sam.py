"""Segment Anything as a teacher: every box of an image prompts one mask.

SAM (Kirillov et al., ICCV 2023, https://arxiv.org/abs/2304.02643) runs from its own package; here
are the choice among its masks and their confinement to the box.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io.weights import found_device, require_device
from boxpromptiml.models.sam import OFFICIAL_SHA256, load_sam
from boxpromptiml.records import (
    Box,
    BoxArray,
    Description,
    ImageArray,
    MaskArray,
    ModelType,
    Proposal,
)
from boxpromptiml.teachers.config import DEFAULT_OPTIONS, SamOptions
from boxpromptiml.teachers.sam_encoder import encode, speed_up


class SamTeacher:
    """Proposes masks for boxes with Segment Anything.

    A proposal is SAM's mask of highest predicted IoU, cut to the box and a margin around it: SAM
    itself confines nothing and may pick the background. The score is that predicted IoU, clipped
    to [0, 1].

    Args:
        sam: The network; it is frozen, put in evaluation mode and moved to the device, and its
            encoder's attention is replaced by an equal, faster one.
        model_type: Name of the architecture, for `settings`.
        weights_sha256: SHA-256 of the weights file, for `settings`.
        options: How it is run.

    Raises:
        UserError: If there is no such device.
    """

    def __init__(
        self, sam: Sam, model_type: str, weights_sha256: str, options: SamOptions = DEFAULT_OPTIONS
    ) -> None:
        require_device(options.device)
        self._sam = sam.eval().requires_grad_(False).to(options.device)
        speed_up(self._sam.image_encoder)
        self._predictor = SamPredictor(self._sam)
        self._encoded: ImageArray | None = None  # what the predictor holds, if it cannot change
        self._model_type = model_type
        self._weights_sha256 = weights_sha256
        self._options = options
        on_cpu = torch.device(options.device).type == "cpu"
        self._box_batch = options.box_batch or (1 if on_cpu else 64)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Path,
        model_type: ModelType = "vit_h",
        options: SamOptions = DEFAULT_OPTIONS,
    ) -> Self:
        """Build SAM and load its weights from a local `.pth` or `.safetensors` file.

        Raises:
            UserError: As the class and `load_sam` do.
        """
        options = replace(options, device=found_device(options.device))
        require_device(options.device)  # before gigabytes are read
        sam, sha256 = load_sam(checkpoint, model_type)
        return cls(sam, model_type, sha256, options)

    @property
    def settings(self) -> Description:
        """Weights, versions and every setting that changes a proposal.

        `device` and `box_batch` are left out: they change a proposal by rounding only (batches
        moved scores by about 1e-6 on a CPU). The precision is named unless it is fp32, so that
        pseudo-masks made before there was a choice stay valid. `official` tells whether the weights
        are byte for byte one of Meta's three files.
        """
        options = self._options
        packages = ["segment-anything"] + (["timm"] if self._model_type == "vit_t" else [])
        settings = {"multimask": options.multimask, "margin": options.margin}
        return {
            "name": "sam",
            "model_type": self._model_type,
            "weights_sha256": self._weights_sha256,
            "official": self._weights_sha256 in OFFICIAL_SHA256.values(),
            "settings": settings | ({} if options.precision == "fp32" else {"precision": "bf16"}),
            "versions": {
                **{name: version(name) for name in packages},
                "torch": torch.__version__.split("+")[0],  # "+cu132" names the build, not the code
            },
        }

    @torch.inference_mode()
    def propose(self, image: ImageArray, boxes: BoxArray) -> Iterator[Proposal]:
        """Encode the image once, then decode the boxes one batch after the other.

        Take all proposals of one image before asking for the next: the encoding is kept between,
        and also for the next call with the same array if that is read-only.

        Args:
            image: (H, W, 3) RGB in [0, 255].
            boxes: (N, 4) x0 y0 x1 y1, half-open pixels of the image.

        Yields:
            One proposal a box, in order; none for no box, and then no network runs. The note is
            `degenerate: empty` where nothing of the mask lies in the confined box, and
            `degenerate: image too thin` where SAM's own resizing would leave no pixel.

        Raises:
            UserError: If the weights are such that scores are not finite.
        """
        if not len(boxes):
            return
        size = image.shape[:2]
        transform = self._predictor.transform
        if 0 in transform.get_preprocess_shape(*size, transform.target_length):
            for box in boxes:
                nothing = np.zeros(size, dtype=bool)
                yield Proposal(nothing, 0.0, _as_box(box), "degenerate: image too thin")
            return
        if image is not self._encoded:
            self._encoded = None
            encode(self._predictor, image, self._options.precision)
            self._encoded = None if image.flags.writeable else image
        limits = geometry.expand(boxes, self._options.margin, size)
        for start in range(0, len(boxes), self._box_batch):
            chunk = slice(start, start + self._box_batch)
            logits, scores = self._decode(boxes[chunk])
            for decoded in zip(boxes[chunk], limits[chunk], logits, scores, strict=True):
                yield self._proposal(*decoded)

    def _decode(self, boxes: BoxArray) -> tuple[torch.Tensor, list[float]]:
        """Low-resolution logits (N, 1, h, w) and predicted IoU of the best mask for each box.

        Same steps as `SamPredictor.predict_torch`, but the choice comes before the costly
        upscaling: one mask a box is brought to the stored size instead of three.
        """
        prompts = self._predictor.transform.apply_boxes(boxes, self._predictor.original_size)
        sparse, dense = self._sam.prompt_encoder(
            points=None,
            boxes=torch.as_tensor(prompts, dtype=torch.float32, device=self._sam.device),
            masks=None,
        )
        logits, quality = self._sam.mask_decoder(
            image_embeddings=self._predictor.features,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self._options.multimask,
        )
        if not bool(torch.isfinite(quality).all()):
            raise UserError("SAM gives scores that are not finite: its weights are damaged")
        scores, best = quality.max(dim=1)
        each = torch.arange(len(best), device=best.device)
        return logits[each, best].unsqueeze(1), scores.tolist()

    def _proposal(
        self, box: BoxArray, limit: BoxArray, logits: torch.Tensor, score: float
    ) -> Proposal:
        predictor = self._predictor
        full = self._sam.postprocess_masks(
            logits[None], predictor.input_size, predictor.original_size
        )
        whole: MaskArray = (full[0, 0] > self._sam.mask_threshold).cpu().numpy()
        mask = np.zeros_like(whole)
        inside = geometry.pixel_slices(limit, whole.shape)
        mask[inside] = whole[inside]
        note = "" if mask.any() else "degenerate: empty"
        return Proposal(mask, float(np.clip(score, 0, 1)), _as_box(box), note)


def _as_box(box: BoxArray) -> Box:
    return Box(*map(float, box))
