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
    from boxpromptiml.manifests.manifest import read_manifest
    from boxpromptiml.tasks.distill import DistillTask
    from boxpromptiml.tasks.image_label import ImageLabelTask
    from boxpromptiml.teachers.grabcut import GrabCutTeacher
    from boxpromptiml.teachers.sam import SamTeacher

__version__ = "0.1.0"

_MODULES = {  # of the public names, imported on first use: `boxpromptiml --help` needs no torch
    "DistillTask": "tasks.distill",
    "GrabCutTeacher": "teachers.grabcut",
    "ImageLabelTask": "tasks.image_label",
    "LocalizationData": "data.datamodule",
    "Localizer": "inference.localizer",
    "SamTeacher": "teachers.sam",
    "evaluate_predictions": "evaluation.evaluate",
    "read_manifest": "manifests.manifest",
}

__all__ = [
    "DistillTask",
    "GrabCutTeacher",
    "ImageLabelTask",
    "LocalizationData",
    "Localizer",
    "SamTeacher",
    "__version__",
    "evaluate_predictions",
    "read_manifest",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
