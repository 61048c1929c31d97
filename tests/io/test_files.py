import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io import files


def test_sha256_of_file_and_bytes_are_hashlibs(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_file(tmp_path / "f") == expected
    assert files.sha256_bytes(data) == expected


def test_a_fingerprint_depends_on_content_and_not_on_order() -> None:
    assert files.fingerprint({"a": [1, 2], "b": None}) == files.fingerprint(
        {"b": None, "a": [1, 2]}
    )
    assert files.fingerprint({"a": [1, 2]}) != files.fingerprint({"a": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        files.fingerprint({"a": float("nan")})


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")

    def interrupted() -> None:
        with files.atomic_writer(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_jsonl_escapes_names_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    rows = [{"path": "a\udcff\n\u202e.jpg"}, {"path": "é"}]
    files.write_jsonl(path, rows)
    lines = path.read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "f.json", {"f1": float("nan")})
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.tmp", ".a.tmp", ".b.1.tmp", "deep/x.png")]
    left = [tmp_path / f".{'0123456789abcdef'}.{n}.tmp" for n in (1, 22)]
    left.append(tmp_path / "deep" / f".{'f' * 16}.7.tmp")
    for path in (*kept, *left):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    stream = files.atomic_writer(tmp_path / "mine")
    stream.__enter__()  # a write that never ends, as after kill -9
    assert files.remove_temporaries(tmp_path) == 4
    assert all(path.exists() for path in kept)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(kept)


def test_a_job_below_keeps_its_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "pseudo" / "masks").mkdir(parents=True)
    with files.locked(tmp_path), files.locked(tmp_path / "pseudo"):
        stream = files.atomic_writer(tmp_path / "pseudo" / "masks" / "a.png")
        stream.__enter__()
        assert files.remove_temporaries(tmp_path) == 0
        assert files.remove_temporaries(tmp_path / "pseudo") == 1


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        files.write_text(tmp_path, "new")
    assert caught.value.filename == str(tmp_path)


def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    full, broken = (OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EIO))
    for error, filename in ((full, str(tmp_path / "a")), (broken, None)):  # EIO may be of a reader
        with (
            pytest.raises(OSError, match=error.strerror) as caught,
            files.atomic_writer(tmp_path / "a"),
        ):
            raise error
        assert caught.value.filename == filename


def test_every_key_and_seed_has_a_generator_of_its_own() -> None:
    keys = ("a", "b", "\ud800", b"\xff")
    firsts = {files.generator(seed, key).random() for key in keys for seed in (0, 1)}
    assert len(firsts) == 8
    assert files.generator(0, "a").random() == files.generator(0, b"a").random()
    assert files.generator(0, "a").random() in firsts


def test_one_job_a_file_and_the_rest_of_a_killed_one_goes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "boxes.json"
    with files.locked_file(out):
        with (
            pytest.raises(UserError, match="another job is writing this file"),
            files.locked_file(out),
        ):
            pass
        with files.locked_file(out.with_name("other.json")):
            pass
        with files.atomic_writer(out):
            (left,) = out.parent.glob(".*.tmp")
    left.touch()
    other = left.with_name(f".{'0' * 16}.1.tmp")
    other.touch()
    with files.locked_file(out):
        assert not left.exists()
        assert other.exists()
    left.touch()
    with files.locked_file(out.with_name("other.json"), out):
        assert not left.exists()


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    path = tmp_path / "out.txt"
    temporary = tmp_path / f".{hashlib.sha256(b'out.txt').hexdigest()[:16]}.{os.getpid()}.tmp"
    for link in (path, temporary):
        link.symlink_to("thesis.txt")
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert not path.is_symlink()


def test_pipes_and_devices_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(FileExistsError, match="no regular file"):
            files.write_text(tmp_path / name, "new")
        with pytest.raises(FileExistsError), files.locked_file(tmp_path / name):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_without_a_name_is_no_file(path: str) -> None:
    with pytest.raises(IsADirectoryError):
        files.write_text(Path(path), "new")


def test_an_endless_line_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"a\n\nb")
    with path.open("rb") as stream:
        assert list(files.bounded_lines(stream, path)) == [b"a\n", b"\n", b"b"]
    os.truncate(path, 2**35)
    with path.open("rb") as stream, pytest.raises(UserError, match="a line is larger"):
        list(files.bounded_lines(stream, path))
