from pathlib import Path

import pytest

from boxpromptiml.cli import main

ROOT = Path(__file__).parents[2]


def test_experiments_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(list((ROOT / "experiments").rglob("*.yaml")))
    (native,) = (line for line in listed if line.startswith("native "))
    assert native.split(maxsplit=1)[1].startswith("The default student")


def test_a_copy_is_made_once_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiments", "copy", "studies/supervision"]) == 0
    original = ROOT / "experiments/studies/supervision.yaml"
    assert (tmp_path / "supervision.yaml").read_bytes() == original.read_bytes()
    assert main(["experiments", "copy", "studies/supervision"]) == 1
    assert "supervision.yaml exists" in capsys.readouterr().err
    assert main(["experiments", "copy", "studies/supervision", "--out", "mine.yaml"]) == 0
    assert main(["experiments", "copy", "nothing"]) == 1
    assert "boxpromptiml experiments` lists all" in capsys.readouterr().err
