from copy import deepcopy

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import ImageEncoderViT, Sam
from segment_anything.modeling.image_encoder import Attention

from boxpromptiml.inference.maps import Precision
from boxpromptiml.teachers import sam_encoder
from boxpromptiml.teachers.sam_encoder import FastAttention, encode, speed_up
from tests.helpers.tiny_sam import tiny_sam


def an_encoder(side: int, window: int) -> ImageEncoderViT:
    """Two blocks, one in windows and one global, with positions that matter."""
    torch.manual_seed(side)
    encoder = ImageEncoderViT(
        img_size=side, embed_dim=48, depth=2, num_heads=3, out_chans=16, use_rel_pos=True,
        window_size=window, global_attn_indexes=(1,),
    )  # fmt: skip
    for name, values in encoder.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            torch.nn.init.normal_(values, std=0.5)
    return encoder.eval().requires_grad_(False)


@pytest.mark.parametrize("scores", [1, 3000, 2**21])
@pytest.mark.parametrize(("side", "window"), [(128, 4), (160, 4), (96, 14)])
def test_equals_the_stock_encoder(
    side: int, window: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where windows are padded (10 cells in fours), and in parts of any size."""
    monkeypatch.setattr(sam_encoder, "_CPU_SCORES", scores)
    stock = an_encoder(side, window)
    fast = deepcopy(stock)
    speed_up(fast)
    images = torch.randn(2, 3, side, side)
    expected = stock(images)
    torch.testing.assert_close(fast(images), expected, rtol=0, atol=1e-4)
    assert fast.state_dict().keys() == stock.state_dict().keys()
    for block in fast.blocks:  # the comparison is alive
        block.attn.rel_pos_h = torch.nn.Parameter(block.attn.rel_pos_h.flip(0))
    assert (fast(images) - expected).abs().max() > 1e-2


def test_replaces_once_and_shares_the_weights() -> None:
    encoder = tiny_sam().image_encoder
    weights = [block.attn.qkv.weight for block in encoder.blocks]
    for _ in range(2):
        speed_up(encoder)
    assert all(isinstance(block.attn, FastAttention) for block in encoder.blocks)
    assert not any(isinstance(module, Attention) for module in encoder.modules())
    pairs = zip(encoder.blocks, weights, strict=True)
    assert all(block.attn.qkv.weight is weight for block, weight in pairs)


def test_bf16_computes_in_bfloat16_and_gives_float32() -> None:
    sam, seen = tiny_sam().eval().requires_grad_(False), []
    predictor, image = SamPredictor(sam), np.full((40, 60, 3), 90, np.uint8)
    sam.image_encoder.blocks[0].attn.qkv.register_forward_hook(
        lambda *call: seen.append(call[-1].dtype)
    )
    encode(predictor, image, "fp32")
    exact = predictor.features.clone()
    encode(predictor, image, "bf16")
    assert seen == [torch.float32, torch.bfloat16]
    assert predictor.features.dtype == torch.float32
    off = (predictor.features - exact).norm() / exact.norm()
    assert 1e-4 < off < 0.03


def true_vit_b() -> Sam:
    """Two of twelve blocks, one in windows and one global; random weights, positions included."""
    torch.manual_seed(0)
    sam = _build_sam(768, encoder_depth=2, encoder_num_heads=12, encoder_global_attn_indexes=[1])
    for name, values in sam.image_encoder.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            torch.nn.init.normal_(values, std=0.1)
    return sam.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stock_answers() -> tuple[Sam, np.ndarray, list[np.ndarray]]:
    sam = true_vit_b()
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    return sam, image, answers(predictor)


def answers(predictor: SamPredictor) -> list[np.ndarray]:
    boxes = np.array([[10, 10, 60, 50], [70, 30, 140, 90], [0, 0, 144, 96]])
    return [predictor.predict(box=box, multimask_output=False)[0][0] for box in boxes]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_masks_of_the_true_architecture(
    stock_answers: tuple[Sam, np.ndarray, list[np.ndarray]], precision: Precision
) -> None:
    sam, image, expected = stock_answers
    predictor = SamPredictor(sam)
    speed_up(sam.image_encoder)
    encode(predictor, image, precision)
    for mask, truth in zip(answers(predictor), expected, strict=True):
        assert 0.02 < truth.mean() < 0.98
        iou = (mask & truth).sum() / (mask | truth).sum()
        assert iou >= (0.9999 if precision == "fp32" else 0.99)
