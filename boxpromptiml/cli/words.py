"""Converts the words of a command line into the form that jsonargparse accepts."""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from boxpromptiml.errors import UserError
from boxpromptiml.io.experiments import find_experiment
from boxpromptiml.io.files import read_text
from boxpromptiml.io.strict_yaml import MAX_BYTES

_MAX_DIGITS = 300
_CONFIG = ("-c", "--config")
_MANIFESTS = ("--data.train", "--data.val", "--data.test", "--data.predict")


def complete(args: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """The words as jsonargparse accepts them: `--images a b` as a list, `--verify` as true.

    A tuple may be written as a list is. One value alone remains a number.

    Example:
        >>> def f(images: list[str], out: str, verify: bool = False): ...
        >>> complete(["--images", "a", "b", "--verify", "--out", "c"], f)
        ['--images=["a", "b"]', '--verify=true', '--out', 'c']
        >>> def g(seeds: list[int] | None = None): ...
        >>> complete(["--seeds", "0", "1"], g)
        ['--seeds=[0, 1]']
        >>> def h(quality: int | tuple[int, int] = 90): ...
        >>> complete(["--quality", "75", "98"], h) + complete(["--quality", "75"], h)
        ['--quality=[75, 98]', '--quality=75']

    Raises:
        UserError: If a list is given twice, of which the first would be lost.
    """
    types = {f"--{p.name}": p.annotation for p in inspect.signature(function).parameters.values()}
    words: list[str] = []
    rest = list(args)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        item, is_tuple = _items(types.get(word))
        if item is not None and any(done.startswith(f"{word}=") for done in words):
            raise UserError(f"{word} is given twice; write all its values behind one: {word} A B")
        if item is not None and not value.startswith("["):
            values = [value] if value else []
            while rest and not rest[0].startswith("--"):
                values.append(rest.pop(0))
            numbers = f"[{', '.join(values)}]"
            if is_tuple and len(values) == 1:
                (numbers,) = values
            words.append(f"{word}={numbers if item in (int, float) else json.dumps(values)}")
        elif types.get(word) is bool and not equals and (not rest or rest[0].startswith("--")):
            words.append(f"{word}=true")
        else:
            words.append(f"{word}{equals}{value}")
    return words


def _with_values(words: Sequence[str], changed: Callable[[str, str], str]) -> list[str]:
    """The words with `changed(flag, value)` for each value, of `--flag=value` or `--flag value`."""
    found: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if equals and flag.startswith("-"):
            found.append(f"{flag}={changed(flag, value)}")
        elif found and found[-1].startswith("-") and "=" not in found[-1]:
            found.append(changed(found[-1], word))
        else:
            found.append(word)
    return found


def with_experiments(words: Sequence[str]) -> list[str]:
    """The words with paths for the names of packaged experiments, as values of `--config`.

    Example:
        >>> with_experiments(["fit", "--config=mine.yaml", "--config", "other.yaml"])
        ['fit', '--config=mine.yaml', '--config', 'other.yaml']
    """
    return _with_values(words, lambda flag, v: find_experiment(v) if flag in _CONFIG else v)


def check_values(words: Sequence[str]) -> None:
    """Refuse what jsonargparse fails on: configurations that are no text, numbers without bound.

    Raises:
        UserError: If a file behind `--config` is no regular file (a pipe may never end), too large,
            or not UTF-8; if a number has more digits than any float.
    """

    def check(flag: str, value: str) -> str:
        if len(value) > _MAX_DIGITS and value.lstrip("+-").isdecimal():
            raise UserError(f"{flag}={value[:20]}...: is too large a number")
        if flag in _CONFIG and Path(value).exists() and not Path(value).is_dir():
            read_text(Path(value), MAX_BYTES)
        return value

    _with_values(words, check)


def with_underscores(words: Sequence[str]) -> list[str]:
    """The words with `_` for `-` inside the names of options.

    Example:
        >>> with_underscores(["--max-pixels=9", "--data.batch-size", "2", "a-b.jpg"])
        ['--max_pixels=9', '--data.batch_size', '2', 'a-b.jpg']
    """
    found = []
    for word in words:
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("--")
        found.append(f"--{name.replace('-', '_')}{equals}{value}" if name != flag else word)
    return found


def with_ckpt_path(words: Sequence[str]) -> list[str]:
    """The words of `validate`, `test` or `predict` with Lightning's name for `--checkpoint FILE`.

    Example:
        >>> with_ckpt_path(["test", "--checkpoint", "a.ckpt", "--checkpoint.monitor=x"])
        ['test', '--ckpt_path', 'a.ckpt', '--checkpoint.monitor=x']
    """
    if words[0] == "fit":  # may go on or begin with a checkpoint: its options say which
        return list(words)
    return [re.sub(r"^--checkpoint(?=$|=)", "--ckpt_path", word) for word in words]


def in_lists(words: Sequence[str]) -> list[str]:
    """The words with a single manifest of `data` as a list of one.

    Example:
        >>> in_lists(["fit", "--data.val=a.jsonl", "--data.test", "b.jsonl", "--data.train=[c]"])
        ['fit', '--data.val=["a.jsonl"]', '--data.test', '["b.jsonl"]', '--data.train=[c]']
    """
    return _with_values(words, lambda flag, v: _in_list(v) if flag in _MANIFESTS else v)


def _in_list(value: str) -> str:
    return value if value.startswith("[") or value in ("", "null") else json.dumps([value])


def read_none(words: Sequence[str]) -> list[str]:
    """The words with `null` in place of `None`, which some programs write for no value.

    Example:
        >>> read_none(["fit", "--data.cache=None", "--model.pretrained", "None", "--out", "None/a"])
        ['fit', '--data.cache=null', '--model.pretrained', 'null', '--out', 'None/a']
    """
    return _with_values(words, lambda _, value: "null" if value == "None" else value)


def _items(annotation: object) -> tuple[object, bool]:
    """The item type X of `list[X]`, `tuple[X, ...]` or a union with one, and if it is a tuple.

    (None, False) for other types.
    """
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) in (list, tuple):
            return get_args(kind)[0], get_origin(kind) is tuple
    return None, False
