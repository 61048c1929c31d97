"""JSON without the leniencies of `json.loads`."""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import read_text

T = TypeVar("T")


def parse_json(text: str, where: str) -> Any:
    """`json.loads` that refuses duplicate keys, NaN, 1e999, and bottomless nesting.

    Raises:
        UserError: Beginning with `where`.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("the same key twice in one object")
        return value

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number} is too large a number")
        return value

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file that somebody else may have put there.

    Raises:
        UserError: Naming the file, as `files.read_bytes` and `parse_json`.
    """
    return parse_json(read_text(path), str(path))


def read_as(adapter: TypeAdapter[T], path: Path) -> T:
    """The value of a JSON file of a known type.

    Raises:
        UserError: Naming the file and the field, as `files.read_bytes` and `parse_as`.
    """
    return parse_as(adapter, read_text(path), str(path))


def parse_as(adapter: TypeAdapter[T], text: str, where: str) -> T:
    """JSON of a known type.

    Raises:
        UserError: Beginning with `where`.
    """
    parse_json(text, where)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {place}: {first['msg']}") from error
