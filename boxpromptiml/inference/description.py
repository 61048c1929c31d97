"""The description in a file to hand on: JSON under one name, in `.safetensors` and in `.onnx`.

It is what `models.card.Card` writes, and what else a program without our code must know, below
`exported`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError

DESCRIPTION_KEY = "boxpromptiml"
OTHER_FILE = "location"  # the word by which an ONNX graph refers to a file beside it


def to_json(description: Mapping[str, Any]) -> str:
    """One line of JSON in which `OTHER_FILE` never occurs."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return text.replace(OTHER_FILE, f"\\u{ord(OTHER_FILE[0]):04x}{OTHER_FILE[1:]}")


def from_json(text: str | None, path: Path) -> dict[str, Any]:
    """The inverse of `to_json`, of a text found in `path`.

    Raises:
        UserError: There is none, or it is no JSON object.
    """
    if text is None:
        raise UserError(f"{path}: says nothing of itself; make it with `boxpromptiml export`")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its description is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: its description is damaged: not a JSON object")
    return values
