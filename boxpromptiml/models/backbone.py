"""Any timm backbone as a list of NCHW feature maps, with workarounds for timm's pitfalls."""

import difflib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.io.trust import is_import_path, trusted_object
from boxpromptiml.io.weights import load_weights
from boxpromptiml.models.configs import IMAGENET_MEAN, IMAGENET_STD, StudentConfig, WCBConfig
from boxpromptiml.models.imagenet import Pretrained, imagenet_weights

C = TypeVar("C", StudentConfig, WCBConfig)


class Backbone(nn.Module):
    """Feature maps of a timm model, finest first.

    Weights can change at any time (`load_state_dict`, EMA swaps, in-place copies): the attention
    biases that TinyViT, LeViT and EfficientFormer cache in eval mode are dropped before each
    forward pass.

    Args:
        name: A name of `timm.list_models()`, with or without a pretrained tag; or the import path
            of a function registered with `timm.models.register_model`, if its code is trusted.
        in_chans: Input channels, RGB first. With pretrained weights the channels after RGB start
            at zero, so that the pretrained features are kept as they are.
        pretrained: `imagenet` (for tf_efficientnet_lite0: see `models.imagenet`), a local file of
            the whole model for this name, classifier included (.safetensors, or .pth without
            code), or None for random weights. Nothing is ever downloaded.
        out_indices: Which maps, ascending from 0 for the finest; None for all.

    Attributes:
        channels: Channels of each map.
        strides: Input pixels per cell of each map.
        fixed_size: The only (h, w) that the model accepts, or None if it accepts any multiple of
            its strides.

    Raises:
        UserError: If the name or a map is unknown, or the weights are missing or of another model.
    """

    def __init__(
        self,
        name: str,
        in_chans: int = 3,
        pretrained: Pretrained | None = None,
        out_indices: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        name = timm_name(name)
        _check_indices(out_indices)
        options: dict[str, Any] = {"in_chans": in_chans}
        if out_indices is not None:
            options["out_indices"] = out_indices
        self.name = name
        if pretrained is not None:
            state = _checked_weights(name, pretrained)
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
        self.net = _create(name, options)
        info: Any = self.net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.fixed_size = _fixed_size(name)
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")) == "Format.NHWC"
        if pretrained is not None and in_chans > 3:
            _keep_rgb_weights(self.net, in_chans)
        self._cut = _cut_behind_last_map(self.net)
        _train_slow_convolutions_in_float32(self.net)
        self.register_load_state_dict_pre_hook(_forget_cut)  # type: ignore[no-untyped-call]
        self._freeze_what_no_map_uses(in_chans)

    def forget_cut(self, state: dict[str, Any], prefix: str) -> None:
        """Remove from a state dict, in place, the blocks behind the last map.

        Older checkpoints still contain these unused blocks.

        Args:
            state: Tensors by name.
            prefix: What precedes this module's own names, such as `backbone.`.
        """
        cut = tuple(prefix + name for name in self._cut)
        for key in [key for key in state if cut and key.startswith(cut)]:
            del state[key]

    def _freeze_what_no_map_uses(self, in_chans: int) -> None:
        """Freeze weights that influence no map: DDP fails on weights without a gradient."""
        height, width = self.fixed_size or (2 * max(self.strides),) * 2
        was_training = self.training
        used = list(self.parameters())
        if used[0].is_meta:  # an outline, for its names and shapes alone
            return
        with torch.enable_grad():
            maps = self.eval()(torch.zeros(1, in_chans, height, width))
            found = torch.autograd.grad(sum(m.sum() for m in maps), used, allow_unused=True)
        for parameter, gradient in zip(used, found, strict=True):
            parameter.requires_grad_(gradient is not None)
        self.train(was_training)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps (B, channels[i], ceil(h / strides[i]), ceil(w / strides[i])) of (B, in_chans, h, w).

        Raises:
            RuntimeError: If timm returns other maps than it promised.
            UserError: If the model accepts one input size only, and this is another.
        """
        if self.fixed_size not in (None, tuple(x.shape[-2:])):
            raise UserError(
                f"backbone {self.name!r} accepts {self.fixed_size} input only, "
                f"got {tuple(x.shape[-2:])}: resize the images to it, or choose a convolutional "
                "backbone or tiny_vit_5m_224"
            )
        self._forget_cached_biases()
        maps: list[torch.Tensor] = self.net(x)
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        found = tuple(m.shape[1] for m in maps)
        if found != self.channels:
            raise RuntimeError(f"{self.name}: maps of {found} channels, promised {self.channels}")
        return maps

    def _forget_cached_biases(self) -> None:
        for module in self.net.modules():
            cache = getattr(module, "attention_bias_cache", None)
            if cache:
                cache.clear()


def _forget_cut(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    cast(Backbone, module).forget_cut(state, prefix)


def with_normalization(config: C) -> C:
    """The configuration of a network with the RGB normalisation that its backbone expects.

    Values that it has stay; missing ones are those of timm's configuration of the backbone.

    Raises:
        UserError: timm has no such model.
    """
    defaults = timm.get_pretrained_cfg(timm_name(config.backbone))
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if defaults is not None:
        mean, std = cast(Any, (defaults.mean, defaults.std))
    return replace(config, rgb_mean=config.rgb_mean or mean, rgb_std=config.rgb_std or std)


def rgb_planes(values: Sequence[float]) -> torch.Tensor:
    """Three numbers as (1, 3, 1, 1)."""
    return torch.tensor(values).view(1, 3, 1, 1)


def timm_name(name: str) -> str:
    """The name by which timm knows a backbone, which may be given by its import path.

    Raises:
        UserError: timm has no such model, or the code is not trusted.
    """
    if timm.is_model(name):
        return name
    if is_import_path(name) and not timm.is_model(name.partition(".")[0]):
        own: str = trusted_object(name, "the backbone").__name__
        if timm.is_model(own):
            return own
        raise UserError(f"backbone {name}: is not registered: decorate it with @register_model")
    close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=5, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()"
    raise UserError(f"backbone: timm has no model {name!r}{hint}")


def _check_indices(out_indices: tuple[int, ...] | None) -> None:
    # timm returns maps by depth but lists their channels in the order asked for.
    if out_indices is None:
        return
    ascending = all(a < b for a, b in itertools.pairwise(out_indices))
    if not out_indices or out_indices[0] < 0 or not ascending:
        raise UserError(f"stages must ascend from 0 or more, got {out_indices}")


def _fixed_size(name: str) -> tuple[int, int] | None:
    defaults = timm.get_pretrained_cfg(name)
    if defaults is None or not defaults.fixed_input_size:
        return None
    _, height, width = defaults.input_size
    return height, width


def _checked_weights(name: str, source: Pretrained) -> dict[str, Any]:
    """Check that weights fill the whole model; with `features_only` timm ignores mismatches."""
    state = imagenet_weights(name) if source == "imagenet" else load_weights(Path(source))
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
    overlay = {"state_dict": dict(state)}  # timm's filters edit it
    try:
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except (AssertionError, AttributeError, LookupError, RuntimeError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        reason = " ".join(line.strip() for line in lines[:2])[:300]
        raise UserError(f"{source}: not the weights of timm's {name!r}: {reason}") from error
    return state


def _create(name: str, options: dict[str, Any]) -> nn.Module:
    noise = logging.getLogger("timm.models._builder")  # lists weights behind the last map
    level = noise.level
    noise.setLevel(logging.ERROR)
    try:
        net: nn.Module = timm.create_model(name, features_only=True, **options)
    except (IndexError, AssertionError) as error:
        if "out_indices" not in options:
            raise
        stages = options["out_indices"]
        raise UserError(f"backbone {name!r} does not have all of stages {stages}") from error
    except RuntimeError as error:
        raise UserError(f"backbone {name!r} gives no feature maps: {error}") from error
    finally:
        noise.setLevel(level)
    for module in net.modules():  # timm keeps a second copy of the weights in its configuration
        if isinstance(kept := getattr(module, "pretrained_cfg", None), dict):
            kept.pop("state_dict", None)
    return net


def _cut_behind_last_map(net: nn.Module) -> tuple[str, ...]:
    """Drop the last blocks of timm's MobileNetV3 and EfficientNet, which give no map.

    timm drops them for all other families.

    Returns:
        Prefixes, within `Backbone`, of the names of the dropped weights.
    """
    stages: dict[int, int] | None = getattr(net, "_stage_out_idx", None)  # number of blocks: map
    if stages is None or getattr(net, "feature_hooks", None) is not None:
        return ()
    blocks = cast(nn.Sequential, net.blocks)
    gone = range(max(stages), len(blocks))
    net.blocks = blocks[: max(stages)]
    return tuple(f"net.blocks.{number}." for number in gone)


class _Float32OnCpu:
    """A convolution that bf16 autocast leaves in single precision on the CPU.

    oneDNN has no fast bf16 gradient for these; in single precision they take a quarter of the
    time (a training step of EfficientNet-Lite0 three quarters).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        forward = super().forward  # type: ignore[misc]
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return cast(torch.Tensor, forward(x))
        with torch.autocast("cpu", enabled=False):
            return cast(torch.Tensor, forward(x.float()).to(x.dtype))


class _Conv2dFloat32(_Float32OnCpu, nn.Conv2d): ...


class _Conv2dSameFloat32(_Float32OnCpu, Conv2dSame): ...


def _train_slow_convolutions_in_float32(net: nn.Module) -> None:
    """Change the class of depthwise convolutions with a stride or a kernel above 3."""
    replacements: dict[type, type] = {nn.Conv2d: _Conv2dFloat32, Conv2dSame: _Conv2dSameFloat32}
    for module in net.modules():
        if not isinstance(module, nn.Conv2d) or module.groups == 1:
            continue
        if module.stride != (1, 1) or max(module.kernel_size) > 3:
            module.__class__ = replacements.get(type(module), type(module))


def _keep_rgb_weights(net: nn.Module, in_chans: int) -> None:
    """Undo timm's guess for extra channels (RGB weights repeated and scaled by 3 / in_chans)."""
    stem = next(m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == in_chans)
    with torch.no_grad():
        stem.weight[:, :3] *= in_chans / 3
        stem.weight[:, 3:] = 0
