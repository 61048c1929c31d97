"""Weakly supervised image manipulation localization: from coarse boxes to a localizer.

Example:
    from boxpromptiml import Localizer
    prob = Localizer.load("student.ckpt")("photo.jpg")  # (H, W) float32 at the stored size
"""

TYPE_CHECKING = False  # without an import: `python -m boxpromptiml` comes here before its first
if TYPE_CHECKING:
    from boxpromptiml.data.datamodule import LocalizationData
    from boxpromptiml.evaluation.evaluate import evaluate_predictions
    from boxpromptiml.inference.localizer import Localizer
    from boxpromptiml.io.trust import trust
    from boxpromptiml.losses import masked_bce
    from boxpromptiml.manifests.manifest import read_manifest
    from boxpromptiml.models.configs import (
        CamConfig,
        FusionConfig,
        OwnConfig,
        StudentConfig,
        WCBConfig,
    )
    from boxpromptiml.models.inputs import NetworkInput
    from boxpromptiml.records import LocalizerOutput, Proposal
    from boxpromptiml.segmenters.config import SegmenterConfig
    from boxpromptiml.tasks.distill import DistillTask
    from boxpromptiml.tasks.image_label import ImageLabelTask
    from boxpromptiml.teachers.grabcut import GrabCutTeacher
    from boxpromptiml.teachers.sam import SamTeacher

__version__ = "0.1.0"

_MODULES = {  # of the public names, imported on first use: `boxpromptiml --help` needs no torch
    "CamConfig": "models.configs",
    "DistillTask": "tasks.distill",
    "FusionConfig": "models.configs",
    "GrabCutTeacher": "teachers.grabcut",
    "ImageLabelTask": "tasks.image_label",
    "LocalizationData": "data.datamodule",
    "Localizer": "inference.localizer",
    "LocalizerOutput": "records",
    "NetworkInput": "models.inputs",
    "OwnConfig": "models.configs",
    "Proposal": "records",
    "SamTeacher": "teachers.sam",
    "SegmenterConfig": "segmenters.config",
    "StudentConfig": "models.configs",
    "WCBConfig": "models.configs",
    "evaluate_predictions": "evaluation.evaluate",
    "masked_bce": "losses",
    "read_manifest": "manifests.manifest",
    "trust": "io.trust",
}

__all__ = [
    "CamConfig",
    "DistillTask",
    "FusionConfig",
    "GrabCutTeacher",
    "ImageLabelTask",
    "LocalizationData",
    "Localizer",
    "LocalizerOutput",
    "NetworkInput",
    "OwnConfig",
    "Proposal",
    "SamTeacher",
    "SegmenterConfig",
    "StudentConfig",
    "WCBConfig",
    "__version__",
    "evaluate_predictions",
    "masked_bce",
    "read_manifest",
    "trust",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
