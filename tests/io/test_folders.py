"""Trees of any depth, and what in them is no one's data."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxpromptiml.io.files import atomic_writer, remove_temporaries
from boxpromptiml.io.folders import files_below, is_hidden, make_folder

DEEP = 1100  # levels; more than the recursion that Python allows


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder of more levels than Python recurses, whose tree pytest could not remove."""
    folder = tmp_path / "/".join("d" * DEEP)
    make_folder(folder)
    yield folder
    for path in [*folder.iterdir()]:
        path.unlink()
    for _ in range(DEEP):
        folder.rmdir()
        folder = folder.parent


def test_deep_trees_are_listed_written_and_cleaned(deep: Path, tmp_path: Path) -> None:
    with atomic_writer(deep / "a.txt") as stream:
        stream.write(b"a")
    (deep / f".{'0' * 16}.1.tmp").touch()
    assert files_below(tmp_path) == [deep / "a.txt"]
    assert remove_temporaries(tmp_path) == 1
    assert files_below(tmp_path, hidden=True) == [deep / "a.txt"]


def test_the_files_are_those_of_rglob_in_its_order(tmp_path: Path) -> None:
    for name in ("b/x.png", "a.png", "b.png", "B/c/d/e.png", "a/z", "b-/y"):
        make_folder((tmp_path / name).parent)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_hidden_files_and_what_systems_leave_are_no_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = ("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", ".git/a.png", "__MACOSX/a.png")
    for name in (*left, "a.png"):
        make_folder((tmp_path / name).parent)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == [tmp_path / "a.png"]
    assert len(files_below(tmp_path, hidden=True)) == len(left) + 1
    assert not is_hidden("thumbs.png")
    assert "2 hidden images are left out" in caplog.text  # ._a.png is none


def test_links_are_files_and_folders_behind_them_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    names = ("broken", "circle", "folder", "pipe", "real/a")
    assert files_below(tmp_path) == [tmp_path / name for name in names]


def test_a_folder_that_cannot_be_listed_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert files_below(tmp_path / "gone") == [tmp_path / "gone"]
    assert "cannot be listed" in caplog.text


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "b" / "c")
    make_folder(tmp_path / "b" / "c")
