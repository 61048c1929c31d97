"""PSPNet and DeepLabV3+ of segmentation-models-pytorch, built from checked settings.

The library's own `from_pretrained` takes the class from the file, queries the Hub for a path that
does not exist, and allows encoder names that trigger downloads. Here a folder may only contain
arguments of the requested network's constructor.
"""

import inspect
import json
from pathlib import Path
from typing import Any, Literal

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import require_local_file, sha256_file
from boxpromptiml.io.weights import load_into, load_weights
from boxpromptiml.records import Description

SmpName = Literal["pspnet", "deeplabv3plus"]

_CLASSES: dict[SmpName, type[nn.Module]] = {
    "pspnet": smp.PSPNet,
    "deeplabv3plus": smp.DeepLabV3Plus,
}
_MAX_BYTES = 1 << 20  # of a config.json


def load_smp(
    name: SmpName, weights: Path, encoder: str | None
) -> tuple[nn.Module, Description, int]:
    """Build a network and load its weights.

    Args:
        name: Which network.
        weights: A folder that `save_pretrained` wrote, or a file with a plain state dict of a
            network with the library's default settings.
        encoder: The encoder's name for a file; a folder names its own.

    Returns:
        The network on the CPU; name, weights and versions for its settings; the number of which the
        sides of its input must be multiples.

    Raises:
        UserError: If something is missing, damaged, of another network, or needs a download.
    """
    if weights.is_dir():
        source = weights / "model.safetensors"
        settings = _read_config(weights / "config.json", name)
        state = load_weights(source)
    else:
        source = weights
        require_local_file(weights)
        if encoder is None:
            raise UserError(
                f"{weights}: a file does not tell the encoder of {name}: give its name as the "
                "segmenter's `encoder` (such as resnet50), or a folder that save_pretrained wrote"
            )
        state = load_weights(weights)
        settings = {"encoder_name": encoder, "classes": _class_count(state, weights)}
    network = _build(name, settings, weights)
    load_into(network, state, source)
    encoder_net: Any = network.encoder
    return (
        network,
        {
            "name": name,
            "architecture": settings,
            "weights_sha256": sha256_file(source),
            "versions": {"segmentation-models-pytorch": smp.__version__},
        },
        int(encoder_net.output_stride),
    )


def _read_config(path: Path, name: SmpName) -> dict[str, Any]:
    """The constructor's arguments from a `config.json`, without those that need no weights."""
    if not path.is_file():
        raise UserError(f"{path}: missing; give a folder that save_pretrained wrote")
    try:
        with path.open("rb") as stream:
            config = json.loads(stream.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no settings but a {type(config).__name__}")
    wanted, found = _CLASSES[name].__name__, config.get("_model_class")
    if found != wanted:
        raise UserError(f"{path}: describes {found!r}, not {wanted}; choose another segmenter")
    known = set(inspect.signature(_CLASSES[name].__init__).parameters) - {"self", "kwargs"}
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    if unknown := sorted(set(settings) - known):
        raise UserError(f"{path}: has settings that {wanted} does not take: {unknown}")
    if settings.get("in_channels", 3) != 3:
        raise UserError(f"{path}: in_channels must be 3 (RGB), got {settings['in_channels']}")
    for ours in ("encoder_weights", "activation"):  # no download; logits as they are
        settings.pop(ours, None)
    return settings


def _build(name: SmpName, settings: dict[str, Any], source: Path) -> nn.Module:
    encoder = settings.get("encoder_name")
    if not _is_known_encoder(encoder):
        raise UserError(
            f"{source}: segmentation-models-pytorch has no encoder {encoder!r}; names are those of "
            "smp.encoders.get_encoder_names(), or tu- and a name of timm.list_models()"
        )
    try:
        return _CLASSES[name](**settings, encoder_weights=None, activation=None)
    except Exception as error:  # the settings are foreign and the library checks them nowhere
        raise UserError(
            f"{source}: no {name} can be built with {settings}: {type(error).__name__} {error}"
        ) from error


def _is_known_encoder(encoder: object) -> bool:
    """Whether an encoder name is local: timm would also open addresses such as `hf-hub:…`."""
    if not isinstance(encoder, str):
        return False
    timm_name = encoder.removeprefix("tu-")
    return encoder in smp.encoders.get_encoder_names() or (
        timm_name != encoder and ":" not in timm_name and bool(timm.is_model(timm_name))
    )


def _class_count(state: dict[str, Any], source: Path) -> int:
    bias = state.get("segmentation_head.0.bias")
    if not isinstance(bias, torch.Tensor) or bias.ndim != 1:
        raise UserError(
            f"{source}: holds no weights of segmentation-models-pytorch (no segmentation_head); "
            "give a plain state dict"
        )
    return len(bias)
