"""Training losses over valid pixels and known labels, as pure functions of tensors.

In all of them `logits`, `target` and `valid` have the shape (B, 1, h, w); `target` is in [0, 1],
hard or soft; `valid` is bool, False where the supervision is unsure and in the padding. Values in
invalid pixels, NaN included, change neither the loss nor its gradient. `weight` (B,), 0 or more, is
the weight of each image.
"""

import torch
import torch.nn.functional as F


def masked_bce(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy, weighted mean over the valid pixels of the batch; 0 if there are none.

    The loss of BoxPromptIML (arXiv 2511.20359), BCE(A_refined, M_teacher).

    Args:
        logits: (B, 1, h, w), before the sigmoid.
        target: (B, 1, h, w) in [0, 1], hard or soft.
        valid: (B, 1, h, w) bool; where False, values may be NaN.
        weight: (B,) weight of each image, 0 or more.

    Raises:
        ValueError: If the shapes of logits, target and valid differ.
    """
    logits, target = _valid_only(logits, target, valid)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _weighted_mean(each, valid * weight[:, None, None, None])


def masked_dice(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Soft Dice loss in [0, 1], weighted mean over images of 1 - 2 sum(pt) / (sum(p^2) + sum(t^2)).

    The squares (V-Net, Milletari et al., arXiv 1606.04797, section 3) make p = t the optimum for
    soft targets too. Images without a manipulated valid pixel are left out, since their Dice loss
    would be 1 for every map; cross-entropy covers them. If no image is left, the loss is 0. The
    arguments are those of `masked_bce`.

    Raises:
        ValueError: If the shapes of logits, target and valid differ.
    """
    logits, target = _valid_only(logits, target, valid)
    prob = torch.sigmoid(logits) * valid
    both, energy, mass = (
        x.flatten(1).sum(dim=1) for x in (prob * target, prob.square() + target.square(), target)
    )
    counts = mass > 0
    dice = 1 - 2 * both / torch.where(counts, energy, 1)
    return _weighted_mean(dice, counts * weight)


def distillation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    valid: torch.Tensor,
    weight: torch.Tensor,
    dice_weight: float,
) -> torch.Tensor:
    """`masked_bce` + `dice_weight` * `masked_dice`; with weight 0 the loss of the paper.

    Args:
        logits: As in `masked_bce`.
        target: As in `masked_bce`.
        valid: As in `masked_bce`.
        weight: As in `masked_bce`.
        dice_weight: 0 or more.

    Raises:
        ValueError: If the shapes of logits, target and valid differ.
    """
    bce = masked_bce(logits, target, valid, weight)
    return bce + dice_weight * masked_dice(logits, target, valid, weight) if dice_weight else bce


def image_label_loss(
    image_logit: torch.Tensor, label: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy between image logits (B,) and labels (B,), weighted mean.

    Args:
        image_logit: (B,).
        label: (B,) 0, 1 or nan for unknown; unknown labels are left out.
        weight: (B,) weight of each image, 0 or more.

    Returns:
        The loss; 0 if no label is known.
    """
    known = ~label.isnan()
    target = torch.where(known, label, 0.0)
    logits = torch.where(known, image_logit.float(), 0.0)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _weighted_mean(each, known * weight)


def _weighted_mean(each: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """sum(w x) / sum(w); 0 where all weights are 0."""
    total = weight.sum()
    return (each * weight).sum() / torch.where(total > 0, total, 1)


def _valid_only(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and target with 0 in the invalid pixels, in at least single precision."""
    if not logits.shape == target.shape == valid.shape:
        shapes = (tuple(logits.shape), tuple(target.shape), tuple(valid.shape))
        raise ValueError(f"logits, target and valid differ in shape: {shapes}")
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    target = target.to(logits.dtype)
    return torch.where(valid, logits, 0), torch.where(valid, target, 0)
