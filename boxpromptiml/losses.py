"""Losses of the distillation, over valid pixels only. Pure functions of tensors.

In all of them `logits`, `target` and `valid` have one shape (B, 1, h, w); `target` is in [0, 1],
hard or soft; `valid` is bool, False where the teacher is unsure or the canvas has no image. What
stands in invalid pixels, NaN included, changes neither the value nor the gradient.
"""

import torch
import torch.nn.functional as F


def masked_bce(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy, mean over the valid pixels of the batch; 0 if there are none.

    The loss of BoxPromptIML (arXiv 2511.20359), BCE(A_refined, M_teacher).
    """
    logits, target = _valid_only(logits, target, valid)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * valid).sum() / valid.sum().clamp(min=1)


def masked_dice(logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss in [0, 1]: 1 - 2 sum(pt) / (sum(p^2) + sum(t^2)) an image, mean over images.

    The squares (V-Net, Milletari et al., arXiv 1606.04797, section 3) make p = t the optimum for
    soft targets too. Images without a manipulated valid pixel are left out: Dice would be 1
    whatever the map says; the cross-entropy teaches them. If none is left, the loss is 0.
    """
    logits, target = _valid_only(logits, target, valid)
    prob = torch.sigmoid(logits) * valid
    both, energy, mass = (
        x.flatten(1).sum(dim=1) for x in (prob * target, prob.square() + target.square(), target)
    )
    counts = mass > 0
    dice = 1 - 2 * both / torch.where(counts, energy, 1)
    return (dice * counts).sum() / counts.sum().clamp(min=1)


def distillation_loss(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, dice_weight: float
) -> torch.Tensor:
    """`masked_bce` + `dice_weight` * `masked_dice`; the paper's loss at weight 0."""
    bce = masked_bce(logits, target, valid)
    return bce + dice_weight * masked_dice(logits, target, valid) if dice_weight else bce


def _valid_only(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with 0 in the invalid pixels, in at least single precision."""
    if not logits.shape == target.shape == valid.shape:
        shapes = (tuple(logits.shape), tuple(target.shape), tuple(valid.shape))
        raise ValueError(f"logits, target and valid differ in shape: {shapes}")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    target = target.to(logits.dtype)
    return torch.where(valid, logits, 0), torch.where(valid, target, 0)
