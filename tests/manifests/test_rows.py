import multiprocessing
import os
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import PositionalFile
from boxpromptiml.manifests.rows import Places, Rows, repeated

FDS = Path("/proc/self/fd")


def _text(line: bytes) -> str:
    return line.decode().removesuffix("\n")


def _rows(path: Path, lines: list[str]) -> Rows[str]:
    places, start = Places(), 0
    with path.open("wb") as stream:
        for line in lines:
            data = f"{line}\n".encode()
            places.add(start, data)
            start += stream.write(data)
    return Rows(PositionalFile(path), places.as_array(), _text)


@pytest.fixture
def rows(tmp_path: Path) -> Rows[str]:
    return _rows(tmp_path / "lines", ["a", "bé", "", "d"])


lines = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")))


@given(lines=lines, data=st.data())
def test_rows_are_the_sequence_of_their_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: Any, data: st.DataObject
) -> None:
    rows = _rows(tmp_path_factory.mktemp("rows") / "lines", lines)
    start, stop = (data.draw(st.none() | st.integers(-9, 9)) for _ in range(2))
    part = slice(start, stop, data.draw(st.sampled_from([None, 1, 2, -1])))
    flags = [data.draw(st.booleans()) for _ in lines]
    assert len(rows) == len(lines)
    assert list(rows) == [rows[i] for i in range(len(rows))] == lines
    assert rows == lines
    assert list(rows[part]) == lines[part]
    kept = [line for line, flag in zip(lines, flags, strict=True) if flag]
    assert rows.where(np.array(flags, bool)) == tuple(kept)
    order = data.draw(st.permutations(range(len(lines))))
    assert list(rows.take(np.array(order, np.int64))) == [lines[i] for i in order]
    for wrong in (len(lines), -len(lines) - 1):
        with pytest.raises(IndexError):
            rows[wrong]


def test_equality_is_by_value(rows: Rows[str], tmp_path: Path) -> None:
    assert rows == _rows(tmp_path / "others", ["a", "bé", "", "d"])
    assert rows != ["a", "bé", ""]
    assert rows != ["a", "bé", "", "e"]
    assert rows != 4


def test_a_pickled_copy_reads_the_same_file_and_is_small(rows: Rows[str]) -> None:
    assert len(pickle.dumps(rows)) < 1000
    assert deepcopy(rows) == rows  # by the same protocol


def test_forked_processes_read_at_once(tmp_path: Path) -> None:
    lines = [str(number) * (number % 50) for number in range(2000)]
    rows = _rows(tmp_path / "lines", lines)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(rows.__getitem__, range(2000), chunksize=7) == lines
        pool.close()
        pool.join()


def test_a_replaced_file_is_still_the_old_one_here_and_refused_elsewhere(
    rows: Rows[str], tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("other\n" * 9)
    (tmp_path / "new").replace(tmp_path / "lines")
    assert list(rows) == ["a", "bé", "", "d"]
    with pytest.raises(UserError, match="lines: was changed in place"):
        list(deepcopy(rows))


@pytest.mark.parametrize("length", [0, 1, 3, 7])
def test_a_file_cut_short_is_an_error_and_no_crash(
    rows: Rows[str], tmp_path: Path, length: int
) -> None:
    os.truncate(tmp_path / "lines", length)
    with pytest.raises(UserError, match="changed in place"):
        list(rows)


def test_what_is_appended_in_place_does_not_matter_and_what_is_edited_does(
    rows: Rows[str], tmp_path: Path
) -> None:
    with (tmp_path / "lines").open("r+b") as stream:
        stream.seek(0, os.SEEK_END)
        stream.write(b"more\n")
    assert list(rows) == ["a", "bé", "", "d"]
    with (tmp_path / "lines").open("r+b") as stream:
        stream.write(b"x")
    assert rows[1] == "bé"
    with pytest.raises(UserError, match="at byte 0"):
        rows[0]


def test_a_descriptor_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    before = len(list(FDS.iterdir()))
    kept = [PositionalFile(tmp_path / "file") for _ in range(5)]
    assert kept[0].read(1, 5) == b"bc"
    del kept
    assert len(list(FDS.iterdir())) == before


@given(st.lists(st.integers(-3, 3)))
def test_repeated_finds_all_that_occur_again(values: list[int]) -> None:
    found = repeated(np.array(values, np.int64)).tolist()
    assert found == [i for i, value in enumerate(values) if values.count(value) > 1]
