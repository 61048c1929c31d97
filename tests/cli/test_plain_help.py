"""Types in help texts."""

import pytest

from boxpromptiml.cli.plain_help import plain_type
from data_prep.__main__ import main


def test_limits_and_modules_are_left_out() -> None:
    path = r"Annotated[str, StringConstraints(pattern='^[^\\W\\d]\\w*$', strict=None)]"
    assert plain_type(f"Union[Literal['sam'], {path}]") == "Union[Literal['sam'], str]"
    side = "Annotated[int, Ge(ge=32), Le(le=4096)]"
    assert plain_type(f"Annotated[tuple[{side}, {side}], Len(2)]") == "tuple[int, int]"
    assert plain_type("list[str]") == "list[str]"


def test_help_shows_such_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pseudo-masks", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "type: Path" in shown
    assert "Annotated" not in shown
