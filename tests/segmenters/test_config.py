from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from jsonargparse import ArgumentParser
from torchvision.models import segmentation

from boxpromptiml.errors import UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.segmenters.config import SETTINGS, SegmenterConfig, build_segmenter
from boxpromptiml.segmenters.networks import NetworkName
from boxpromptiml.segmenters.superpixels import FelzenszwalbSegmenter, SlicSegmenter

CHANGED = SegmenterConfig(
    "pspnet",
    Path("w.pth"),
    "resnet18",
    "vit_b",
    segments=7,
    compactness=2.5,
    scale=3,
    sigma=0,
    min_size=9,
    min_fraction=0.2,
    points_per_side=4,
    max_side=100,
    cache=Path("c"),
)
NETWORKS = ["deeplabv3", "pspnet", "deeplabv3plus", "sam"]


def test_every_field_is_changed_above() -> None:
    changed, default = asdict(CHANGED), asdict(SegmenterConfig())
    assert not [name for name in default if changed[name] == default[name]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "unet"},
        {"name": None},
        {"segments": "200"},
        {"segments": 2.5},
        {"segments": True},
        {"segments": 0},
        {"segments": 10**9},
        {"encoder": 3},
        {"model_type": "vit_x"},
        {"compactness": -1.0},
        {"scale": [1.0]},
        {"scale": float("nan")},
        {"sigma": float("inf")},
        {"sigma": {1, 2}},
        {"min_size": 0},
        {"min_fraction": -1.0},
        {"min_fraction": 1.0},
        {"points_per_side": 0},
        {"points_per_side": 65},
        {"max_side": 0},
    ],
)
def test_types_and_limits_are_checked_when_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"segmenter\.{next(iter(wrong))}"):
        SegmenterConfig(**wrong)


def test_jsonargparse_takes_it(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--segmenter", type=SegmenterConfig, default=SegmenterConfig())
    words = ["--segmenter.name=felzenszwalb", "--segmenter.scale=7", "--segmenter.cache=/x/y"]
    config = parser.instantiate(parser.parse_args(words)).segmenter
    assert config == SegmenterConfig("felzenszwalb", scale=7, cache=Path("/x/y"))


def test_superpixels_take_their_settings() -> None:
    assert build_segmenter(SegmenterConfig("none")) is None
    assert build_segmenter(SegmenterConfig()) == SlicSegmenter()
    slic = SegmenterConfig("slic", segments=7, compactness=3, max_side=9)
    assert build_segmenter(slic) == SlicSegmenter(7, 3, max_side=9)
    assert build_segmenter(SegmenterConfig("felzenszwalb")) == FelzenszwalbSegmenter()
    other = SegmenterConfig("felzenszwalb", scale=7, sigma=2, min_size=3, max_side=9)
    assert build_segmenter(other) == FelzenszwalbSegmenter(7, 2, 3, 9)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_asked_for_when_built(name: Any) -> None:
    with pytest.raises(UserError, match=rf"{name} needs local weights: .*segmenter\.weights=PATH"):
        build_segmenter(SegmenterConfig(name))


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_weights(name: Any, tmp_path: Path) -> None:
    config = SegmenterConfig(name, tmp_path / "absent.pth", "resnet18")
    with pytest.raises(UserError, match=r"absent\.pth: no such weights file"):
        build_segmenter(config)


def test_networks_take_their_settings(tmp_path: Path) -> None:
    deeplab = segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    torch.save(deeplab.state_dict(), tmp_path / "d.pth")
    psp = smp.PSPNet("resnet18", encoder_weights=None, classes=3)
    torch.save(psp.state_dict(), tmp_path / "p.pth")
    plus = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=3)
    plus.save_pretrained(tmp_path / "plus")
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    networks: tuple[tuple[NetworkName, str, str | None], ...] = (
        ("deeplabv3", "d.pth", None),
        ("pspnet", "p.pth", "resnet18"),
        ("deeplabv3plus", "plus", None),
    )
    for name, weights, encoder in networks:
        config = SegmenterConfig(
            name,
            tmp_path / weights,
            encoder,
            min_fraction=0.1,
            max_side=64,
            cache=tmp_path / "cache",
        )
        segmenter = build_segmenter(config)
        assert segmenter is not None
        assert segmenter.settings["name"] == name
        assert segmenter.settings["settings"] == {
            "min_fraction": 0.1,
            "max_side": 64,
            "background": "regions",
        }
        assert segmenter.regions(image).shape == (30, 40)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 3


def test_superpixels_without_scikit_image_are_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("boxpromptiml.segmenters.config.find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        build_segmenter(SegmenterConfig("slic"))
    assert build_segmenter(SegmenterConfig("none")) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "none", "cache": Path("c")}, "segmenter.cache has no effect with .*=none, but"),
        ({"name": "felzenszwalb", "segments": 9}, "segments has no effect .*, but with slic$"),
        ({"name": "sam", "max_side": 9}, "segmenter.max_side has no effect with .*name=sam, but"),
    ],
)  # fmt: skip
def test_settings_of_other_segmenters_are_refused_where_a_person_gives_them(
    given: dict[str, Any], said: str
) -> None:
    config = SegmenterConfig(**given)  # a checkpoint may hold them
    with pytest.raises(UserError, match=said):
        config.refuse_idle()
    with pytest.raises(UserError, match=said):
        Localizer.load(None, segmenter=config)


def test_every_setting_has_segmenters_that_it_acts_for() -> None:
    assert SETTINGS.keys() == asdict(CHANGED).keys() - {"name", "weights"}
    for setting, names in SETTINGS.items():
        for name in names:
            SegmenterConfig(name, **{setting: getattr(CHANGED, setting)}).refuse_idle()
