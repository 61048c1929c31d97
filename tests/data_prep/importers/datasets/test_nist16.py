from pathlib import Path

import pytest

from boxpromptiml.io import images
from tests.helpers.data import mask_file
from tests.helpers.imports import by_id, imported, run
from tests.helpers.trees import nist16


@pytest.mark.parametrize("delimiter", [",", "|"])
def test_nist16_reads_either_table(tmp_path: Path, delimiter: str) -> None:
    nist16(tmp_path / "raw" / "nist16", delimiter)
    manifest, rejected = imported(tmp_path, "nist16")
    samples = by_id(manifest)
    assert {key: sample.label for key, sample in samples.items()} == {
        "probe/NC2016_0313": 1,
        "probe/NC2016_1111": 0,
        "probe/NC2016_3333": 1,
        "probe/NC2016_7152": 1,
        "probe/NC2016_9415": 1,
    }
    assert list(rejected.items()) == [("NC2016_Test0601/probe/NC2016_2222.jpg", "missing")]
    assert samples["probe/NC2016_7152"].group == samples["probe/NC2016_9415"].group
    kinds = [samples[f"probe/NC2016_{number}"].kind for number in ("0313", "7152", "9415")]
    assert kinds == ["removal", "splice", None]  # both splice and copy-move: neither
    assert "from remove" in manifest.header.notes["corrections"][0]


def test_nist16_says_which_column_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "reference" / "manipulation" / "NC2016-manipulation-ref.csv"
    table.parent.mkdir(parents=True)
    table.write_text("TaskID|ProbeFileName\n")
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert "IsTarget" in capsys.readouterr().err
    table.write_text("x" * 200_000)
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert "is no table" in capsys.readouterr().err
    table.write_text(
        'TaskID,IsTarget,ProbeFileName,ProbeMaskFileName\n"a\0b,Y,../../x,/etc/passwd\n'
    )
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("dataset", ["nist16", "dso1"])
def test_black_is_manipulated_and_converted(tmp_path: Path, dataset: str) -> None:
    manifest, _ = imported(tmp_path, dataset)
    for sample in manifest.samples:
        if sample.label:
            mask_path = mask_file(manifest, sample).resolve()
            assert mask_path.is_relative_to(tmp_path / "out" / f"{dataset}.masks")
            assert images.read_mask(mask_path).mean() < 0.5
