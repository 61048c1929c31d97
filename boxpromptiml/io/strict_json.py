"""JSON without the leniencies of `json.loads`, and records that hold what their types say."""

import json
import math
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import read_text

T = TypeVar("T")
_ESCAPED_BYTE = re.compile(r"\\ud[c-f]", re.IGNORECASE)


def parse_json(text: str, where: str) -> Any:
    """`json.loads` that refuses duplicate keys, NaN, 1e999 and longer integers, bottomless nesting.

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
            raise ValueError(f"{number[:20]} is too large a number")
        return value

    def whole(number: str) -> int:
        if len(number) > 18:
            finite(number)  # else every later division or formatting would have to expect it
        return int(number)

    try:
        return json.loads(
            text, object_pairs_hook=unique, parse_constant=refuse, parse_float=finite,
            parse_int=whole,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file that somebody else may have put there.

    Raises:
        UserError: Naming the file, as `files.read_bytes` and `parse_json`.
    """
    return parse_json(read_text(path), str(path))


def read_as(adapter: TypeAdapter[T], path: Path, strict: bool = False) -> T:
    """The value of a JSON file of a known type.

    Raises:
        UserError: Naming the file and the field, as `files.read_bytes` and `parse_as`.
    """
    return parse_as(adapter, read_text(path), str(path), strict)


def parse_as(
    adapter: TypeAdapter[T], text: str, where: str, strict: bool = False, file_names: bool = False
) -> T:
    """JSON of a known type.

    Args:
        adapter: The type.
        text: One JSON value.
        where: Beginning of messages.
        strict: Whether a value of another JSON type is refused even if it could be converted.
        file_names: Whether texts may be names that are not UTF-8, escaped as by `files.json_line`.

    Raises:
        UserError: Beginning with `where`.
    """
    value = parse_json(text, where)
    try:
        if file_names and _ESCAPED_BYTE.search(text):  # pydantic's own parser refuses them
            return adapter.validate_python(value)
        return adapter.validate_json(text, strict=strict or None)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:200]
        raise UserError(": ".join(filter(None, (where, place, first["msg"])))) from error


def check_fields(record: object, where: str) -> None:
    """Hold every field of a dataclass to its annotation: type, choices and limits.

    To be called in `__post_init__`; the limits are those of `annotated_types`. Numbers must be
    finite.

    Raises:
        UserError: With the first field that does not fit, as `where.field`.
    """
    kind: Any = type(record)
    for name, adapter in _adapters(kind).items():
        value = getattr(record, name)
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            shown = repr(value) if isinstance(value, (str, int, float)) else type(value).__name__
            raise UserError(f"{where}.{name}: {message}, got {shown[:80]}") from error


@cache
def _adapters(kind: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    finite = ConfigDict(allow_inf_nan=False)
    return {
        field.name: TypeAdapter(hint, config=None if is_dataclass(hint) else finite)
        for field in fields(kind)
        for hint in [hints[field.name]]
    }
