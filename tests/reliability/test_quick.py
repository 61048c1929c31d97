"""The quick form of every promise of docs/reliability.md; the long forms are started by hand."""

import time
from pathlib import Path

import pytest

from tests.helpers.commands import run
from tests.reliability.__main__ import LONG, QUICK, with_rows
from tests.reliability.faults import AtWrite
from tests.reliability.kills import command
from tests.reliability.material import make_manifest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # damaged files: Pillow has much to say
@pytest.mark.parametrize("number", QUICK)
def test_promise(number: str, tmp_path: Path) -> None:
    figure = QUICK[number](tmp_path)
    if figure.met is None:
        pytest.skip(figure.reached)
    assert figure.faults == (), figure.reached


def test_every_promise_has_a_long_form() -> None:
    assert LONG.keys() == QUICK.keys()


@pytest.mark.slow
def test_a_fault_is_really_caused(tmp_path: Path) -> None:
    """Without it the campaign would pass on anything."""
    manifest = make_manifest(tmp_path, 2)
    killed = run(command(manifest, tmp_path / "out"), AtWrite(1, "half"))
    assert killed.status == -9
    assert killed.crashed
    assert len(list((tmp_path / "out").rglob(".*.tmp"))) == 1
    full = run(command(manifest, tmp_path / "full"), AtWrite(1, "full"))
    assert full.status == 1
    assert "No space left on device" in full.said
    assert f"error: {tmp_path}/full/masks/" in full.said


def hang() -> None:
    time.sleep(60)


@pytest.mark.slow
def test_a_hung_command_is_noticed(tmp_path: Path) -> None:
    hung = run(["data_prep", "check", f"--manifest={tmp_path / 'm.jsonl'}"], hang, seconds=3)
    assert hung.status is None
    assert hung.crashed


def test_rows_of_the_table_are_replaced_and_others_stay() -> None:
    page = "a\n<!-- campaign: begin -->\n| A2 | x | old | yes |\n<!-- campaign: end -->\nb"
    first = with_rows(page, {"A1": "| A1 | y | new | yes |"})
    second = with_rows(first, {"A2": "| A2 | x | new | yes |"})
    assert "| A1 | y | new | yes |\n| A2 | x | new | yes |\n| A6 |" in second
    assert second.startswith("a\n")
    assert second.endswith("-->\nb")
    with pytest.raises(ValueError, match="needs"):
        with_rows("no table", {})
