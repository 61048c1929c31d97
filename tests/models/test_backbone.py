from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from boxpromptiml.errors import UserError
from boxpromptiml.models.backbone import Backbone, with_normalization
from boxpromptiml.models.configs import StudentConfig

SWIN = "swin_tiny_patch4_window7_224"
FAMILIES = ["resnet10t", "mobilenetv3_small_100", "convnext_atto", "tiny_vit_5m_224", SWIN]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole classifier's weights, as timm publishes them."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny_vit.safetensors"
    save_file(timm.create_model("tiny_vit_5m_224").state_dict(), path)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_channel_first_at_the_promised_strides(name: str) -> None:
    backbone = Backbone(name).eval()
    size = (224, 224) if name == SWIN else (64, 96)
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, *size))
    shapes = [tuple(m.shape) for m in maps]
    strides = zip(backbone.channels, backbone.strides, strict=True)
    assert shapes == [(1, c, size[0] // s, size[1] // s) for c, s in strides]


def test_channel_last_maps_are_permuted_not_reshaped() -> None:
    backbone = Backbone(SWIN, out_indices=(0,)).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        (ours,), (theirs,) = backbone(image), backbone.net(image)
    assert torch.equal(ours[0, :, 5, 7], theirs[0, 5, 7])


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_100", "tiny_vit_5m_224"])
def test_stages_and_extra_channels(name: str) -> None:
    every, some = Backbone(name), Backbone(name, in_chans=6, out_indices=(1, 3))
    assert some.channels == (every.channels[1], every.channels[3])
    maps = some.eval()(torch.rand(1, 6, 64, 64))
    assert [m.shape[1] for m in maps] == list(some.channels)


def test_unknown_name_offers_close_ones() -> None:
    with pytest.raises(UserError, match=r"tiny_vit_5m_22\b.*did you mean .*tiny_vit_5m_224"):
        Backbone("tiny_vit_5m_22")
    with pytest.raises(UserError, match="list_models"):
        Backbone("%%%")


@pytest.mark.parametrize("stages", [(), (2, 1), (1, 1), (-1,), (0, 9)])
def test_impossible_stages(stages: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="stages"):
        Backbone("resnet10t", out_indices=stages)


def test_fixed_input_size_is_said() -> None:
    with pytest.raises(UserError, match=r"accepts \(224, 224\) input only, got \(64, 64\)"):
        Backbone(SWIN, out_indices=(0,))(torch.rand(1, 3, 64, 64))


def test_pretrained_equals_timm(weights: Path) -> None:
    image = torch.rand(1, 3, 64, 64)
    theirs = timm.create_model(
        "tiny_vit_5m_224",
        features_only=True,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights)},
    ).eval()
    ours = Backbone("tiny_vit_5m_224", pretrained=weights).eval()
    for a, b in zip(ours(image), theirs(image), strict=True):
        assert torch.equal(a, b)


def test_extra_channels_start_silent(weights: Path) -> None:
    image = torch.rand(1, 6, 64, 64)
    plain = Backbone("tiny_vit_5m_224", pretrained=weights).eval()
    wide = Backbone("tiny_vit_5m_224", in_chans=6, pretrained=weights).eval()
    for a, b in zip(plain(image[:, :3]), wide(image), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_weights_missing_or_of_another_model(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such weights file"):
        Backbone("tiny_vit_5m_224", pretrained=tmp_path / "none.safetensors")
    with pytest.raises(UserError, match=r"not the weights of timm's 'tiny_vit_11m_224'"):
        Backbone("tiny_vit_11m_224", pretrained=weights)


def test_weights_that_fit_nowhere_are_not_ignored(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    with pytest.raises(UserError, match=r"resnet\.safetensors: not the weights"):
        Backbone("tiny_vit_5m_224", pretrained=path)


def test_no_second_copy_of_the_weights_is_kept(weights: Path) -> None:
    backbone = Backbone("tiny_vit_5m_224", pretrained=weights)
    configs = [getattr(m, "pretrained_cfg", {}) for m in backbone.modules()]
    assert any(configs)
    assert not any(c.get("state_dict") for c in configs)


def test_weights_inside_a_checkpoint(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny_vit.pth"
    torch.save({"model": load_file(weights)}, path)
    image = torch.rand(1, 3, 64, 64)
    a, b = (Backbone("tiny_vit_5m_224", pretrained=p).eval() for p in (weights, path))
    assert torch.equal(a(image)[-1], b(image)[-1])


def test_damaged_weights(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match="cut"):
        Backbone("tiny_vit_5m_224", pretrained=path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(UserError, match="evil"):
        Backbone("resnet10t", pretrained=path)
    assert not (tmp_path / "ran").exists()


def _trap_is_real(old: Backbone, new: Backbone, image: torch.Tensor) -> bool:
    old.net.load_state_dict(new.net.state_dict())
    return not torch.allclose(old.net(image)[-1], new.net(image)[-1])


@torch.no_grad()
def test_new_weights_after_an_eval_forward() -> None:
    image = torch.rand(1, 3, 64, 64)
    models = [Backbone("tiny_vit_5m_224").eval() for _ in range(3)]
    for model in models:
        for name, parameter in model.named_parameters():
            if "attention_biases" in name:
                parameter.normal_()
        model(image)
    old, new, third = models
    assert _trap_is_real(third, new, image)

    old.load_state_dict(new.state_dict())
    for a, b in zip(old(image), new(image), strict=True):
        assert torch.equal(a, b)

    for parameter in old.parameters():  # as an EMA swap does, without load_state_dict
        parameter.mul_(0.5)
    fresh = Backbone("tiny_vit_5m_224").eval()
    fresh.load_state_dict(old.state_dict())
    for a, b in zip(old(image), fresh(image), strict=True):
        assert torch.equal(a, b)


def test_gradients_after_an_inference_mode_forward() -> None:
    backbone = Backbone("tiny_vit_5m_224").eval()
    with torch.inference_mode():
        backbone(torch.rand(1, 3, 64, 64))
    backbone(torch.rand(1, 3, 64, 64))[-1].sum().backward()


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_lite0"])
@pytest.mark.parametrize("stages", [(0,), (0, 1), (1, 2, 3), None])
def test_blocks_behind_the_last_map_are_cut(name: str, stages: tuple[int, ...] | None) -> None:
    options: dict[str, Any] = {} if stages is None else {"out_indices": stages}
    whole = timm.create_model(name, features_only=True, **options).eval()
    ours = Backbone(name, out_indices=stages).eval()
    before = {f"net.{key}": value for key, value in whole.state_dict().items()}
    ours.load_state_dict(before)  # a checkpoint of before the cut fits
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(image), whole(image), strict=True):
            assert torch.equal(a, b)
    assert set(ours.state_dict()) <= set(before)
    sum(m.mean() for m in ours(image)).backward()
    assert all(p.grad is not None for p in ours.parameters())  # DDP stops at any without
    counts = [sum(p.numel() for p in m.parameters()) for m in (ours, whole)]
    assert counts[0] < counts[1] or stages is None  # all maps take all blocks


def test_only_the_blocks_that_were_cut_may_be_superfluous() -> None:
    backbone = Backbone("mobilenetv3_small_050", out_indices=(0, 1))
    state = backbone.state_dict()
    with pytest.raises(RuntimeError, match=r"net\.blocks\.0\.9\.stranger"):
        backbone.load_state_dict(state | {"net.blocks.0.9.stranger": torch.zeros(1)})
    gone = {"backbone.net.blocks.5.0.conv.weight": torch.zeros(1), "net.blocks.5.x": state}
    backbone.forget_cut(gone, "backbone.")
    assert list(gone) == ["net.blocks.5.x"]


def test_weights_that_no_map_uses_are_frozen() -> None:
    """The gradient must reach all that is left, in families that timm does not cut short."""
    backbone = Backbone("tiny_vit_5m_224", out_indices=(0, 1))
    maps = backbone(torch.rand(1, 3, 64, 64))
    sum(m.mean() for m in maps).backward()
    for parameter in backbone.parameters():
        assert parameter.requires_grad == (parameter.grad is not None)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("tf_efficientnet_lite0", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("tiny_vit_5m_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_rgb_is_normalised_as_timm_does_for_the_backbone(
    name: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    config = with_normalization(StudentConfig(name))
    assert (config.rgb_mean, config.rgb_std) == (mean, std)
    own = StudentConfig(name, rgb_mean=(0.1, 0.2, 0.3), rgb_std=(1.0, 2.0, 3.0))
    assert with_normalization(own) == own


def test_convolutions_without_a_fast_bf16_gradient_stay_in_single_precision() -> None:
    net = Backbone("tf_efficientnet_lite0").net
    slow, fast = net.get_submodule("blocks.2.0.conv_dw"), net.get_submodule("blocks.1.1.conv_dw")
    image = torch.randn(1, 144, 15, 21).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = slow(image), fast(image)
    assert torch.equal(mixed[0], slow(image.float()).bfloat16())
    assert not torch.equal(mixed[1], fast(image.float()).bfloat16())
    assert mixed[1].dtype == torch.bfloat16
