from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.importers.datasets import PUBLIC
from tests.helpers.imports import imported


def test_a_missing_mask_shifts_nothing(tmp_path: Path) -> None:
    """Pairing by sorted order would give every later image its neighbour's mask."""
    before, _ = imported(tmp_path, "coverage")
    (tmp_path / "raw" / "coverage" / "mask" / "1forged.tif").unlink()
    after, rejected = imported(tmp_path, "coverage")
    assert rejected["image/1t.tif"] == "no_mask"
    assert set(after.samples) == {s for s in before.samples if s.id != "coverage/1t"}


def test_known_errors_are_no_unexpected_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PUBLIC["coverage"]
    for manipulated, said in ((3, []), (4, ["2 manipulated images, 3 expected"])):
        expected = {"manipulated": manipulated, "authentic": 3, "copymove": 3}
        changed = replace(real, expected=expected)
        monkeypatch.setitem(PUBLIC, "coverage", changed)
        manifest, rejected = imported(tmp_path, "coverage")  # one of its masks is a known error
        assert list(rejected.values()) == ["size_mismatch"]
        assert manifest.header.notes["warnings"] == said
