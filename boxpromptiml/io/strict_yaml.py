"""YAML without aliases, deep nesting and repeated keys, so that small files stay small."""

from pathlib import Path
from typing import Any

import yaml

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import read_text

_MAX_DEPTH = 50
MAX_BYTES = 2**22  # 4 MiB; a configuration has a few kilobytes

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str) -> None:
    """Check the structure of a YAML document before anything is built from it.

    Raises:
        yaml.YAMLError: If it is not YAML, uses aliases (a few lines can expand to more than memory
            holds), gives a key twice, holds NUL, or is nested more than 50 deep.
    """
    open_nodes: list[set[str] | None] = []  # the keys so far of a mapping; None for a sequence
    key_is_next: list[bool] = []
    for event in yaml.parse(text, Loader=_Loader):
        _refuse(event)
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            open_nodes.pop()
            key_is_next.pop()
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        if open_nodes and open_nodes[-1] is not None:
            if key_is_next[-1] and isinstance(event, yaml.ScalarEvent):
                if event.value in open_nodes[-1]:
                    raise yaml.YAMLError(f"the key {event.value!r} is given twice")
                open_nodes[-1].add(event.value)
            key_is_next[-1] = not key_is_next[-1]
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(open_nodes) == _MAX_DEPTH:
                raise yaml.YAMLError(f"is nested more than {_MAX_DEPTH} deep")
            open_nodes.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
            key_is_next.append(True)


def _refuse(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise yaml.YAMLError(f"aliases (*{event.anchor}) are not supported")
    if isinstance(event, yaml.ScalarEvent) and "\0" in event.value:
        raise yaml.YAMLError("no name or path may hold NUL")


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        UserError: Naming the file, if it cannot be read, is too large, or is refused by
            `check_yaml`.
    """
    text = read_text(path, MAX_BYTES)
    try:
        check_yaml(text)
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:  # ValueError: a date such as 2024-13-45
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")
        raise UserError(f"{path}: cannot be read: {reason}") from error
