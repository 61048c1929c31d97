import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.metrics.results import (
    COLUMNS,
    Evaluation,
    ImageRow,
    read_evaluation,
    write_evaluation,
)

NAN = float("nan")
ROW = ImageRow(
    "set/a", "set", "splice", "g1", 1, 4, 5, 0.1 + 0.2, 1 / 3, 0.2, NAN, NAN, 0.5, 0.25, 0.1,
    "5% to 15%", "set/a",
)  # fmt: skip
METRICS = {"schema_version": 1, "scores": {"pixel_f1": {"value": None}}}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    odd = ["=1+1", "+a", "-b", "@c", "\td", "\re", "'f", "''g", 'h,"i"\nj', "k"]
    rows = [replace(ROW, id=text, group=text, name=text, kind="") for text in odd]
    rows.append(replace(ROW, label=None, f1=NAN, image_score=1e-17))
    write_evaluation(tmp_path / "out", Evaluation(METRICS, tuple(rows)))
    found = read_evaluation(tmp_path / "out")
    assert found.metrics == METRICS
    assert [repr(row) for row in found.rows] == [repr(row) for row in rows]  # nan is not nan


def test_the_table_is_as_agreed(tmp_path: Path) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (replace(ROW, id="=cmd"),)))
    with (tmp_path / "per_image.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    agreed = (
        "id,dataset,kind,group,label,height,width,image_score,f1,iou,auc,precision,recall,flagged,"
        "region,region_size,name"
    )
    assert ",".join(rows[0]) == ",".join(COLUMNS) == agreed
    assert rows[1][0] == "'=cmd"
    assert rows[1][COLUMNS.index("auc")] == ""
    assert float(rows[1][COLUMNS.index("f1")]) == 1 / 3


def test_nan_never_reaches_the_json(tmp_path: Path) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation(tmp_path, Evaluation({"x": math.nan}, (ROW,)))
    assert not (tmp_path / "metrics.json").exists()  # the rows are those of the failed one


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "cannot be read"),
        ("per_image.csv", None, "cannot be read"),
        ("metrics.json", b"{", "not valid JSON"),
        ("metrics.json", b"[]", "schema None"),
        ("metrics.json", b'{"schema_version": 2}', "schema 2"),
        ("per_image.csv", b"\xff", "cannot be read"),
        ("per_image.csv", b"", "columns are not"),
        ("per_image.csv", b"id,f1\na,1\n", "columns are not"),
        ("per_image.csv", (",".join(COLUMNS) + "\na,b\n").encode(), "csv:2"),
        ("per_image.csv", (",".join(COLUMNS) + "\n" + "x," * 16 + "y\n").encode(), "csv:2"),
    ],
)
def test_damaged_folders_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_evaluation(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def test_metrics_json_is_plain(tmp_path: Path) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, ()))
    assert json.loads((tmp_path / "metrics.json").read_text()) == METRICS
    assert read_evaluation(tmp_path).rows == ()
