"""Segment Anything as a teacher: every box of an image prompts one mask.

SAM (Kirillov et al., ICCV 2023, https://arxiv.org/abs/2304.02643) runs from its own package; here
are the choice among its answers and their confinement to the box.
"""

import math
from importlib.metadata import version
from pathlib import Path
from typing import Self, get_args

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io.weights import require_device
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
from boxpromptiml.teachers.sam_encoder import Precision, encode, speed_up


class SamTeacher:
    """Answers boxes with Segment Anything.

    An answer is SAM's mask of highest predicted IoU, cut to the box and a margin around it: SAM
    itself confines nothing and may pick the background. The score is that predicted IoU, clipped.

    Args:
        sam: The network; it is frozen, put in evaluation mode and moved to `device`, and its
            encoder's attention is replaced by an equal, faster one.
        model_type: Name of the architecture, for the signature.
        weights_sha256: SHA-256 of the weights file, for the signature.
        device: Where the network runs, such as `cpu` or `cuda:0`.
        multimask: Choose among SAM's three answers; otherwise take its single one.
        margin: Answers may leave the box by this fraction of its width and height on every side.
        box_batch: Boxes decoded together. None: 1 on a CPU, where larger batches are slower
            (measured: 16 boxes take up to twice as long), 64 elsewhere.
        precision: Of the image encoder; the decoder runs in float32. bf16 is about twice as fast
            where the processor knows it, and moves edges of masks.

    Raises:
        UserError: A setting is out of range, or there is no such device.
    """

    def __init__(
        self,
        sam: Sam,
        model_type: str,
        weights_sha256: str,
        device: str = "cpu",
        multimask: bool = True,
        margin: float = 0.1,
        box_batch: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        _check_settings(device, margin, box_batch, precision)
        self._sam = sam.eval().requires_grad_(False).to(device)
        speed_up(self._sam.image_encoder)
        self._predictor = SamPredictor(self._sam)
        self._precision = precision
        self._model_type = model_type
        self._weights_sha256 = weights_sha256
        self._multimask = multimask
        self._margin = margin
        self._box_batch = box_batch or (1 if torch.device(device).type == "cpu" else 64)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Path,
        model_type: ModelType,
        device: str = "cpu",
        multimask: bool = True,
        margin: float = 0.1,
        box_batch: int | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Build SAM and load its weights from a local `.pth` or `.safetensors` file.

        Raises:
            UserError: As the class and `load_sam` do.
        """
        _check_settings(device, margin, box_batch, precision)
        sam, sha256 = load_sam(checkpoint, model_type)
        return cls(sam, model_type, sha256, device, multimask, margin, box_batch, precision)

    @property
    def settings(self) -> Description:
        """Weights, versions and every setting that changes an answer.

        `device` and `box_batch` are left out: they change an answer by rounding only (batches
        moved scores by about 1e-6 on a CPU). fp32 is what is not named, so that pseudo-masks made
        before there was a choice stay valid. `official` tells whether the weights are byte for
        byte one of Meta's three files.
        """
        settings = {"multimask": self._multimask, "margin": self._margin}
        return {
            "name": "sam",
            "model_type": self._model_type,
            "weights_sha256": self._weights_sha256,
            "official": self._weights_sha256 in OFFICIAL_SHA256.values(),
            "settings": settings | ({} if self._precision == "fp32" else {"precision": "bf16"}),
            "versions": {
                "segment-anything": version("segment-anything"),
                "torch": torch.__version__.split("+")[0],  # "+cu132" names the build, not the code
            },
        }

    @torch.inference_mode()
    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        """Encode the image once and decode every box.

        Args:
            image: (H, W, 3) RGB in [0, 255].
            boxes: (N, 4) x0 y0 x1 y1, half-open pixels of the image.

        Returns:
            One proposal a box, in order; none for no box, and then no network runs. The note is
            `degenerate: empty` where nothing of the answer lies in the confined box, and
            `degenerate: image too thin` where SAM's own resizing would leave no pixel.
        """
        if not len(boxes):
            return []
        size = image.shape[:2]
        transform = self._predictor.transform
        if 0 in transform.get_preprocess_shape(*size, transform.target_length):
            note, nothing = "degenerate: image too thin", np.zeros(size, dtype=bool)
            return [Proposal(nothing.copy(), 0.0, _as_box(box), note) for box in boxes]
        encode(self._predictor, image, self._precision)
        limits = geometry.expand(boxes, self._margin, size)
        proposals: list[Proposal] = []
        for start in range(0, len(boxes), self._box_batch):
            chunk = slice(start, start + self._box_batch)
            logits, scores = self._decode(boxes[chunk])
            proposals += [
                self._proposal(*answer)
                for answer in zip(boxes[chunk], limits[chunk], logits, scores, strict=True)
            ]
        return proposals

    def _decode(self, boxes: BoxArray) -> tuple[torch.Tensor, list[float]]:
        """Low-resolution logits (N, 1, h, w) and predicted IoU of the best answer to each box.

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
            multimask_output=self._multimask,
        )
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
        answer: MaskArray = (full[0, 0] > self._sam.mask_threshold).cpu().numpy()
        mask = np.zeros_like(answer)
        inside = geometry.pixel_slices(limit, answer.shape)
        mask[inside] = answer[inside]
        note = "" if mask.any() else "degenerate: empty"
        return Proposal(mask, float(np.clip(score, 0, 1)), _as_box(box), note)


def _as_box(box: BoxArray) -> Box:
    return Box(*map(float, box))


def _check_settings(
    device: str, margin: float, box_batch: int | None, precision: Precision
) -> None:
    if not (math.isfinite(margin) and margin >= 0):
        raise UserError(f"margin must be 0 or more, got {margin}")
    if box_batch is not None and box_batch < 1:
        raise UserError(f"box_batch must be 1 or more, got {box_batch}")
    if precision not in get_args(Precision):
        raise UserError(f"precision must be fp32 or bf16, got {precision!r}")
    require_device(device)
