"""JSON without leniencies, as text and as a file."""

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from boxpromptiml.errors import UserError
from boxpromptiml.io.strict_json import parse_as, parse_json, read_as, read_json

REFUSED = {
    '{"a": 1, "a": 2}': "same key twice",
    '{"x": {"a": 1, "a": 1}}': "same key twice",
    "NaN": "NaN is not JSON",
    "[-Infinity]": "-Infinity is not JSON",
    "1e999": "too large",
    "1" + 400 * "0": "too large",
    "-1" + 5000 * "0": "too large",
    "[" * 100_000: "recursion|nest",
    "[1,": "Expecting value",
    "": "Expecting value",
}


@pytest.mark.parametrize(("text", "why"), REFUSED.items(), ids=[t[:16] for t in REFUSED])
def test_what_is_no_json_is_refused(text: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^here: not valid JSON: .*({why})"):
        parse_json(text, "here")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_values_arrive_as_json_loads_gives_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null, "é"]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None, "é"]}


def test_a_wrong_type_names_the_field(tmp_path: Path) -> None:
    adapter = TypeAdapter(dict[str, list[int]])
    assert parse_as(adapter, '{"a": [1]}', "here") == {"a": [1]}
    with pytest.raises(UserError, match=r"^here: a\.1: Input should be a valid integer"):
        parse_as(adapter, '{"a": [1, "x"]}', "here")
    (tmp_path / "a.json").write_text('{"a": [1, "x"]}')
    with pytest.raises(UserError, match=r"a\.json: a\.1: Input should be"):
        read_as(adapter, tmp_path / "a.json")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="not a regular file"):
        read_json(tmp_path / "a.json")
