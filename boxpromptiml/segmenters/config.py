"""Which segmenter, with which settings: one flat record for YAML files and checkpoints."""

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.records import ModelType, Segmenter
from boxpromptiml.segmenters.cache import CachedSegmenter
from boxpromptiml.segmenters.superpixels import FelzenszwalbSegmenter, SlicSegmenter

SegmenterName = Literal[
    "none", "slic", "felzenszwalb", "deeplabv3", "pspnet", "deeplabv3plus", "sam"
]

_PATHS = ("weights", "cache")  # of this machine; they stay out of checkpoints
_RENAMED = {"min_share": "min_fraction"}  # keys of older checkpoints


@dataclass(frozen=True)
class SegmenterConfig:
    """A segmenter by name. Settings that do not belong to it are ignored.

    Attributes:
        name: slic and felzenszwalb need no weights, the networks and sam do; none: no regions.
        weights: A local weights file, or a `save_pretrained` folder for pspnet and deeplabv3plus.
        encoder: pspnet, deeplabv3plus: the encoder's name, where `weights` is a file.
        model_type: sam: which one the weights are.
        segments: slic: regions asked for.
        compactness: slic: weight of nearness against colour.
        scale: felzenszwalb: higher gives fewer, larger regions.
        sigma: felzenszwalb: Gaussian smoothing before, in pixels.
        min_size: felzenszwalb: smaller regions are merged, in pixels.
        min_fraction: Networks: parts below this share of the image are no region.
        points_per_side: sam: prompts in a row and in a column of the grid.
        max_side: All but sam, which sees 1024: larger images are reduced to this many pixels on
            the longer side.
        cache: Folder that keeps the regions of every image seen.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: SegmenterName = "slic"
    weights: Path | None = None
    encoder: str | None = None
    model_type: ModelType = "vit_h"
    segments: int = 200
    compactness: float = 10.0
    scale: float = 50.0
    sigma: float = 0.8
    min_size: int = 100
    min_fraction: float = 0.0005
    points_per_side: int = 32
    max_side: int = 512
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(SegmenterName):
            raise UserError(f"segmenter {self.name!r} is none of {get_args(SegmenterName)}")
        _slic(self), _felzenszwalb(self)  # they check their own settings
        if self.weights is not None and self.name in ("none", "slic", "felzenszwalb"):
            raise UserError(f"segmenter {self.name} has no weights: name the network they are of")
        if not 0 <= self.min_fraction < 1:
            raise UserError(f"segmenter: min_fraction must be in [0, 1), got {self.min_fraction}")
        if self.points_per_side < 1:
            raise UserError("segmenter: points_per_side must be 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the paths of this machine."""
        return {key: value for key, value in asdict(self).items() if key not in _PATHS}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; keys left out take their defaults.

        Raises:
            UserError: An unknown key (paths are unknown here), a value of another type or out of
                range.
        """
        if not isinstance(values, dict):
            raise UserError(f"segmenter: must be an object of settings, got {values!r}")
        values = {_RENAMED.get(key, key): value for key, value in values.items()}
        if found := sorted(set(values) & set(_PATHS)):
            raise UserError(f"segmenter: {found} may not come from a checkpoint")
        try:
            return TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in error.errors()
            )
            raise UserError(f"segmenter: {problems}") from error
        except TypeError as error:
            raise UserError(f"segmenter: not plain values: {error}") from error


def build_segmenter(config: SegmenterConfig, device: str = "cpu") -> Segmenter | None:
    """The segmenter that a configuration names, None for `none`.

    Args:
        device: Where networks run, such as `cpu` or `cuda:0`.

    Raises:
        UserError: Weights are missing or do not fit, there is no such device, or scikit-image is
            not installed (as beside an exported network alone).
    """
    if config.name in ("slic", "felzenszwalb") and find_spec("skimage") is None:
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
            from boxpromptiml.segmenters.sam_regions import SamSegmenter  # noqa: PLC0415

            return SamSegmenter.from_checkpoint(
                _weights(config), config.model_type, device, config.points_per_side
            )
        case "deeplabv3" | "pspnet" | "deeplabv3plus":
            from boxpromptiml.segmenters.networks import NetworkSegmenter  # noqa: PLC0415

            return NetworkSegmenter.from_weights(
                config.name,
                _weights(config),
                config.encoder,
                device,
                config.min_fraction,
                config.max_side,
            )


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
