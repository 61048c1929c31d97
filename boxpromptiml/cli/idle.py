"""Options of `fit` that have no effect beside others."""

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_args

from jsonargparse import Namespace

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.supervision import SourceWeights
from boxpromptiml.io.options import Need
from boxpromptiml.models.configs import Memory
from boxpromptiml.segmenters.config import SETTINGS
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.image_label import ImageLabelTask

_MEMORIES = tuple(kind for kind in get_args(Memory) if kind != "none")
_FUSION = "model.student.fusion"

NEEDS = (
    Need(tuple(f"data.weights.{f.name}" for f in fields(SourceWeights)), "data.supervision",
         ("mixed",)),
    Need(("data.soft_unsure", "data.teacher_signature"), "data.supervision", ("pseudo", "mixed")),
    *(Need((f"data.segmenter.{setting}",), "data.segmenter.name", names)
      for setting, names in SETTINGS.items()),
    Need(("model.prior",), "data.segmenter.name", ()),
    Need(("model.student.truncation",), "model.student.residuals", ("srm",)),
    Need((f"{_FUSION}.prototypes", f"{_FUSION}.alpha", f"{_FUSION}.learn_alpha", "model.memory_lr"),
         f"{_FUSION}.memory", _MEMORIES),
    Need((f"{_FUSION}.ema_decay",), f"{_FUSION}.memory", ("ema",)),
)  # fmt: skip
_OTHERS = {need.other for need in NEEDS}
_TASKS = {task.__name__: task for task in (DistillTask, ImageLabelTask)}


def refuse_idle(config: Namespace, words: Sequence[str]) -> None:
    """Refuse options of the command line that have no effect on a training.

    Values of configuration files pass, since a later file, such as an ablation's, may have made
    them idle.

    Args:
        config: The whole configuration of `fit`.
        words: The command line, with current names.

    Raises:
        UserError: Names the option and the one that it depends on.
    """
    task = _TASKS.get(config.model.class_path.rpartition(".")[2])
    named = {_bare(word) for word in words if word.startswith("--")} - {"data", "model"}

    def standard(option: str) -> Any:
        return default(LocalizationData if option.startswith("data.") else task, option)

    def given(option: str) -> Any:
        counts = option in _OTHERS or any(f"{option}.".startswith(f"{one}.") for one in named)
        key = option.replace("model.", "model.init_args.", 1)
        return config.get(key, standard(option)) if counts else standard(option)

    for need in NEEDS:
        if need.options[0].startswith("data.") or _has(task, need.options[0]):
            need.refuse(given, standard)


def default(owner: Any, option: str) -> Any:
    """The default of an option such as `data.weights.cam`, from the signature of its class."""
    _, parameter, *parts = option.split(".")
    value = inspect.signature(owner).parameters[parameter].default
    for part in parts:
        value = getattr(value, part)
    return value


def _has(owner: Any, option: str) -> bool:
    return owner is not None and option.split(".")[1] in inspect.signature(owner).parameters


def _bare(word: str) -> str:
    """`--model.init_args.lr=1` as `model.lr`."""
    key = word[2:].partition("=")[0]
    return ".".join(part for part in key.split(".") if part != "init_args")
