"""Configurations of networks and of activation maps, as plain values without PyTorch.

The networks of these configurations are in the modules `student`, `fusion`, `wcbnet` and `cam`.
Every value has limits, since a configuration may come from an untrusted checkpoint; they are far
above useful values and far below what exhausts a machine.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import ConfigDict

from boxpromptiml.io.strict_json import check_fields
from boxpromptiml.io.trust import ImportPath

# Of every record that a model's file may hold.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Memory = Literal["none", "learnable", "ema"]
MapSource = Literal["residual", "multiply", "attention"]
Residuals = Literal["none", "srm"]
Inputs = Literal["rgb", "sel", "both"]
Pooling = Literal["mean", "dense"]
Method = Literal["classifier", "gradcam", "layercam"]
BackboneName = Annotated[str, MaxLen(200)]
Stage = Annotated[int, Ge(0), Le(31)]
Stages = Annotated[tuple[Stage, ...], MinLen(1), MaxLen(16)]
_Mean = Annotated[float, Ge(0), Le(1)]
_Std = Annotated[float, Ge(1e-3), Le(1e3)]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RgbMean = tuple[_Mean, _Mean, _Mean]
RgbStd = tuple[_Std, _Std, _Std]


@dataclass(frozen=True)
class FusionConfig:
    """Switches of the fusion.

    Attributes:
        width: Channels of F'_i.
        gates: False sets G_i = 1.
        memory: `none` sets A_final = A_base * G_avg; `learnable` and `ema` say how prototypes are
            updated.
        prototypes: K, the size of the memory.
        alpha: Weight of the base attention against the memory's, in (0, 1); the initial value if
            `learn_alpha`, else constant.
        learn_alpha: Whether alpha is trained (through a sigmoid, so it stays in (0, 1)).
        ema_decay: Fraction of a prototype that an update keeps, in [0, 1); `ema` only.
        output: What the map is read off: a head on features refined by the attention (`residual`,
            `multiply`), or the attention itself; see `models.fusion`.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    width: Annotated[int, Ge(1), Le(4096)] = 64
    gates: bool = True
    memory: Memory = "learnable"
    prototypes: Annotated[int, Ge(1), Le(65_536)] = 64
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.5
    learn_alpha: bool = True
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.99
    output: MapSource = "residual"

    def __post_init__(self) -> None:
        check_fields(self, "fusion")


@dataclass(frozen=True)
class StudentConfig:
    """Architecture of a student; stored in its checkpoint.

    Attributes:
        backbone: Name of a timm model.
        residuals: Additional input channels beside RGB.
        truncation: T of the residuals, in grey levels of an 8-bit image.
        stages: Which maps of the backbone are fused, ascending, 0 the finest.
        fusion: Switches of the fusion.
        image_head: Whether the image score is trained (see `student.ImageHead`) or computed from
            the map alone, as in the paper.
        rgb_mean: Subtracted from RGB in [0, 1]; None: as timm's configuration of the backbone says.
        rgb_std: RGB is divided by it afterwards; None: as above.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    backbone: BackboneName = "tiny_vit_5m_224"
    residuals: Residuals = "none"
    truncation: Annotated[float, Gt(0), Le(255)] = 3.0
    stages: Stages = (0, 1, 2, 3)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    image_head: bool = False
    rgb_mean: RgbMean | None = None
    rgb_std: RgbStd | None = None

    def __post_init__(self) -> None:
        check_fields(self, "student")


@dataclass(frozen=True)
class WCBConfig:
    """Architecture of a WCBnet; stored in its checkpoint.

    Attributes:
        backbone: Name of a convolutional timm model.
        inputs: Input of the backbone: the photograph, its signed error levels, or both.
        stages: Which blocks of the backbone, ascending, 0 the finest.
        weighting: Cross-block attention; False gives every block the same weight.
        pooling: `mean` over the map, so that a map of the classifier's evidence is what each place
            adds to the score; `dense` adds the strongest cell of 2 x 2, 4 x 4 and 8 x 8 grids, so
            that a small region is not averaged away, but then the score depends on those cells
            alone and the map shows what a place would add if the whole image looked like it.
        rgb_mean: Subtracted from RGB in [0, 1]; None: as timm's configuration of the backbone says.
        rgb_std: RGB is divided by it afterwards; None: as above.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    backbone: BackboneName = "mobilenetv3_small_100"
    inputs: Inputs = "both"
    stages: Stages = (0, 1, 2, 3)
    weighting: bool = True
    pooling: Pooling = "mean"
    rgb_mean: RgbMean | None = None
    rgb_std: RgbStd | None = None

    def __post_init__(self) -> None:
        check_fields(self, "wcbnet")


@dataclass(frozen=True)
class OwnConfig:
    """A network that is not part of this package.

    Attributes:
        path: Import path of a class of modules that map inputs (B, 3 + 3 Q, h, w), RGB in [0, 1]
            and signed error levels of Q JPEG qualities, to `LocalizerOutput`. Its code must be
            trusted wherever its checkpoints are used.
        options: Arguments of the class.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    rgb_mean: ClassVar[None] = None  # the network normalises RGB as it likes
    rgb_std: ClassVar[None] = None
    path: ImportPath
    options: Annotated[dict[str, bool | int | float | str], MaxLen(100)] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        check_fields(self, "network")

    @property
    def backbone(self) -> str:
        """What stands where the other networks name their backbone."""
        return self.path


@dataclass(frozen=True)
class CamConfig:
    """How a map is computed from a trained classifier; it does not affect training.

    Attributes:
        method: See `models.cam`; the gradient methods cost a backward pass for every block.
        view: Index of the one block whose map is used; None fuses all by the block weights.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    method: Method = "classifier"
    view: Stage | None = None

    def __post_init__(self) -> None:
        check_fields(self, "cam")
