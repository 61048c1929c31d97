"""Small networks whose maps are not flat, and their files; each file is made once for all tests."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from filelock import FileLock
from lightning.pytorch import Trainer, seed_everything

from boxpromptiml.inference.calibration import Calibration
from boxpromptiml.inference.checkpoint import build_network
from boxpromptiml.inference.export import describe, export
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.maps import NetworkOutput
from boxpromptiml.inference.spec import ModelSpec, Refinement
from boxpromptiml.models.configs import FusionConfig, StudentConfig, WCBConfig
from boxpromptiml.models.inputs import FloatArray, NetworkInput
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet
from boxpromptiml.segmenters.config import SegmenterConfig
from boxpromptiml.tasks.distill import DistillTask

_SMALL = FusionConfig(width=8, prototypes=4)
CALIBRATION = Calibration(
    temperature=2.0,
    bias=-1.0,
    images=100,
    authentic=40,
    pixels=50_000,
    pixel_thresholds=((0.001, 0.9), (0.01, 0.6), (0.1, 0.2)),
    image_thresholds=((0.05, 0.8), (0.1, 0.7)),
    ece=0.03,
    ece_before=0.2,
)
SPECS = {
    "student": ModelSpec(
        StudentConfig("mobilenetv3_small_050", "srm", stages=(0, 1), fusion=_SMALL),
        NetworkInput("native", (64, 64)),
        0.4,
        trained_on=("allocation and location",),
    ),
    "resized": ModelSpec(
        StudentConfig("mobilenetv3_small_050", stages=(1, 2), fusion=_SMALL),
        NetworkInput("resize", (64, 96)),
        0.5,
        calibration=CALIBRATION,
    ),
    "wcbnet": ModelSpec(
        WCBConfig("mobilenetv3_small_050", stages=(0, 1)),
        NetworkInput("native", (64, 64), (60, 90)),
        0.5,
        refinement=Refinement(SegmenterConfig("slic", segments=30), "pixel"),
    ),
    "tinyvit": ModelSpec(StudentConfig(stages=(0, 1), fusion=_SMALL), NetworkInput(), 0.5),
    "swin": ModelSpec(
        StudentConfig("swin_tiny_patch4_window7_224", stages=(0,), fusion=_SMALL),
        NetworkInput(),
        0.5,
    ),
}


# Exporting one takes eight seconds; the quick suite exports the student alone.
EXPORTED: list[Any] = [
    "student",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("resized", "wcbnet")),
]


class Files(NamedTuple):
    """One network in two files."""

    spec: ModelSpec
    safetensors: Path
    onnx: Path


FileMaker = Callable[[str], Files]


def make_network(spec: ModelSpec) -> Student | WCBNet:
    """The same weights every time, away from those at the start, which say next to nothing."""
    torch.manual_seed(0)
    scale = 0.2 if spec.network.backbone.startswith("mobilenet") else 0.05
    network = build_network(spec)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return network.eval()


def save_student(path: Path, mode: Literal["resize", "native"] = "native") -> Path:
    """A checkpoint as `fit` writes it, of random weights."""
    seed_everything(0, verbose=False)
    config = StudentConfig(
        backbone="mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8)
    )
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(DistillTask(config, NetworkInput(mode, (64, 64))))
    trainer.save_checkpoint(path)
    return path


def brightness(image: FloatArray) -> NetworkOutput:
    """A network whose logit is the brightness of its own pixel."""
    logits = image.mean(1, keepdims=True)
    return NetworkOutput(logits, logits.max((1, 2, 3)))


def file_maker(tmp_path_factory: pytest.TempPathFactory, shared: bool) -> FileMaker:
    """Writes the files of a spec when they are first asked for; see `exported` in conftest.py.

    Args:
        tmp_path_factory: Of the session.
        shared: Whether other processes run tests of the same session: exports take seconds, so
            one process makes them for all.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if shared else root) / "exported"
    folder.mkdir(exist_ok=True)

    @cache
    def files(name: str) -> Files:
        found = Files(SPECS[name], folder / f"{name}.safetensors", folder / f"{name}.onnx")
        with FileLock(folder / f"{name}.lock"):
            if not found.onnx.exists():
                network = make_network(found.spec)
                write_safetensors(found.safetensors, network, describe(network, found.spec))
                export(found.safetensors, found.onnx)
        return found

    return files
