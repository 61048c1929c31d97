from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from boxpromptiml.models.mobile_sam import build_mobile_sam, renamed
from boxpromptiml.models.sam import load_sam
from boxpromptiml.teachers.sam import SamTeacher

WIDTHS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
Shapes = Iterator[tuple[str, tuple[int, ...]]]


def conv(name: str, out: int, into: int, side: int) -> Shapes:
    """A convolution and its batch normalisation, as MobileSAM names them."""
    yield f"{name}.c.weight", (out, into, side, side)
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.bn.{part}", (out,)
    yield f"{name}.bn.num_batches_tracked", ()


def linear(name: str, out: int, into: int) -> Shapes:
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def mobile_sam_encoder() -> Shapes:
    """Names and shapes of the encoder in MobileSAM's file, from its own source."""
    yield from conv("patch_embed.seq.0", 32, 3, 3)
    yield from conv("patch_embed.seq.2", 64, 32, 3)
    for stage, (width, depth, heads, window) in enumerate(
        zip(WIDTHS, DEPTHS, HEADS, WINDOWS, strict=True)
    ):
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            if stage == 0:
                yield from conv(f"{name}.conv1", 4 * width, width, 1)
                yield from conv(f"{name}.conv2", 4 * width, 1, 3)
                yield from conv(f"{name}.conv3", width, 4 * width, 1)
                continue
            yield f"{name}.attn.attention_biases", (heads, window**2)
            yield from norm(f"{name}.attn.norm", width)
            yield from linear(f"{name}.attn.qkv", 3 * width, width)
            yield from linear(f"{name}.attn.proj", width, width)
            yield from norm(f"{name}.mlp.norm", width)
            yield from linear(f"{name}.mlp.fc1", 4 * width, width)
            yield from linear(f"{name}.mlp.fc2", width, 4 * width)
            yield from conv(f"{name}.local_conv", width, 1, 3)
        if stage < 3:
            wider = WIDTHS[stage + 1]
            yield from conv(f"layers.{stage}.downsample.conv1", wider, width, 1)
            yield from conv(f"layers.{stage}.downsample.conv2", wider, 1, 3)
            yield from conv(f"layers.{stage}.downsample.conv3", wider, wider, 1)
    yield from norm("norm_head", 320)
    yield from linear("head", 1000, 320)
    yield "neck.0.weight", (256, 320, 1, 1)
    yield from norm("neck.1", 256)
    yield "neck.2.weight", (256, 256, 3, 3)
    yield from norm("neck.3", 256)


def mobile_sam_file() -> dict[str, torch.Tensor]:
    """Random weights as MobileSAM's file holds them; the rest is Segment Anything's."""
    torch.manual_seed(0)
    rest = {
        name: value
        for name, value in build_mobile_sam().state_dict().items()
        if not name.startswith("image_encoder.")
    }
    encoder = {
        f"image_encoder.{name}": torch.ones(shape) if "running_var" in name
        else torch.randn(shape) * 0.05 if shape
        else torch.tensor(0)
        for name, shape in mobile_sam_encoder()
    }  # fmt: skip
    return rest | encoder


def test_every_weight_of_the_file_has_its_place_and_its_shape() -> None:
    ours = {name: value.shape for name, value in build_mobile_sam().state_dict().items()}
    assert {name: value.shape for name, value in renamed(mobile_sam_file()).items()} == ours


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
def test_it_loads_and_proposes_masks(tmp_path: Path, prefix: str) -> None:
    weights = {f"{prefix}{name}": value for name, value in mobile_sam_file().items()}
    torch.save({"model": weights}, tmp_path / "mobile_sam.pt")
    network, sha256 = load_sam(tmp_path / "mobile_sam.pt", "vit_t")
    (tmp_path / "mobile_sam.pt").unlink()
    teacher = SamTeacher(network, "vit_t", sha256)
    assert "timm" in teacher.settings["versions"]
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    (proposal,) = teacher.propose(image, np.array([[10, 10, 50, 40]], np.float32))
    assert proposal.mask.shape == (60, 80)
    assert 0 <= proposal.score <= 1


def test_stages_keep_the_grid_that_the_decoder_expects() -> None:
    encoder = build_mobile_sam().image_encoder.eval()
    with torch.inference_mode():  # a quarter of the side: a sixteenth of the work
        assert encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 256, 16, 16)
    strides = [stage.downsample.conv2.conv.stride for stage in list(encoder.trunk.stages)[1:]]
    assert strides == [(2, 2), (2, 2), (1, 1)]
