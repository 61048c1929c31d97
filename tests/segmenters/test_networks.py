import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import segmentation_models_pytorch as smp
import torch
from scipy import ndimage
from torch import nn
from torchvision.models import segmentation
from torchvision.transforms.functional import normalize, to_tensor

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray
from boxpromptiml.segmenters import networks as module
from boxpromptiml.segmenters.networks import NetworkName, NetworkSegmenter, load_network

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SIZE = (50, 75)  # no multiple of any stride


def segmenter(
    name: NetworkName, weights: Path, encoder: str | None = None, **settings: Any
) -> NetworkSegmenter:
    return NetworkSegmenter(*load_network(name, weights, encoder), **settings)


def an_image(size: tuple[int, int] = SIZE) -> ImageArray:
    """Coarse patches of random colours."""
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (size[0] // 12 + 1, size[1] // 12 + 1, 3), dtype=np.uint8)
    return patches.repeat(12, axis=0).repeat(12, axis=1)[: size[0], : size[1]]


def normalised(image: ImageArray, multiple: int = 1) -> torch.Tensor:
    """As torchvision's own presets do it, padded to the right and below."""
    pixels = normalize(to_tensor(image), MEAN, STD).numpy()
    padding = [(0, 0), *((0, -side % multiple) for side in image.shape[:2])]
    return torch.from_numpy(np.pad(pixels, padding))[None]


@torch.inference_mode()
def with_spread_answers(network: nn.Module, head: nn.Conv2d, inputs: torch.Tensor) -> nn.Module:
    """Random weights mostly answer one class; set the head so that several are seen."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    network.train()(torch.cat([inputs, inputs.flip(-1)]))  # statistics that keep features alive
    outputs: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    network.eval()(inputs)
    hook.remove()
    mean, std = outputs[0].mean(dim=(0, 2, 3)), outputs[0].std(dim=(0, 2, 3))
    head.weight /= std[:, None, None, None]
    assert head.bias is not None
    head.bias.copy_((head.bias - mean) / std)
    return network


def same_regions(labels: npt.NDArray[np.int32], classes: npt.NDArray[np.int64]) -> bool:
    """Whether labels are the 8-connected parts of the classes that scipy finds, none left out."""
    total = 0
    for value in np.unique(classes):
        parts, count = ndimage.label(classes == value, structure=np.ones((3, 3)))
        total += count
        for number in range(1, count + 1):
            found = np.unique(labels[parts == number])
            if len(found) != 1 or (labels == found[0]).sum() != (parts == number).sum():
                return False
    return bool(labels.max() == total)


def deeplabv3(backbone: str, classes: int = 4) -> Any:
    torch.manual_seed(0)
    network: Any = getattr(segmentation, f"deeplabv3_{backbone}")(
        weights=None, weights_backbone=None, num_classes=classes, aux_loss=True
    )
    return with_spread_answers(network, network.classifier[4], normalised(an_image()))


def smp_network(kind: type[nn.Module], classes: int = 4, **settings: Any) -> Any:
    torch.manual_seed(0)
    network: Any = kind(encoder_weights=None, classes=classes, **settings)
    return with_spread_answers(network, network.segmentation_head[0], normalised(an_image(), 32))


@torch.inference_mode()
def classes_of(network: nn.Module, image: ImageArray, multiple: int = 1) -> npt.NDArray[np.int64]:
    output = network.eval()(normalised(image, multiple))
    logits = output["out"] if isinstance(output, dict) else output
    logits = logits[0, :, : image.shape[0], : image.shape[1]]
    if len(logits) == 1:
        return (logits[0].sigmoid() > 0.5).long().numpy()
    return logits.argmax(dim=0).numpy()


@pytest.mark.parametrize("backbone", ["mobilenet_v3_large", "resnet50", "resnet101"])
def test_deeplabv3_equals_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    network, path = deeplabv3(backbone), tmp_path / "w.pth"
    if backbone == "mobilenet_v3_large":
        torch.save(network.state_dict(), path)
    else:  # hundreds of MB: spare the disk
        path.touch()
        monkeypatch.setattr(module, "load_weights", lambda _: dict(network.state_dict()))
    tested = segmenter("deeplabv3", path, min_fraction=0)
    assert tested.settings["architecture"] == f"deeplabv3_{backbone}"
    expected = classes_of(network, an_image())
    assert len(np.unique(expected)) >= 3
    labels = tested.regions(an_image())
    assert labels.dtype == np.int32
    assert same_regions(labels, expected)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("pspnet", smp.PSPNet, {"encoder_name": "resnet18", "psp_out_channels": 64}),
        ("pspnet", smp.PSPNet, {"encoder_name": "resnet18", "classes": 1}),
        ("deeplabv3plus", smp.DeepLabV3Plus, {"encoder_name": "resnet18"}),
        (
            "deeplabv3plus",
            smp.DeepLabV3Plus,
            {"encoder_name": "tu-mobilenetv3_small_050", "activation": "softmax2d"},
        ),
        (
            "deeplabv3plus",
            smp.DeepLabV3Plus,
            {"encoder_name": "resnet18", "encoder_output_stride": 8, "aux_params": {"classes": 2}},
        ),
    ],
)
def test_folder_equals_smps_own(
    tmp_path: Path, name: NetworkName, kind: type[nn.Module], settings: dict[str, Any]
) -> None:
    plain = {key: value for key, value in settings.items() if key != "activation"}
    saved = smp_network(kind, **plain)
    saved.config.update(settings)
    saved.save_pretrained(tmp_path)
    tested = segmenter(name, tmp_path, min_fraction=0)
    loaded = smp.from_pretrained(str(tmp_path)).eval()
    multiple = loaded.encoder.output_stride

    class First(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output = loaded(x)
            return output[0] if isinstance(output, tuple) else output

    expected = classes_of(First(), an_image(), multiple)
    assert len(np.unique(expected)) >= (2 if settings.get("classes") == 1 else 3)
    assert same_regions(tested.regions(an_image()), expected)
    assert tested.settings["architecture"]["encoder_name"] == settings["encoder_name"]


@pytest.mark.parametrize(("name", "kind"), [("pspnet", smp.PSPNet), ("deeplabv3plus", None)])
def test_file_needs_the_encoders_name(
    tmp_path: Path, name: NetworkName, kind: type[nn.Module] | None
) -> None:
    network = smp_network(kind or smp.DeepLabV3Plus, encoder_name="resnet18")
    path = tmp_path / "w.pth"
    torch.save(network.state_dict(), path)
    with pytest.raises(UserError, match="does not tell the encoder"):
        segmenter(name, path)
    with pytest.raises(UserError, match="does not fit"):
        segmenter(name, path, "resnet34")
    tested = segmenter(name, path, "resnet18", min_fraction=0)
    expected = classes_of(network, an_image(), network.encoder.output_stride)
    assert same_regions(tested.regions(an_image()), expected)


class Brightness(nn.Module):
    """Three classes by the red channel, and the shapes that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        red = x[:, :1] * STD[0] + MEAN[0]
        return torch.cat([torch.full_like(red, 0.3), red, 2 * red - 0.6], dim=1)


def steps(size: tuple[int, int]) -> ImageArray:
    """Red 0, 127 and 255 (classes 0, 1 and 2) in thirds from left to right."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[..., 0] = np.array([0, 127, 255])[np.arange(size[1]) * 3 // size[1]]
    return image


def test_the_background_is_a_region() -> None:
    labels = NetworkSegmenter(Brightness(), {}).regions(steps((10, 30)))
    np.testing.assert_array_equal(labels, np.repeat([1, 2, 3], 10)[None].repeat(10, axis=0))


def test_small_parts_are_no_region() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[2:4, 2:4], image[10:15, 10:15] = 255, 255
    network = Brightness()
    assert NetworkSegmenter(network, {}, min_fraction=4 / 400).regions(image).max() == 3
    kept = NetworkSegmenter(network, {}, min_fraction=5 / 400).regions(image)
    assert kept.max() == 2
    assert not kept[2:4, 2:4].any()


def test_large_images_are_reduced_and_padded() -> None:
    network = Brightness()
    labels = NetworkSegmenter(network, {}, multiple=16, max_side=30).regions(steps((40, 120)))
    assert network.shapes == [(1, 3, 16, 32)]  # of 10 x 30
    np.testing.assert_array_equal(labels[0], np.repeat([1, 2, 3], 40))


def test_coarse_logits_are_brought_to_the_input() -> None:
    class Coarse(Brightness):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)[:, :, ::4, ::4]

    labels = NetworkSegmenter(Coarse(), {}, multiple=4).regions(steps((24, 96)))
    assert labels.shape == (24, 96)
    assert set(np.unique(labels)) == {1, 2, 3}
    assert abs((labels == 3).sum() / labels.size - 1 / 3) < 0.05


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3)])
def test_thin_images(tmp_path: Path, size: tuple[int, int]) -> None:
    network = smp_network(smp.PSPNet, encoder_name="resnet18", psp_out_channels=32)
    network.save_pretrained(tmp_path)
    for tested in (
        segmenter("pspnet", tmp_path, min_fraction=0),
        NetworkSegmenter(Brightness(), {}, multiple=32),
    ):
        labels = tested.regions(np.full((*size, 3), 200, dtype=np.uint8))
        assert labels.shape == size
        assert labels.dtype == np.int32


def test_frozen_and_in_evaluation_mode() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train()
    tested = NetworkSegmenter(network, {})
    before = {key: value.clone() for key, value in network.state_dict().items()}
    tested.regions(an_image())
    assert not network.training
    assert not any(values.requires_grad for values in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_settings_tell_weights_and_settings(tmp_path: Path) -> None:
    network, path = deeplabv3("mobilenet_v3_large"), tmp_path / "w.pth"
    torch.save({"model": network.state_dict()}, path)  # as torchvision's training script does
    signed = [
        json.dumps(segmenter("deeplabv3", path, **changed).settings)
        for changed in ({}, {"min_fraction": 0.1}, {"max_side": 64})
    ]
    network.classifier[4].bias.data += 1
    torch.save({"model": network.state_dict()}, path)
    signed.append(json.dumps(segmenter("deeplabv3", path).settings))
    assert len(set(signed)) == 4


@pytest.mark.parametrize("name", ["deeplabv3", "pspnet", "deeplabv3plus"])
def test_weights_of_something_else(tmp_path: Path, name: NetworkName) -> None:
    with pytest.raises(UserError, match="no such weights file"):
        segmenter(name, tmp_path / "absent.pth", "resnet18")
    with pytest.raises(UserError, match="addresses are not opened"):
        segmenter(name, Path("https://host/w.pth"), "resnet18")
    path = tmp_path / "w.pth"
    for state in ({"a": torch.zeros(1)}, {"classifier.4.weight": 3, "segmentation_head.0.bias": 3}):
        torch.save(state, path)
        with pytest.raises(UserError, match="holds no weights of"):
            segmenter(name, path, "resnet18")
    path.write_bytes(b"hello, I am no checkpoint")
    with pytest.raises(UserError, match="is not a checkpoint"):
        segmenter(name, path, "resnet18")


def test_half_a_deeplabv3_does_not_fit(tmp_path: Path) -> None:
    state = deeplabv3("mobilenet_v3_large").state_dict()
    del state["classifier.1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"does not fit DeepLabV3: 1 missing \(classifier\.1"):
        segmenter("deeplabv3", tmp_path / "w.pth")


@pytest.fixture(scope="module")
def pspnet_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pspnet")
    smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=32).save_pretrained(folder)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"_model_class": "Unet"}, "describes 'Unet', not PSPNet"),
        ({"_model_class": "DeepLabV3Plus"}, "not PSPNet"),
        ({"_model_class": None}, "not PSPNet"),
        ({"in_channels": 4}, "in_channels must be 3"),
        ({"cache_dir": "/x"}, "does not take: .'cache_dir'"),
        ({"encoder_name": "resnet9000"}, "no encoder 'resnet9000'"),
        ({"encoder_name": "tu-hf-hub:timm/resnet18"}, "no encoder"),
        ({"encoder_name": "hf-hub:timm/resnet18"}, "no encoder"),
        ({"encoder_name": "tu-nothing"}, "no encoder"),
        ({"encoder_name": ["resnet18"]}, "no encoder"),
        ({"encoder_depth": 99}, "no pspnet can be built"),
        ({"decoder_use_norm": "strange"}, "no pspnet can be built"),
        ({"psp_out_channels": 16}, "does not fit PSPNet"),
    ],
)
def test_configs_are_screened(
    tmp_path: Path, pspnet_config: dict[str, Any], changed: dict[str, Any], match: str
) -> None:
    smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=32).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(pspnet_config | changed))
    with pytest.raises(UserError, match=match):
        segmenter("pspnet", tmp_path)


def test_encoder_weights_are_never_fetched(tmp_path: Path) -> None:
    network = smp_network(smp.PSPNet, encoder_name="resnet18", psp_out_channels=32)
    network.config["encoder_weights"] = "imagenet"
    network.save_pretrained(tmp_path)
    tested = segmenter("pspnet", tmp_path, min_fraction=0)
    assert same_regions(tested.regions(an_image()), classes_of(network, an_image(), 8))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\x00"])
def test_damaged_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        segmenter("pspnet", tmp_path)


def test_incomplete_folders(tmp_path: Path, pspnet_config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config\.json: missing"):
        segmenter("pspnet", tmp_path)
    with pytest.raises(UserError, match="is a folder"):
        segmenter("deeplabv3", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(pspnet_config))
    with pytest.raises(UserError, match=r"model\.safetensors: no such weights file"):
        segmenter("pspnet", tmp_path)


def test_an_unknown_device() -> None:
    with pytest.raises(UserError, match="unknown"):
        NetworkSegmenter(Brightness(), {}, device="gpu")
