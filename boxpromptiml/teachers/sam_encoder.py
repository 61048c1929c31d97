"""Segment Anything's image encoder, made faster: attention in parts, and bfloat16 on request.

The encoder takes 270 times as many operations as decoding one box. Figures:
benchmarks/sam_speed.py.
"""

import torch
import torch.nn.functional as F
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import nn

from boxpromptiml.records import ImageArray
from boxpromptiml.teachers.config import EncoderPrecision

# Scores (heads x queries x keys) at a time on a CPU: 8 MB, which the allocator keeps. The stock
# module's 805 MB a global block go back to the kernel and are page-faulted in again every time.
_CPU_SCORES = 2**21


class FastAttention(nn.Module):
    """The attention of SAM's encoder, some rows of queries at a time; shares the stock's weights.

    softmax(q k^T / sqrt(d) + R) v, where R, of decomposed relative positions, is
    q_i . (R^h_{h_i - h_j} + R^w_{w_i - w_j}) (MViTv2, Li et al., arXiv 2112.01526, equation 4).

    Args:
        stock: With relative positions. Names in the state dict stay the same.
    """

    def __init__(self, stock: Attention) -> None:
        super().__init__()
        self.num_heads: int = stock.num_heads
        self.qkv: nn.Module = stock.qkv
        self.proj: nn.Module = stock.proj
        self.rel_pos_h: nn.Parameter = stock.rel_pos_h
        self.rel_pos_w: nn.Parameter = stock.rel_pos_w

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attended features (B, h, w, C) of features (B, h, w, C)."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        # One copy here: strided, the products below take half as long again.
        query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous()  # each (B, heads, h w, d)
        grid = query.unflatten(2, (height, width))
        vertical = get_rel_pos(height, height, self.rel_pos_h)  # (h, h, d)
        horizontal = get_rel_pos(width, width, self.rel_pos_w)
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, vertical)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, horizontal)
        parts = []
        for rows in _parts(height, batch * self.num_heads * width * height * width, x.device):
            bias = by_row[:, :, rows, :, :, None] + by_column[:, :, rows, :, None, :]
            bias = bias.flatten(4).flatten(2, 3)  # (B, heads, queries, h w)
            parts.append(_attend(grid[:, :, rows].flatten(2, 3), key, value, bias))
        attended = torch.cat(parts, dim=2).transpose(1, 2)
        merged: torch.Tensor = self.proj(attended.reshape(batch, height, width, -1))
        return merged


def _parts(height: int, scores_a_row: int, device: torch.device) -> list[slice]:
    """Rows of queries that are attended together: all of them, except on a CPU."""
    step = max(1, _CPU_SCORES // scores_a_row) if device.type == "cpu" else height
    return [slice(start, start + step) for start in range(0, height, step)]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for heads of (B, heads, N, d)."""
    if query.dtype == torch.bfloat16 and query.device.type == "cpu":
        # Two products take two thirds of the time of the fused kernel with a mask, measured.
        scores: torch.Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias
        attended: torch.Tensor = scores.softmax(dim=-1) @ value
        return attended
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def speed_up(encoder: nn.Module) -> None:
    """Give every block of an encoder a `FastAttention`, in place; nothing else changes."""
    for block in encoder.blocks if isinstance(encoder, ImageEncoderViT) else ():
        if isinstance(block.attn, Attention) and block.attn.use_rel_pos:
            block.attn = FastAttention(block.attn)


def encode(predictor: SamPredictor, image: ImageArray, precision: EncoderPrecision) -> None:
    """Set the predictor's image (H, W, 3); its features are float32 in any precision.

    In `bf16` matrix products run in bfloat16, sums of blocks and normalisation in float32
    (autocast): the features are off by about 1 %.
    """
    kind = torch.device(predictor.device).type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
        predictor.set_image(image)
    predictor.features = predictor.features.float()
