"""inference/predictions.py: rows of an earlier run that somebody may have edited."""

import json
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.inference.predictions import read_rows

ROW: dict[str, Any] = {
    "name": "a", "path": "a.jpg", "height": 2, "width": 3, "image_score": 0.5, "threshold": 0.5,
    "area": 0.0, "sha256": "", "notes": "",
}  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        {"name": "./a"},  # a second name for the files of `a`
        {"name": "b/../a"},
        {"name": "a" * 5000},
        {"image_score": 1e308},
        {"area": -1},
        {"threshold": None},
        {"fpr": 2},
    ],
)
def test_an_edited_row_is_as_if_it_were_not_there(edit: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "prob" / name).mkdir(parents=True)
        (tmp_path / "prob" / f"{name}.png").touch()
    rows = [ROW | edit, ROW | {"name": "b"}]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(read_rows(tmp_path)) == ["b"]
