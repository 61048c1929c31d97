"""Older spellings of configuration keys, flags and classes; a warning names the current one."""

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

_logger = logging.getLogger(__name__)

_KEYS = {
    "arms": "variants",
    "box_share": "box_fraction",
    "mask_share": "mask_fraction",
    "min_share": "min_fraction",
    "train_share": "train_fraction",
    "val_share": "val_fraction",
}
_OPTIONS = {  # of one command or job
    "annotate": {"dataset": "name"},
    "complexity": {"model": "checkpoint"},
    "pseudo-masks": {"checkpoint": "teacher_checkpoint"},
    "protocol": {"manifests": "manifest"},
    "forgeries": {"photos": "images"},
}
_INPUT_MODES = ("resize", "native")  # values of `data.input.mode`, which was `data.input.fit`
_CLASSES = {
    "boxpromptiml.reporting.predictions.PredictionWriter": (
        "boxpromptiml.tasks.prediction_writer.PredictionWriter"
    ),
    "boxpromptiml.tasks.checkpoint_io.LocalCheckpointIO": (
        "boxpromptiml.tasks.callbacks.LocalCheckpointIO"
    ),
    "boxpromptiml.tasks.wandb_images.WandbImages": "boxpromptiml.tasks.wandb.WandbImages",
    "boxpromptiml.tasks.wandb_logger.PatientWandbLogger": (
        "boxpromptiml.tasks.wandb.PatientWandbLogger"
    ),
}


def renamed(value: Any) -> Any:
    """A configuration with current names, at any depth.

    Example:
        >>> renamed({"data": {"train_share": 0.5, "input": {"fit": "native"}}})
        {'data': {'train_fraction': 0.5, 'input': {'mode': 'native'}}}
    """
    if isinstance(value, list):
        return [renamed(item) for item in value]
    if not isinstance(value, dict):
        return _today(value, _CLASSES.get(value)) if isinstance(value, str) else value
    result: dict[Any, Any] = {}
    for key, item in value.items():
        new = _key(key, item) if isinstance(key, str) else key
        result[key if new in value else new] = renamed(item)
    return result


def renamed_words(words: Iterable[str], command: str = "") -> list[str]:
    """A command line with current names.

    Args:
        words: Without the program and the command.
        command: Program and command, for options that have another name there.

    Example:
        >>> renamed_words(["fit", "--data.train_share=0.5", "--data.input.fit", "native"])
        ['fit', '--data.train_fraction=0.5', '--data.input.mode', 'native']
    """
    options = _OPTIONS.get(command.rpartition(" ")[2], {})
    return [_word(word, options) for word in words]


def _word(word: str, options: Mapping[str, str]) -> str:
    if not word.startswith("--"):
        return str(renamed(word))
    flag, equals, value = word[2:].partition("=")
    if flag in options:
        _say(f"--{flag}", f"--{options[flag]}")
    return f"--{options.get(flag) or _key(flag, None)}{equals}{renamed(value)}"


def _key(key: str, value: Any) -> str:
    """Current name of a key, which may be dotted."""
    *before, last = key.split(".")
    is_mode = last == "fit" and (value in _INPUT_MODES if not before else before[-1] == "input")
    new = "mode" if is_mode else _KEYS.get(last, last)
    return str(_today(key, ".".join((*before, new))))


def _today(old: str, new: str | None) -> str:
    if new is None or new == old:
        return old
    _say(old, new)
    return new


@cache
def _say(old: str, new: str) -> None:
    _logger.warning("%s is an older name; write %s", old, new)
