"""MobileSAM: Segment Anything with a TinyViT of 5 million weights as its image encoder.

Zhang et al., "Faster Segment Anything", arXiv 2306.14289, https://github.com/ChaoningZhang/MobileSAM.
The encoder is timm's TinyViT, whose last stage keeps its resolution here; prompt encoder and mask
decoder are those of Segment Anything.
"""

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import nn

FIRST_WEIGHT = "image_encoder.patch_embed.seq.0.c.weight"  # no other SAM has this name

_SIDE, _GRID, _WIDTH = 1024, 64, 256
# Names in MobileSAM's files, and here. Its stages end with what timm's next stage begins with.
_NAMES = (
    (r"^image_encoder\.patch_embed\.seq\.0\.", "image_encoder.trunk.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.", "image_encoder.trunk.patch_embed.conv2."),
    (r"^image_encoder\.layers\.0\.downsample\.", "image_encoder.trunk.stages.1.downsample."),
    (r"^image_encoder\.layers\.1\.downsample\.", "image_encoder.trunk.stages.2.downsample."),
    (r"^image_encoder\.layers\.2\.downsample\.", "image_encoder.trunk.stages.3.downsample."),
    (r"^image_encoder\.layers\.", "image_encoder.trunk.stages."),
    (r"^(image_encoder\.trunk\..*)\.c\.weight$", r"\1.conv.weight"),
)
_UNUSED = re.compile(r"image_encoder\.(?:norm_head|head)\.|.*\.attention_bias_idxs$")


class TinyVitEncoder(nn.Module):
    """Image embedding (B, 256, 64, 64) of an image (B, 3, 1024, 1024)."""

    img_size = _SIDE  # as `Sam` asks for it

    def __init__(self) -> None:
        super().__init__()
        trunk: Any = timm.create_model("tiny_vit_5m_224", pretrained=False, num_classes=0)
        trunk.head = nn.Identity()
        trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.trunk = trunk
        self.neck = nn.Sequential(
            nn.Conv2d(320, _WIDTH, kernel_size=1, bias=False),
            LayerNorm2d(_WIDTH),
            nn.Conv2d(_WIDTH, _WIDTH, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(_WIDTH),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, 256, 64, 64) of normalised images (B, 3, 1024, 1024)."""
        embedding: torch.Tensor = self.neck(self.trunk.forward_features(x))
        return embedding


def build_mobile_sam() -> Sam:
    """MobileSAM with random weights."""
    return Sam(
        image_encoder=TinyVitEncoder(),
        prompt_encoder=PromptEncoder(_WIDTH, (_GRID, _GRID), (_SIDE, _SIDE), mask_in_chans=16),
        mask_decoder=MaskDecoder(
            transformer_dim=_WIDTH,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, num_heads=8, mlp_dim=2048),
            num_multimask_outputs=3,
        ),
    )


def renamed(state: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of MobileSAM's file under the names of `build_mobile_sam`, without its classifier."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        for pattern, here in _NAMES:
            name = re.sub(pattern, here, name)  # noqa: PLW2901 - one rule after the other
        found[name] = value
    return found
