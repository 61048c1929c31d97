"""What decides the shape of a network and how its map is read, as plain values; free of PyTorch.

The networks of these configurations are in the modules `student`, `fusion`, `wcbnet` and `cam`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

from boxpromptiml.errors import UserError, refuse_unknown

Memory = Literal["none", "learnable", "ema"]
Residuals = Literal["none", "srm"]
Inputs = Literal["rgb", "sel", "both"]
Pooling = Literal["mean", "dense"]
Method = Literal["classifier", "gradcam", "layercam"]


@dataclass(frozen=True)
class FusionConfig:
    """The parts of the fusion that can be switched.

    Attributes:
        width: Channels of F'_i.
        gates: False sets G_i = 1.
        memory: `none` sets A_final = A_base * G_avg; the rest says how prototypes learn.
        prototypes: K, the size of the memory.
        alpha: Weight of the base attention against the memory's, in (0, 1); where it starts if
            `learn_alpha`, where it stays if not.
        learn_alpha: Whether alpha follows the gradient (through a sigmoid, so it stays in (0, 1)).
        ema_decay: How much of a prototype an update keeps, in [0, 1); `ema` only.
    """

    width: int = 64
    gates: bool = True
    memory: Memory = "learnable"
    prototypes: int = 64
    alpha: float = 0.5
    learn_alpha: bool = True
    ema_decay: float = 0.99

    def __post_init__(self) -> None:
        rules = {
            f"width must be at least 1, got {self.width}": self.width >= 1,
            f"prototypes must be at least 1, got {self.prototypes}": self.prototypes >= 1,
            f"alpha must be in (0, 1), got {self.alpha}": 0 < self.alpha < 1,
            f"ema_decay must be in [0, 1), got {self.ema_decay}": 0 <= self.ema_decay < 1,
            f"memory must be one of {get_args(Memory)}, got {self.memory!r}": self.memory
            in get_args(Memory),
        }
        for message, holds in rules.items():
            if not holds:
                raise UserError(f"fusion: {message}")


@dataclass(frozen=True)
class StudentConfig:
    """Everything that decides the shape of a student; travels in its checkpoint.

    Attributes:
        backbone: Name of a timm model.
        residuals: Extra input channels beside RGB.
        truncation: T of the residuals, in grey levels of an 8-bit image.
        stages: Which maps of the backbone are fused, ascending, 0 the finest.
        fusion: Switches of the fusion.
    """

    backbone: str = "tiny_vit_5m_224"
    residuals: Residuals = "none"
    truncation: float = 3.0
    stages: tuple[int, ...] = (0, 1, 2, 3)
    fusion: FusionConfig = field(default_factory=FusionConfig)

    def __post_init__(self) -> None:
        if self.residuals not in get_args(Residuals):
            raise UserError(
                f"residuals must be one of {get_args(Residuals)}, got {self.residuals!r}"
            )
        if not self.truncation > 0:
            raise UserError(f"truncation must be above 0, got {self.truncation}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a checkpoint."""
        return asdict(self) | {"stages": list(self.stages)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; keys left out take their defaults.

        Raises:
            UserError: An unknown key, or a value out of range.
        """
        fusion = values.get("fusion", {})
        refuse_unknown(values, cls, "student")
        refuse_unknown(fusion, FusionConfig, "student.fusion")
        parts: dict[str, Any] = {"fusion": FusionConfig(**fusion)}
        if "stages" in values:
            parts["stages"] = tuple(values["stages"])
        return cls(**(values | parts))


@dataclass(frozen=True)
class WCBConfig:
    """Everything that decides the shape of a WCBnet; travels in its checkpoint.

    Attributes:
        backbone: Name of a convolutional timm model.
        inputs: What the backbone sees: the photograph, its signed error levels, or both.
        stages: Which blocks of the backbone, ascending, 0 the finest.
        weighting: Cross-block attention; False gives every block the same weight.
        pooling: `mean` over the map; `dense` adds the strongest cell of 2 x 2, 4 x 4 and 8 x 8
            grids, so that a small region is not averaged away.
    """

    backbone: str = "mobilenetv3_small_100"
    inputs: Inputs = "both"
    stages: tuple[int, ...] = (0, 1, 2, 3)
    weighting: bool = True
    pooling: Pooling = "dense"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("inputs", self.inputs, get_args(Inputs)),
            ("pooling", self.pooling, get_args(Pooling)),
        ):
            if value not in allowed:
                raise UserError(f"wcbnet.{name} must be one of {allowed}, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for a checkpoint."""
        return asdict(self) | {"stages": list(self.stages)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; keys left out take their defaults.

        Raises:
            UserError: An unknown key, or a value out of range.
        """
        refuse_unknown(values, cls, "wcbnet")
        stages = {"stages": tuple(values["stages"])} if "stages" in values else {}
        return cls(**(values | stages))


@dataclass(frozen=True)
class CamConfig:
    """How a map is read off a trained classifier; it has no part in the training.

    Attributes:
        method: See `models.cam`; the gradient methods cost a backward pass a block.
        view: Index of the one block whose map is used; None fuses all by the block weights.
    """

    method: Method = "classifier"
    view: int | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(f"cam.method must be one of {get_args(Method)}, got {self.method!r}")
        if self.view is not None and self.view < 0:
            raise UserError(f"cam.view must be 0 or more, got {self.view}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a checkpoint."""
        return asdict(self)
