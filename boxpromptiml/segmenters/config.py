"""The segmenter to use and its settings: one flat record for YAML files and checkpoints."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le, Lt, MaxLen
from pydantic import ConfigDict

from boxpromptiml.errors import UserError
from boxpromptiml.io.strict_json import check_fields
from boxpromptiml.io.trust import ImportPath, trusted_instance
from boxpromptiml.models.configs import STRICT
from boxpromptiml.records import ModelType, Segmenter
from boxpromptiml.segmenters.cache import CachedSegmenter
from boxpromptiml.segmenters.superpixels import (
    FelzenszwalbSegmenter,
    MaxSide,
    MinSize,
    Positive,
    Segments,
    Sigma,
    SlicSegmenter,
)

SegmenterName = Literal[
    "none", "slic", "felzenszwalb", "deeplabv3", "pspnet", "deeplabv3plus", "sam"
]

MinFraction = Annotated[float, Ge(0), Lt(1)]
PointsPerSide = Annotated[int, Ge(1), Le(64)]  # beyond about 90 SAM's generator fails on a GPU


# Settings of some segmenters only, and those segmenters.
_SUPERPIXELS: tuple[SegmenterName, ...] = ("slic", "felzenszwalb")
_ENCODERS: tuple[SegmenterName, ...] = ("pspnet", "deeplabv3plus")
_NETWORKS: tuple[SegmenterName, ...] = ("deeplabv3", *_ENCODERS)
SETTINGS: dict[str, tuple[SegmenterName, ...]] = {
    "encoder": _ENCODERS,
    "model_type": ("sam",),
    "segments": ("slic",),
    "compactness": ("slic",),
    "scale": ("felzenszwalb",),
    "sigma": ("felzenszwalb",),
    "min_size": ("felzenszwalb",),
    "min_fraction": _NETWORKS,
    "points_per_side": ("sam",),
    "max_side": (*_SUPERPIXELS, *_NETWORKS),
    "cache": (*_SUPERPIXELS, *_NETWORKS, "sam"),
}


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmenter by name, with the settings of all segmenters.

    Attributes:
        name: slic and felzenszwalb need no weights, the networks and sam do; none: no regions. Or
            the import path of a class or function that gives a `Segmenter` when it is called
            without arguments, such as mylab.Segmenter, if its code is trusted.
        weights: A local weights file, or a `save_pretrained` folder for pspnet and deeplabv3plus.
        encoder: pspnet, deeplabv3plus: the encoder's name, where `weights` is a file.
        model_type: sam: architecture of the weights.
        segments: slic: requested number of regions.
        compactness: slic: weight of distance against colour.
        scale: felzenszwalb: higher gives fewer, larger regions.
        sigma: felzenszwalb: width of the Gaussian smoothing beforehand, in pixels.
        min_size: felzenszwalb: smaller regions are merged, in pixels.
        min_fraction: Networks: parts below this fraction of the image are no region.
        points_per_side: sam: prompts in a row and in a column of the grid.
        max_side: All but sam, which sees 1024: larger images are reduced to this many pixels on
            the longer side.
        cache: Folder that keeps regions on disk; None for no cache.

    Raises:
        UserError: If a setting has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: SegmenterName | ImportPath = "slic"
    weights: Path | None = None
    encoder: Annotated[str, MaxLen(200)] | None = None
    model_type: ModelType = "vit_h"
    segments: Segments = 200
    compactness: Positive = 10.0
    scale: Positive = 50.0
    sigma: Sigma = 0.8
    min_size: MinSize = 100
    min_fraction: MinFraction = 0.0005
    points_per_side: PointsPerSide = 32
    max_side: MaxSide = 512
    cache: Path | None = None

    def __post_init__(self) -> None:
        check_fields(self, "segmenter")
        if self.weights is not None and self.name in ("none", *_SUPERPIXELS):
            raise UserError(f"segmenter {self.name} has no weights: name the network they are of")

    def refuse_idle(self) -> None:
        """Refuse settings of other segmenters, which have no effect.

        Raises:
            UserError: Names the first.
        """
        for setting, names in SETTINGS.items():
            standard = SegmenterConfig.__dataclass_fields__[setting].default
            if self.name not in names and getattr(self, setting) != standard:
                raise UserError(
                    f"segmenter.{setting} has no effect with segmenter.name={self.name}, but with "
                    f"{', '.join(names)}"
                )


def build_segmenter(config: SegmenterConfig, device: str = "cpu") -> Segmenter | None:
    """Build the segmenter that a configuration names; None for `none`.

    Args:
        config: Its kind, weights and settings.
        device: Where networks run, such as `cpu` or `cuda:0`.

    Raises:
        UserError: If weights are missing or do not fit, there is no such device, or scikit-image is
            not installed (as in an installation for exported networks only).
    """
    if config.name in _SUPERPIXELS and find_spec("skimage") is None:
        raise UserError(
            f"segmenter {config.name} needs scikit-image: pip install scikit-image, or "
            "--segmenter.name=none for the coarse maps"
        )
    segmenter = _build(config, device)
    if segmenter is None or config.cache is None:
        return segmenter
    return CachedSegmenter(segmenter, config.cache)


def _build(config: SegmenterConfig, device: str) -> Segmenter | None:
    match config.name:
        case "none":
            return None
        case "slic":
            return _slic(config)
        case "felzenszwalb":
            return _felzenszwalb(config)
        case "sam":
            from boxpromptiml.models.sam import load_sam  # noqa: PLC0415
            from boxpromptiml.segmenters.sam_regions import SamSegmenter  # noqa: PLC0415

            sam, sha256 = load_sam(_weights(config), config.model_type)
            return SamSegmenter(sam, config.model_type, sha256, device, config.points_per_side)
        case "deeplabv3" | "pspnet" | "deeplabv3plus" as network:
            from boxpromptiml.segmenters.networks import NetworkSegmenter, load_network  # noqa: PLC0415

            loaded = load_network(network, _weights(config), config.encoder)
            return NetworkSegmenter(*loaded, device, config.min_fraction, config.max_side)
        case path:
            segmenter: Segmenter = trusted_instance(path, "segmenter.name", Segmenter)
            return segmenter


def _weights(config: SegmenterConfig) -> Path:
    if config.weights is None:
        raise UserError(
            f"segmenter {config.name} needs local weights: --data.segmenter.weights=PATH in "
            f"training, --segmenter.name={config.name} --segmenter.weights=PATH in localize"
        )
    return config.weights


def _slic(config: SegmenterConfig) -> SlicSegmenter:
    return SlicSegmenter(config.segments, config.compactness, max_side=config.max_side)


def _felzenszwalb(config: SegmenterConfig) -> FelzenszwalbSegmenter:
    return FelzenszwalbSegmenter(config.scale, config.sigma, config.min_size, config.max_side)
