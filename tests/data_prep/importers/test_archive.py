import errno
import json
import os
import random
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifests.manifest import check_relative, read_manifest
from data_prep.__main__ import main
from data_prep.importers.archive import ArchiveLimits, RawArchive
from tests.helpers.trees import in_the_wild, mask, photo, region

IMAGES, MASKS = "label_in_wild/images/", "label_in_wild/masks/"


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """The files of a sound archive."""
    in_the_wild(tmp_path / "raw")
    files = [path for path in (tmp_path / "raw").rglob("*") if path.is_file()]
    return {str(path.relative_to(tmp_path / "raw")): path.read_bytes() for path in sorted(files)}


def pack(path: Path, members: dict[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, data in members.items():
            stream.writestr(name, data)
        for info, data in more:
            stream.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def run(archive: Path, out: Path) -> tuple[int, dict[str, str]]:
    """Exit status, and reasons by member."""
    status = main(
        ["import", "--dataset", "in_the_wild", "--source", str(archive), "--out", str(out)]
    )
    errors = out.with_name(f"{out.stem}.errors.jsonl")
    rows = [json.loads(line) for line in errors.read_text().splitlines()] if errors.exists() else []
    return status, {row["path"].removeprefix(f"{archive}/"): row["reason"] for row in rows}


def everything(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)) for p in files if not p.name.startswith(".made_by_import_")}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "/evil.jpg",
        "label_in_wild/images/../../../evil.jpg",
        "..\\evil.jpg",
        "C:/evil.jpg",
        "label_in_wild/images/..",
        "//server/evil.jpg",
    ],
)
def test_no_byte_leaves_the_folder(tmp_path: Path, members: dict[str, bytes], name: str) -> None:
    evil = zipfile.ZipInfo("x")
    evil.filename = evil.orig_filename = name
    archive = pack(tmp_path / "a.zip", members, (evil, members[IMAGES + "bull.jpg"]))
    before = everything(tmp_path)
    status, rejected = run(archive, tmp_path / "out" / "m.jsonl")
    assert (status, rejected) == (3, {name: "bad_name"})
    assert all(path.startswith("out/m") for path in everything(tmp_path) - before)
    assert len(read_manifest(tmp_path / "out" / "m.jsonl").samples) == 2


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_device_is_no_file(tmp_path: Path, members: dict[str, bytes], kind: int) -> None:
    link = zipfile.ZipInfo(IMAGES + "link.jpg")
    link.external_attr = (kind | 0o777) << 16
    archive = pack(tmp_path / "a.zip", members, (link, b"/etc/passwd"))
    assert run(archive, tmp_path / "m.jsonl") == (3, {IMAGES + "link.jpg": "not_a_file"})
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_bomb_is_not_unpacked(tmp_path: Path, members: dict[str, bytes]) -> None:
    bomb = zipfile.ZipInfo(IMAGES + "bomb.jpg")
    archive = pack(tmp_path / "a.zip", members, (bomb, bytes(40 * 2**20)))
    assert archive.stat().st_size < 2**20
    assert run(archive, tmp_path / "out" / "m.jsonl") == (3, {IMAGES + "bomb.jpg": "ratio"})
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.*")) < 2**20


def test_many_members_that_share_their_bytes_are_a_bomb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """David Fifield's bomb: every member alone looks sound."""
    data = zlib.compress(bytes(2**20), 9)[2:-4]
    sizes = (zlib.crc32(bytes(2**20)), len(data), 2**20)
    head = struct.pack("<4sHHHHHLLLHH", b"PK\3\4", 20, 0, 8, 0, 33, *sizes, 1, 0) + b"x" + data
    entries = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, *sizes, 8, 0, 0, 0, 0, 0, 0)
        + f"{number:04}.jpg".encode()
        for number in range(200)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 200, 200, len(entries), len(head), 0)
    (tmp_path / "a.zip").write_bytes(head + entries + end)
    assert run(tmp_path / "a.zip", tmp_path / "m.jsonl") == (1, {})
    assert "would become" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ArchiveLimits(max_members=3), "more than 3 members"),
        (ArchiveLimits(max_total_bytes=1000), "would become"),
    ],
)
def test_too_many_members_or_bytes(
    tmp_path: Path, members: dict[str, bytes], limits: ArchiveLimits, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        RawArchive(pack(tmp_path / "a.zip", members), tmp_path / "out", limits)


def test_a_member_of_too_many_bytes(tmp_path: Path, members: dict[str, bytes]) -> None:
    limits = ArchiveLimits(max_member_bytes=300)
    source = RawArchive(pack(tmp_path / "a.zip", members), tmp_path / "out", limits)
    assert {error.reason for error in source.rejected} == {"too_many_bytes"}
    assert {name for name in source.names if len(members[name]) > 300} == set()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("times", [2, 3])
def test_a_name_that_is_there_twice_is_not_guessed(
    tmp_path: Path, members: dict[str, bytes], times: int
) -> None:
    twin = [(zipfile.ZipInfo(MASKS + "bull.png"), b"other")] * (times - 1)
    archive = pack(tmp_path / "a.zip", members, *twin)
    status, rejected = run(archive, tmp_path / "m.jsonl")
    assert status == 3
    assert rejected == {MASKS + "bull.png": "duplicate", IMAGES + "bull.jpg": "no_mask"}


def test_names_that_differ_by_case_do_not_overwrite_each_other(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    members[IMAGES + "BULL.jpg"] = members[IMAGES + "obama 2.jpg"]
    members[MASKS + "BULL.png"] = members[MASKS + "obama 2.png"]
    status, rejected = run(pack(tmp_path / "a.zip", members), tmp_path / "m.jsonl")
    assert (status, set(rejected.values())) == (3, {"duplicate"})
    assert len(read_manifest(tmp_path / "m.jsonl").samples) == 2


def test_one_damaged_member_does_not_lose_the_rest(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    archive = pack(tmp_path / "a.zip", members)
    data = bytearray(archive.read_bytes())
    data[80] ^= 0xFF  # inside the first member
    archive.write_bytes(data)
    status, rejected = run(archive, tmp_path / "m.jsonl")
    assert (status, rejected) == (3, {IMAGES + "bull.jpg": "truncated_or_corrupt"})
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_member_that_is_shared_is_damaged_for_all(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    source = RawArchive(pack(tmp_path / "a.zip", members), tmp_path / "out")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[80] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    for _ in range(2):
        with pytest.raises(RejectedInput, match="cannot be unpacked"):
            source.place(IMAGES + "bull.jpg", "images/bull.jpg")


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_archive_is_one_clear_line(
    tmp_path: Path, members: dict[str, bytes], capsys: pytest.CaptureFixture[str], kept: float
) -> None:
    archive = pack(tmp_path / "a.zip", members)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    assert run(archive, tmp_path / "m.jsonl") == (1, {})
    message = capsys.readouterr().err
    assert "not a complete zip archive" in message
    assert message.count("\n") == 1


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_damage_ends_in_a_traceback(tmp_path: Path) -> None:
    """Random bytes changed, most of them in the headers and the directory."""
    path, dice = tmp_path / "a.zip", random.Random(7)  # noqa: S311 - to be the same every time
    pack(path, {"a.png": bytes(range(256)) * 2}, (zipfile.ZipInfo("ü.png"), b"xyz" * 50))
    whole, outcomes = path.read_bytes(), []
    directory = whole.index(b"PK\1\2")
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            place = dice.choice([dice.randrange(len(data)), dice.randrange(directory, len(data))])
            data[place] = dice.choice([0, 1, 0x2F, 0x7F, 0xFF, dice.randrange(256)])
        path.write_bytes(data)
        try:
            source = RawArchive(path, tmp_path / "out")
        except UserError:
            outcomes.append("archive")
            continue
        outcomes += [error.reason for error in source.rejected]
        for number, name in enumerate(source.names):
            try:
                source.place(name, f"{number}.png")
                outcomes.append("sound")
            except RejectedInput as error:
                outcomes.append(error.reason)
    assert {"archive", "bad_name", "truncated_or_corrupt", "sound"} <= set(outcomes)


@pytest.mark.parametrize("name", [b"", b"\0b.png", b"\xff\xff.png"])
def test_names_that_zipfile_stumbles_over(tmp_path: Path, name: bytes) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": b"x", "b" * (len(name) or 1): b"y"})
    data = path.read_bytes()
    second = data.rindex(b"PK\1\2")
    flags = 0x800 if name.startswith(b"\xff") else 0  # UTF-8, which it is not
    entry = bytearray(data[second:])
    entry[8:10] = struct.pack("<H", flags)
    entry[46 : 46 + len(name)] = name
    if not name:
        entry[28:32] = struct.pack("<HH", 0, 1)  # its one byte is an extra field instead
    path.write_bytes(data[:second] + entry)
    if flags:
        with pytest.raises(UserError, match="not a complete zip archive"):
            RawArchive(path, tmp_path / "out")
    else:
        source = RawArchive(path, tmp_path / "out")
        assert [error.reason for error in source.rejected] == ["bad_name"]
        assert source.names == ["a.png"]


def test_a_disk_error_while_reading_is_no_fault_of_the_archive(
    tmp_path: Path, members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = RawArchive(pack(tmp_path / "a.zip", members), tmp_path / "out")
    for number, kind in ((errno.EIO, OSError), (errno.EINVAL, RejectedInput)):

        def fail(*_: object, number: int = number) -> NoReturn:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(source._zip, "open", fail)
        with pytest.raises(kind):
            source.place(IMAGES + "bull.jpg", "images/bull.jpg")


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("lie", [False, True])
def test_a_large_directory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64: bool, lie: bool
) -> None:
    path = tmp_path / "a.zip"
    if zip64:
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    with zipfile.ZipFile(path, "w") as stream:
        for number in range(40):
            stream.writestr(f"{number:04}.png", b"")
        stream.comment = b"" if zip64 else b"with a comment"
    data = bytearray(path.read_bytes())
    assert (b"PK\6\6" in data) == zip64
    if lie:  # of the entries; of the bytes it cannot
        end = data.rindex(b"PK\5\6")
        data[end + 8 : end + 12] = bytes(4)
        if zip64:
            end = data.rindex(b"PK\6\6")
            data[end + 24 : end + 40] = bytes(16)
        path.write_bytes(data)

    def parsed(*_: object) -> NoReturn:
        raise AssertionError("the directory was read")

    monkeypatch.setattr(zipfile, "ZipFile", parsed)
    with pytest.raises(UserError, match="more than 3 members"):
        RawArchive(path, tmp_path / "out", ArchiveLimits(max_members=3))


def test_an_encrypted_member_is_named(tmp_path: Path, members: dict[str, bytes]) -> None:
    archive = pack(tmp_path / "a.zip", members)
    data = bytearray(archive.read_bytes())
    first = data.index(b"PK\1\2")
    data[first + 8] |= 1
    archive.write_bytes(data)
    status, rejected = run(archive, tmp_path / "m.jsonl")
    assert status == 3
    assert "encrypted" in rejected.values()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_bound_is_not_used(
    tmp_path: Path, members: dict[str, bytes], method: int
) -> None:
    with zipfile.ZipFile(pack(tmp_path / "a.zip", members), "a") as archive:
        archive.writestr(f"{IMAGES}bomb.jpg", bytes(2**20), method)
    assert run(tmp_path / "a.zip", tmp_path / "m.jsonl") == (
        3,
        {f"{IMAGES}bomb.jpg": "compression"},
    )


def test_only_what_a_layout_asks_for_is_written(
    tmp_path: Path, members: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    members |= {"notes/readme.txt": b"x" * 9999, "label_in_wild/images/.hidden.jpg": b"x"}
    assert run(pack(tmp_path / "a.zip", members), tmp_path / "out" / "m.jsonl") == (0, {})
    assert len([p for p in everything(tmp_path / "out") if not p.endswith("jsonl")]) == 4
    assert "a.zip: 1 hidden images are left out" in caplog.text


def test_long_and_odd_names_get_names_of_ours(tmp_path: Path, members: dict[str, bytes]) -> None:
    stem = "ü" * 120 + " (1)"
    photo(tmp_path / "p.jpg", region("p"))
    mask(tmp_path / "p.png", region("p"))
    members[f"{IMAGES}{stem}.jpg"] = (tmp_path / "p.jpg").read_bytes()
    members[f"{MASKS}{stem}.png"] = (tmp_path / "p.png").read_bytes()
    assert run(pack(tmp_path / "a.zip", members), tmp_path / "m.jsonl") == (0, {})
    manifest = read_manifest(tmp_path / "m.jsonl")
    sample = next(sample for sample in manifest.samples if stem in sample.id)
    assert len(Path(sample.image).stem) == 32
    assert manifest.image_path(sample).is_file()


def test_a_full_disk_is_no_fault_of_the_archive(
    tmp_path: Path,
    members: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(handle: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    archive = pack(tmp_path / "a.zip", members)
    monkeypatch.setattr("os.fsync", full)
    assert run(archive, tmp_path / "m.jsonl") == (1, {})
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_name_that_is_file_and_folder(tmp_path: Path, members: dict[str, bytes]) -> None:
    source = RawArchive(pack(tmp_path / "a.zip", members), tmp_path / "out")
    source.place(IMAGES + "bull.jpg", "images/a")
    with pytest.raises(RejectedInput, match="a file and a folder"):
        source.place(MASKS + "bull.png", "images/a/b")


@given(st.text(alphabet="ab./\\:\0 \u00e9", max_size=12))
def test_what_passes_as_relative_stays_below_its_root(text: str) -> None:
    try:
        check_relative(text)
    except UserError:
        return
    root = Path("/srv/data")
    assert Path(f"{root}/{text}").is_relative_to(root)
    assert ".." not in Path(text).parts


def test_backslashes_divide_folders_where_nothing_else_does(
    tmp_path: Path, members: dict[str, bytes]
) -> None:
    """As older versions of PowerShell's Compress-Archive write archives."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name.replace("/", "\\")
            archive.writestr(info, data)
    assert run(tmp_path / "a.zip", tmp_path / "out" / "m.jsonl") == (0, {})
    assert len(read_manifest(tmp_path / "out" / "m.jsonl").samples) == 2


def test_backslashes_lead_out_no_more_than_slashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("..\\evil.jpg", "C:\\evil.jpg", "\\evil.jpg"):
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            archive.writestr(info, b"x")
    status, rejected = run(tmp_path / "a.zip", tmp_path / "out" / "m.jsonl")
    assert (status, set(rejected.values())) == (1, {"bad_name"})
    assert everything(tmp_path / "out") <= {"m.errors.jsonl"}
