"""Which teacher a command uses, and with which options."""

import math
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from boxpromptiml.errors import UserError
from boxpromptiml.io.trust import ImportPath, is_import_path, trust, trusted_instance, trusted_names
from boxpromptiml.records import BoxArray, Description, ImageArray, ModelType, Proposal, Teacher
from boxpromptiml.teachers.grabcut import GrabCutTeacher

TeacherName = Literal["grabcut", "sam"] | ImportPath
EncoderPrecision = Literal["fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class SamOptions:
    """Options of the SAM teacher.

    Attributes:
        device: Where the network runs, such as `cpu` or `cuda:0`.
        multimask: Choose among SAM's three masks a box; otherwise take its single one.
        margin: Masks may leave the box by this fraction of its width and height on every side.
        box_batch: Boxes decoded together. None: 1 on a CPU, where larger batches are slower
            (measured: 16 boxes take up to twice as long), 64 elsewhere.
        precision: Of the image encoder; the decoder runs in float32. bf16 is about twice as fast
            where the processor supports it, and moves edges of masks.

    Raises:
        UserError: If an option is out of range.
    """

    device: str = "cpu"
    multimask: bool = True
    margin: float = 0.1
    box_batch: int | None = None
    precision: EncoderPrecision = "fp32"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise UserError(f"margin must be 0 or more, got {self.margin}")
        if self.box_batch is not None and self.box_batch < 1:
            raise UserError(f"box_batch must be 1 or more, got {self.box_batch}")
        if self.precision not in get_args(EncoderPrecision):
            raise UserError(f"precision must be fp32 or bf16, got {self.precision!r}")


DEFAULT_OPTIONS = SamOptions()


def make_teacher(
    name: TeacherName,
    checkpoint: Path | None = None,
    model_type: ModelType | None = None,
    device: str = "auto",
    multimask: bool | None = None,
    margin: float | None = None,
    precision: EncoderPrecision | None = None,
) -> Teacher:
    """Build a teacher; SAM and torch are imported only where they are needed.

    Args:
        name: `grabcut` has no weights and uses none of the following options; `sam` needs a
            checkpoint. Or the import path of a class or function that gives a `Teacher` when it is
            called without arguments, if its code is trusted (`io.trust`).
        checkpoint: SAM's weights, a local `.pth` or `.safetensors` file.
        model_type: SAM's architecture; `vit_h` by default, `vit_t` is MobileSAM.
        device: Where SAM runs; auto for a GPU if PyTorch finds one.
        multimask: As in `SamOptions`, whose defaults stand for None here and below.
        margin: As in `SamOptions`.
        precision: As in `SamOptions`.

    Raises:
        UserError: If there is no such teacher, `sam` has no checkpoint, and as
            `SamTeacher.from_checkpoint` does.
    """
    options = {"multimask": multimask, "margin": margin, "precision": precision}
    given = {option: value for option, value in options.items() if value is not None}
    if name == "grabcut":
        return GrabCutTeacher()
    if name != "sam":
        return _own(name)
    if checkpoint is None:
        raise UserError("--teacher sam needs --teacher_checkpoint FILE (.pth or .safetensors)")
    from boxpromptiml.teachers.sam import SamTeacher  # noqa: PLC0415

    return SamTeacher.from_checkpoint(
        checkpoint,
        model_type or "vit_h",
        SamOptions(device, **given),  # type: ignore[arg-type] # values of the types above
    )


@dataclass
class TeacherOnDemand:
    """A teacher that every process builds for itself when it first needs it.

    Attributes:
        make: Builds it; is pickled.
        settings: Of the teacher that the job is about.
        trusted: Code that it may run in another process, as in this one.
    """

    make: Callable[[], Teacher]
    settings: Description
    trusted: Sequence[str] = field(default_factory=trusted_names)
    _made: Teacher | None = field(default=None, init=False)

    def propose(self, image: ImageArray, boxes: BoxArray) -> Iterable[Proposal]:
        """Proposals of the built teacher.

        Raises:
            UserError: If it differs here, for instance in the version of a package.
        """
        if self._made is None:
            trust(self.trusted)
            self._made = self.make()
            if self._made.settings != self.settings:
                raise UserError(
                    f"{platform.node()}: the teacher here is {self._made.settings}, not "
                    f"{self.settings}; install the same versions on every node"
                )
        return self._made.propose(image, boxes)


def _own(path: str) -> Teacher:
    """A teacher by import path."""
    if not is_import_path(path):
        raise UserError(
            f"--teacher {path}: is neither grabcut nor sam, nor a path as mylab.Teacher"
        )
    teacher: Teacher = trusted_instance(path, "--teacher", Teacher)
    return teacher
