"""The quick forms of the campaign: each promise, measured small. The long forms are run by hand."""

import os

import pytest

from benchmarks.campaign.__main__ import LONG, QUICK, with_rows
from benchmarks.campaign.faults import AtWrite
from benchmarks.campaign.kills import command
from benchmarks.campaign.material import make_manifest
from benchmarks.campaign.running import run


@pytest.mark.parametrize("number", QUICK)
def test_promise(number, tmp_path):
    figure = QUICK[number](tmp_path)
    if figure.met is None:
        pytest.skip(figure.reached)
    assert figure.faults == (), figure.reached


def test_every_promise_has_a_long_form():
    assert LONG.keys() == QUICK.keys()


def test_a_fault_is_really_caused(tmp_path):
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


def test_a_hung_command_is_noticed(tmp_path):
    os.mkfifo(tmp_path / "m.jsonl")  # a manifest is named by its user: nobody guards it
    hung = run(["data_prep", "pseudo-masks", f"--manifest={tmp_path / 'm.jsonl'}",
                f"--out={tmp_path / 'out'}"], seconds=3)  # fmt: skip
    assert hung.status is None
    assert hung.crashed


def test_rows_of_the_table_are_replaced_and_others_stay():
    page = "a\n<!-- campaign: begin -->\n| A2 | x | old | yes |\n<!-- campaign: end -->\nb"
    first = with_rows(page, {"A1": "| A1 | y | new | yes |"})
    second = with_rows(first, {"A2": "| A2 | x | new | yes |"})
    assert "| A1 | y | new | yes |\n| A2 | x | new | yes |\n| A6 |" in second
    assert second.startswith("a\n")
    assert second.endswith("-->\nb")
    with pytest.raises(ValueError, match="needs"):
        with_rows("no table", {})
