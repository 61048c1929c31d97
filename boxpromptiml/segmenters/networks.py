"""Semantic segmentation networks as segmenters, from local weights; nothing is ever downloaded.

DeepLabV3 (Chen et al., arXiv 1706.05587) comes from torchvision, PSPNet (Zhao et al., CVPR 2017)
and DeepLabV3+ (Chen et al., ECCV 2018) from segmentation-models-pytorch. Only the borders between
objects are used, not their classes.
"""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import segmentation

from boxpromptiml import geometry
from boxpromptiml.errors import UserError
from boxpromptiml.io.files import sha256_file
from boxpromptiml.io.weights import load_into, load_weights, require_device
from boxpromptiml.records import Description, ImageArray, RegionArray
from boxpromptiml.segmenters.labels import components
from boxpromptiml.segmenters.smp_networks import SmpName, load_smp

NetworkName = Literal["deeplabv3"] | SmpName

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the weights expect
# A layer that only this backbone has, deepest first.
_BACKBONES = {
    "backbone.layer3.22.conv1.weight": "resnet101",
    "backbone.layer3.5.conv1.weight": "resnet50",
    "backbone.16.0.weight": "mobilenet_v3_large",
}


class NetworkSegmenter:
    """Regions are the connected parts of each predicted class, of the background, too.

    A manipulation on the background would otherwise keep its coarse map.

    Classes are predicted at the network's size and resized to the stored size by nearest pixel:
    interpolating the logits of every class would smooth the borders of reduced images and take
    gigabytes for a photograph of 12 megapixels.

    Args:
        network: Images (1, 3, h, w), normalised as for ImageNet, to logits (1, C, ., .); a single
            logit is one class and the background.
        description: Name, weights and versions, for the settings.
        multiple: The network takes sides that are multiples of this; images are padded to it.
        device: Where the network runs, such as `cpu` or `cuda:0`.
        min_fraction: Parts below this fraction of the image are no region.
        max_side: Larger images are reduced to this many pixels on the longer side.

    Raises:
        UserError: If there is no such device.
    """

    def __init__(
        self,
        network: nn.Module,
        description: Description,
        multiple: int = 1,
        device: str = "cpu",
        min_fraction: float = 0.0005,
        max_side: int = 512,
    ) -> None:
        require_device(device)
        self._network = network.eval().requires_grad_(False).to(device)
        self._description = description
        self._multiple = multiple
        self._device = device
        self._min_fraction = min_fraction
        self._max_side = max_side

    @property
    def settings(self) -> Description:
        """Architecture, weights, versions and every setting that changes a region."""
        settings = {
            "min_fraction": self._min_fraction,
            "max_side": self._max_side,
            "background": "regions",  # once it was no region: caches of that time do not fit
        }
        return self._description | {"settings": settings}

    def regions(self, image: ImageArray) -> RegionArray:
        """(H, W) region numbers of an image (H, W, 3), 0 for tiny parts."""
        classes = self._classes(geometry.shrink(image, self._max_side)).cpu().numpy()
        return geometry.nearest(components(classes, self._min_fraction), image.shape[:2])

    @torch.inference_mode()
    def _classes(self, image: ImageArray) -> torch.Tensor:
        """(h, w) class numbers of an image (h, w, 3)."""
        height, width = image.shape[:2]
        pixels = torch.from_numpy(image).to(self._device).permute(2, 0, 1)[None].float() / 255
        mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        padding = (0, -width % self._multiple, 0, -height % self._multiple)
        padded = F.pad((pixels - mean) / std, padding)
        logits = _only_map(self._network(padded))
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
        logits = logits[0, :, :height, :width]
        return logits[0] > 0 if len(logits) == 1 else logits.argmax(dim=0)


def _only_map(output: Any) -> torch.Tensor:
    """The logits in a library's output: torchvision's is a dictionary, smp's a map or a pair."""
    if isinstance(output, dict):
        output = output["out"]
    logits: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return logits


def load_network(
    name: NetworkName, weights: Path, encoder: str | None = None
) -> tuple[nn.Module, Description, int]:
    """Build a network and load its weights.

    Args:
        name: Which network; the backbone of deeplabv3 is recognised from its weights.
        weights: A local `.pth` or `.safetensors` file; for the networks of
            segmentation-models-pytorch also a folder that `save_pretrained` wrote.
        encoder: pspnet, deeplabv3plus: the encoder's name, where `weights` is a file.

    Returns:
        The first three arguments of `NetworkSegmenter`.

    Raises:
        UserError: If the weights are missing, damaged or of another network.
    """
    if name == "deeplabv3":
        return *_load_deeplabv3(weights), 1
    return load_smp(name, weights, encoder)


def _load_deeplabv3(weights: Path) -> tuple[nn.Module, Description]:
    state = load_weights(weights)
    if isinstance(state.get("model"), dict):  # a checkpoint of torchvision's training script
        state = state["model"]
    # The auxiliary head serves training only.
    state = {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}
    backbone = next((name for key, name in _BACKBONES.items() if key in state), None)
    head = state.get("classifier.4.weight")
    if backbone is None or not isinstance(head, torch.Tensor) or head.ndim != 4:
        raise UserError(
            f"{weights}: holds no weights of torchvision's DeepLabV3 with one of "
            f"{', '.join(_BACKBONES.values())}; give its plain state dict"
        )
    architecture = f"deeplabv3_{backbone}"
    network: nn.Module = getattr(segmentation, architecture)(
        weights=None, weights_backbone=None, num_classes=len(head), aux_loss=False
    )
    load_into(network, state, weights)
    return network, {
        "name": "deeplabv3",
        "architecture": architecture,
        "weights_sha256": sha256_file(weights),
        "versions": {"torchvision": torchvision.__version__.split("+")[0]},
    }
