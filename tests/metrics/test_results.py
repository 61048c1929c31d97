"""The two files of an evaluation: read back as written, whole or not at all, never believed."""

import csv
import errno
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import csv_text, plain_cell
from boxpromptiml.metrics.results import (
    COLUMNS,
    Evaluation,
    ImageRow,
    read_evaluation,
    score_list,
    score_table,
    write_evaluation,
)

NAN = float("nan")
ROW = ImageRow(
    "set/a", "set", "splice", "g1", 1, 4, 5, 0.1 + 0.2, 1 / 3, 0.2, NAN, NAN, 0.5, 0.25, 0.1,
    "5% to 15%", "set/a",
)  # fmt: skip
SCORE = {"value": 0.3333, "low": None, "high": None, "count": 1}
METRICS: dict[str, Any] = {
    "schema_version": 1,
    "preset": "default",
    "threshold": 0.5,
    "split": "test",
    "manifests": [{"path": "m.jsonl", "sha256": "0" * 64}],
    "predictions": "predictions",
    "image_score": "maximum",
    "images": {"manipulated": 1, "authentic": 0, "unknown": 0},
    "scores": {"pixel_f1": SCORE},
    "groups": {"kind": {"splice": {"pixel_f1": SCORE, "count": 1}}},
    "curves": {"f1": [[0.0, 0.5], [1.0, 0.0]]},
    "versions": {"numpy": "2"},
    "bootstrap": {"resamples": 2000, "seed": 0, "level": 0.95, "unit": "group"},
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    odd = ["=1+1", "+a", "-b", "@c", "\td", "\re", "'f", "''g", 'h,"i"\nj', "k"]
    rows = [replace(ROW, id=text, group=text, name=text, kind="") for text in odd]
    rows.append(replace(ROW, label=None, f1=NAN, image_score=1e-17))
    metrics = METRICS | {
        "images": {"manipulated": len(odd), "authentic": 0, "unknown": 1},
        "scores": {"pixel_f1": SCORE | {"count": len(odd)}},
    }
    write_evaluation(tmp_path / "out", Evaluation(metrics, tuple(rows)))
    found = read_evaluation(tmp_path / "out")
    assert found.metrics == metrics
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


def test_nan_never_reaches_the_json_and_earlier_scores_stay(tmp_path: Path) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation(tmp_path, Evaluation({"x": math.nan}, ()))
    assert len(read_evaluation(tmp_path).rows) == 1


@pytest.mark.parametrize("call", range(4))
def test_earlier_scores_stay_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    calls = iter(range(100))
    real = os.fsync

    def fsync(handle: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if call < 2:  # both files are on the disk before either is moved, which needs no space
        with pytest.raises(OSError, match="No space"):
            write_evaluation(tmp_path, Evaluation(METRICS, (ROW, ROW)))
        assert len(read_evaluation(tmp_path).rows) == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "metrics.json",
            "per_image.csv",
        ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "cannot be read"),
        ("per_image.csv", None, "cannot be read"),
        ("metrics.json", b"{", "not valid JSON"),
        ("metrics.json", b"[]", "schema None"),
        ("metrics.json", b'{"schema_version": 2}', "schema 2"),
        ("metrics.json", b'{"schema_version": 1}', "preset: Field required"),
        ("per_image.csv", b"\xff", "is not UTF-8"),
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


@pytest.mark.parametrize(
    "rows",
    [
        (),
        (ROW, ROW),
        (ROW, replace(ROW, id="set/b", f1=NAN)),
        (replace(ROW, f1=0.5),),
        (replace(ROW, f1=NAN),),
        (replace(ROW, label=0),),
        (replace(ROW, image_score=1e300),),
        (replace(ROW, region=-0.1),),
    ],
)
def test_rows_that_were_cut_added_or_edited_are_not_shown_as_the_scores_own(
    tmp_path: Path, rows: tuple[ImageRow, ...]
) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    assert len(read_evaluation(tmp_path).rows) == 1
    write_evaluation(tmp_path, Evaluation(METRICS, rows))
    with pytest.raises(UserError, match=r"per_image\.csv.*evaluate again"):
        read_evaluation(tmp_path)


def cells_of(text: str, separator: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [cell for row in rows for cell in row]


ODD = st.text(alphabet=list("=+-@\t\r\n;|,\"' a1"), max_size=12)


@given(st.lists(ODD, min_size=1, max_size=4))
def test_no_cell_is_a_formula_however_it_is_opened_and_texts_come_back(texts: list[str]) -> None:
    written = csv_text(("a", "b"), [("x", *texts)])
    for separator in ",;\t|":
        for cell in cells_of(written, separator):
            assert not cell.startswith(("=", "+", "-", "@")), (separator, written)
    back = list(csv.reader(io.StringIO(written, newline="")))[1:]
    assert [plain_cell(cell) for cell in back[0][1:]] == texts


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value inside a JSON value."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    return [path] + [leaf for key, one in inner for leaf in leaves(one, (*path, key))]


@pytest.mark.parametrize("value", [None, "x", -1, 1e300, True, [], {}, [[]], {"a": 1}])
def test_edited_files_are_refused_or_can_be_shown(tmp_path: Path, value: Any) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    refused = 0
    for path in leaves(METRICS)[1:]:
        edited = json.loads(json.dumps(METRICS))
        place = edited
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (tmp_path / "metrics.json").write_text(json.dumps(edited))
        try:
            assert score_table(read_evaluation(tmp_path).metrics)
        except UserError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", ["metrics.json", "per_image.csv"])
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path, name: str) -> None:
    write_evaluation(tmp_path, Evaluation(METRICS, (ROW,)))
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is not a regular file"):
        read_evaluation(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is not a regular file"):
        read_evaluation(tmp_path)


def test_scores_are_listed_by_name_and_what_is_undefined_says_why() -> None:
    scores = {"pixel_f1": 0.25, "coarse_auc": NAN, "false_alarm_pixels": NAN, "loss": 1.5}
    assert score_list(scores | {"image_auc": NAN}).splitlines() == [
        "pixel F1    0.2500",
        "coarse AUC  -  (there are no manipulated images with a mask)",
        "pixel FPR   -  (there are no authentic images)",
        "loss        1.5000",
        "image AUC   -  (there are no images of both labels)",
    ]


def test_a_dash_in_the_table_is_explained() -> None:
    assert "-: undefined" in score_table(METRICS)  # the pixel FPR, without authentic images
