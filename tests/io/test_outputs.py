"""What a job did not make, it does not replace."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import outputs
from boxpromptiml.io.outputs import OutputFile, OutputFolder

FILES = {name: one for name, one in vars(outputs).items() if isinstance(one, OutputFile)}
FOLDERS = {one.command: one for one in vars(outputs).values() if isinstance(one, OutputFolder)}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_replaced_by_its_own_kind_alone(name: str, tmp_path: Path) -> None:
    kind = FILES[name]
    out = tmp_path / f"a{kind.endings[0]}"
    kind.require(out)
    out.write_bytes(b"by hand")
    with pytest.raises(UserError, match="is there, and not of an earlier job"):
        kind.require(out)
    for content in (b"", kind.mark, b" " * 2**22 + kind.mark):
        out.write_bytes(content)
        kind.require(out)
    with pytest.raises(UserError, match="is what the job reads"):
        kind.require(out, tmp_path / "other", out)


def test_a_name_tells_the_kind(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.json.txt", "photo.jpg", "a", ".json"):
        with pytest.raises(UserError, match=r"must end in \.html or \.htm"):
            outputs.REPORT.require(tmp_path / name)
    outputs.REPORT.require(tmp_path / "A.HTML")


def test_folders_pipes_and_links_are_no_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "link.html").symlink_to("notes.txt")
    for path in tmp_path.glob("*.html"):
        with pytest.raises(UserError, match="is there, and not of an earlier job"):
            outputs.REPORT.require(path)


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_is_written_where_nothing_of_others_is(command: str, tmp_path: Path) -> None:
    kind = FOLDERS[command]
    for part in kind.parts:
        out = tmp_path / part
        out.mkdir()
        (out / "notes.txt").write_text("are in no job's way")
        kind.require(out)
        (out / part).write_text("by hand")
        with pytest.raises(UserError, match=f"{part}: is there, and not made by `{command}`"):
            kind.mark(out)
        assert {path.name for path in out.iterdir()} == {"notes.txt", part}
        (out / part).unlink()
        kind.mark(out)
        (out / part).write_text("by the job")
        with kind.hold(out), pytest.raises(UserError, match="another job"), kind.hold(out):
            pass
        for other in FOLDERS.values():
            if part in other.parts and other is not kind:
                with pytest.raises(UserError, match="is there, and not made by"):
                    other.require(out)


@pytest.mark.parametrize("command", FOLDERS)
def test_a_copy_without_hidden_files_is_known(command: str, tmp_path: Path) -> None:
    kind = FOLDERS[command]
    for pattern, mark in kind.signs.items():
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        path = out / pattern.replace("**", "made").replace("*", "a")
        path.parent.mkdir(parents=True)
        path.mkdir() if mark is None else path.write_bytes(b"{" + mark + b"}")
        if not any((out / part).exists() for part in kind.parts):
            (out / kind.parts[0]).touch()
        kind.require(out)
        with pytest.raises(UserError, match=re.escape(f"create {out}/.made_by_{command}")):
            replace(kind, signs={}).require(out)
    assert kind.signs


@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_behind_a_link_is_not_written_into(command: str, tmp_path: Path) -> None:
    kind = FOLDERS[command]
    (tmp_path / "out").mkdir()
    kind.mark(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / kind.parts[0]).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{kind.parts[0]}: is a link to a folder"):
        kind.require(tmp_path / "out")
    (tmp_path / "linked").symlink_to(tmp_path / "elsewhere")
    kind.mark(tmp_path / "linked")  # the folder itself may be one


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; name a folder"):
        outputs.LOCALIZED.require(tmp_path / "file")


def test_the_mark_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / ".made_by_localize").symlink_to("elsewhere")
    outputs.LOCALIZED.mark(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
