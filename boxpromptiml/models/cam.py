"""Class activation maps: one view per block, fused by the block weights into a coarse map.

`classifier` computes the maps from the classifier's own weights (Zhou et al., "Learning Deep
Features for Discriminative Localization", CVPR 2016, equation 2). `gradcam` (Selvaraju et al., ICCV
2017) and `layercam` (Jiang et al., TIP 2021) weight the features by gradients; they use the
grad-cam library (`pip install "boxpromptiml[cam]"`).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.models.configs import Method

_MIN = 1e-4  # probability; keeps the logit of a map that is 0 somewhere finite


def views_from_classifier(
    maps: Sequence[torch.Tensor], vectors: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The classifier's evidence at each position of each block, (B, h_b, w_b).

    With mean pooling its mean is the block's part of the image logit.

    Args:
        maps: Feature maps (B, C_b, h_b, w_b).
        vectors: The linear classifier's weights (C_b,) for each block.
    """
    return [torch.einsum("bchw,c->bhw", m, v) for m, v in zip(maps, vectors, strict=True)]


def views_from_gradients(
    classifier: nn.Module, blocks: Sequence[nn.Module], image: torch.Tensor, method: Method
) -> list[torch.Tensor]:
    """Views (B, h, w) in [0, 1] at the input's size, by Grad-CAM or Layer-CAM.

    The library keeps only positive evidence and stretches every map to [0, 1]: its maps show where,
    not whether.

    Args:
        classifier: From images to logits (B, 1) of the manipulated class, in evaluation mode.
        blocks: The modules whose outputs are visualised.
        image: (B, C, h, w).
        method: `gradcam` or `layercam`.

    Raises:
        RuntimeError: If the library returns no map for a block.
        UserError: If the grad-cam library is not installed.
    """
    try:
        from pytorch_grad_cam import GradCAM, LayerCAM  # noqa: PLC0415
        from pytorch_grad_cam.utils.model_targets import RawScoresOutputTarget  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            f'cam.method={method} needs the grad-cam library: pip install "boxpromptiml[cam]"'
        ) from error
    library = GradCAM if method == "gradcam" else LayerCAM
    targets = [RawScoresOutputTarget()] * len(image)
    views: list[torch.Tensor] = []
    # Lightning and Localizer run under inference_mode, in which nothing keeps a gradient.
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        torch.autocast(image.device.type, enabled=False),  # the library knows no bfloat16
    ):
        own = image.float().clone()
        for block in blocks:
            found: npt.NDArray[np.float32] | None = None
            with library(model=classifier, target_layers=[block]) as cam:
                found = cam(own, targets)
            if found is None:  # leaving the library's context swallows an IndexError
                raise RuntimeError(f"grad-cam gave no map of {type(block).__name__}")
            views.append(torch.from_numpy(found).to(image.device))
    classifier.zero_grad(set_to_none=True)
    return views


def fuse_views(
    views: Sequence[torch.Tensor], weights: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """The weighted mean (B, 1, h, w) in [0, 1] of views that are each stretched to [0, 1].

    An activation map has no scale of its own, so the weights decide, not the blocks' magnitudes.

    Args:
        views: L maps (B, h_b, w_b), resized bilinearly to `size`.
        weights: (B, L), rows summing to L.
        size: (h, w) of the network's input.
    """
    resized = [
        F.interpolate(stretched(view)[:, None], size=size, mode="bilinear", align_corners=False)
        for view in views
    ]
    return (torch.cat(resized, dim=1) * weights[:, :, None, None]).mean(dim=1, keepdim=True)


def stretched(maps: torch.Tensor) -> torch.Tensor:
    """Each map of (B, h, w) scaled linearly from its own minimum and maximum to [0, 1], float32."""
    low, high = (f(maps.float(), dim=(1, 2), keepdim=True) for f in (torch.amin, torch.amax))
    return (maps.float() - low) / (high - low).clamp(min=1e-7)


def evidence_logits(fused: torch.Tensor, image_logit: torch.Tensor) -> torch.Tensor:
    """Logits (B, 1, h, w) of P(x) = stretched(fused)(x) * P(image is manipulated).

    A stretched map flags something in every image; multiplied by the classifier's probability, an
    authentic image stays authentic (docs/decisions/010-activation-maps.md).

    Args:
        fused: (B, 1, h, w).
        image_logit: (B,).
    """
    doubt = image_logit.float().sigmoid()[:, None, None, None]
    return (stretched(fused[:, 0])[:, None] * doubt).clamp(_MIN, 1 - _MIN).logit()
