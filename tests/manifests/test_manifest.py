import json
import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifests import manifest
from boxpromptiml.manifests.manifest import (
    Header,
    confined,
    join_by_key,
    read_manifest,
    read_rows,
    relative_root,
    safe_name,
    write_manifest,
)
from boxpromptiml.records import Box, Sample

SAMPLE = Sample("a", "d", "train", "g", "x/y.jpg", (5, 6), 1, (Box(0, 0, 2.5, 3),))


def _write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


HEADER = {"schema_version": 1}
ROW = {
    "id": "a",
    "dataset": "d",
    "split": "train",
    "group": "g",
    "image": "x.jpg",
    "size": [5, 6],
    "label": 1,
    "boxes": [[0, 0, 2.5, 3]],
}


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    full = replace(
        SAMPLE, id="b", kind="splice", mask="m.png", mask_threshold=9, image_sha256="0" * 64
    )
    header = Header(notes={"why": "é"}, teacher_signature="t", image_root="../x")
    written = write_manifest(tmp_path / "m.jsonl", header, [SAMPLE, full])
    assert read_manifest(tmp_path / "m.jsonl") == written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labl": 1}, "labl"),
        ({"label": 2}, "label"),
        ({"label": "1"}, "label"),
        ({"size": [5]}, "size"),
        ({"size": [0, 6]}, "size"),
        ({"split": "dev"}, "split"),
        ({"boxes": [[0, 0, 7, 3]]}, "outside"),
        ({"boxes": [[3, 0, 2, 3]]}, "inverted"),
        ({"boxes": [[1, 1, 1, 3]]}, "empty"),
        ({"boxes": [[0, 0, "1", 3]]}, "boxes"),
        ({"image": "/etc/passwd"}, "relative"),
        ({"image": "a/../../b"}, "relative"),
        ({"mask": "c:\\b"}, "relative"),
        ({"pseudo_mask": "a\0b"}, "relative"),
        ({"id": ""}, "id"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "m.jsonl", HEADER, ROW, {**ROW, "id": "b", **change})
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(path)
    assert f"{path}:3" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"id": "a", "id": "b"}',
        json.dumps({**ROW, "boxes": [[0, 0, float("nan"), 3]]}),
        json.dumps(ROW).replace("2.5", "1e999"),
        "[" * 100_000,
    ],
)
def test_what_json_lets_through_is_refused(tmp_path: Path, line: str) -> None:
    path = _write(tmp_path / "m.jsonl", HEADER, line)
    with pytest.raises(UserError, match=r"m\.jsonl:2"):
        read_manifest(path)


def test_numbers_of_the_header_are_finite_too(tmp_path: Path) -> None:
    header = json.dumps({**HEADER, "notes": {"x": 1.25}}).replace("1.25", "1e999")
    path = _write(tmp_path / "m.jsonl", header, ROW)
    with pytest.raises(UserError, match=r"m\.jsonl:1.*1e999"):
        read_manifest(path)


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", HEADER, ROW, ROW)
    with pytest.raises(UserError, match=r"m\.jsonl:3.*line 2"):
        read_manifest(path)


def test_equal_hashes_are_not_yet_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "hash", lambda _: 7, raising=False)
    path = _write(tmp_path / "m.jsonl", HEADER, *({**ROW, "id": name} for name in "abc"))
    assert [sample.id for sample in read_manifest(path).samples] == ["a", "b", "c"]
    path = _write(tmp_path / "m.jsonl", HEADER, *({**ROW, "id": name} for name in "abcb"))
    with pytest.raises(UserError, match=r"m\.jsonl:5: duplicate id 'b', first on line 3"):
        read_manifest(path)


def test_the_first_error_is_told_and_all_are_known(tmp_path: Path) -> None:
    rows = [ROW, "", {**ROW, "label": 2}, "{", ROW, {**ROW, "id": "b"}, ROW]
    path = _write(tmp_path / "m.jsonl", HEADER, *rows)
    with pytest.raises(UserError, match=r"m\.jsonl:4"):
        read_manifest(path)
    _, kept, errors = read_rows(path)
    assert [sample.id for sample in kept] == ["a", "b"]
    lines = [str(error).removeprefix(f"{path}:").partition(":")[0] for error in errors]
    assert lines == ["4", "5", "6", "8"]


def test_windows_line_ends_and_a_missing_last_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes("\r\n".join(json.dumps(row) for row in (HEADER, ROW)).encode())
    (sample,) = read_manifest(path).samples
    assert sample.boxes == (Box(0, 0, 2.5, 3),)


def test_a_manifest_may_be_written_over_itself(tmp_path: Path) -> None:
    first = write_manifest(tmp_path / "m.jsonl", Header(), [SAMPLE, replace(SAMPLE, id="é")])
    changed = (replace(sample, kind="splice") for sample in first.samples)
    second = write_manifest(first.path, first.header, changed)
    assert [sample.kind for sample in first.samples] == [None, None]
    assert [(sample.id, sample.kind) for sample in second.samples] == [
        ("a", "splice"), ("é", "splice")
    ]  # fmt: skip
    assert read_manifest(first.path) == second


def test_a_bad_sample_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    written = write_manifest(tmp_path / "m.jsonl", Header(), [SAMPLE])
    with pytest.raises(UserError, match="'b'"):
        write_manifest(written.path, Header(), [SAMPLE, replace(SAMPLE, id="b", image="../x")])
    assert read_manifest(written.path) == written
    assert list(tmp_path.iterdir()) == [written.path]


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is not a regular file"):
        read_manifest(tmp_path / "pipe")


def test_missing_empty_binary_and_newer_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="empty"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "bin.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        read_manifest(tmp_path / "bin.jsonl")
    path = _write(tmp_path / "new.jsonl", {"schema_version": 2})
    with pytest.raises(UserError, match="schema 2"):
        read_manifest(path)


@given(st.text(max_size=30))
def test_confined_never_leaves_its_root(text: str) -> None:
    root = Path("/data/root")
    try:
        path = confined(root, text)
    except UserError:
        return
    assert path.resolve().is_relative_to(root)


def test_confined_refuses_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="link"):
        confined(tmp_path / "root", "link")


def test_a_link_that_leads_out_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "root" / "circle").symlink_to("circle")
    for name in ("link/x.png", "circle"):
        sample = Sample("a", "d", "train", "g", name, (4, 4), 1, None, mask=name, pseudo_mask=name)
        header = Header(image_root="root", pseudo_root="root")
        write_manifest(tmp_path / "m.jsonl", header, [sample])
        read = read_manifest(tmp_path / "m.jsonl")
        for path_of in (read.image_path, read.mask_path, read.pseudo_mask_path):
            with pytest.raises(RejectedInput, match=r"\[bad_path\]"):
                path_of(sample)


def test_roots_are_found_from_the_manifests_folder(tmp_path: Path) -> None:
    root = relative_root(tmp_path / "a" / "m.jsonl", tmp_path / "b")
    manifest = write_manifest(tmp_path / "a" / "m.jsonl", Header(image_root=root), [SAMPLE])
    assert manifest.image_path(SAMPLE).resolve() == (tmp_path / "b" / "x" / "y.jpg").resolve()
    assert manifest.mask_path(SAMPLE) is None


keys = st.dictionaries(st.text(max_size=3), st.integers(), max_size=8)


@given(keys, keys)
def test_join_loses_nothing(left: dict[str, int], right: dict[str, int]) -> None:
    pairs, only_left, only_right = join_by_key(left, right)
    assert sorted([*pairs, *only_left]) == sorted(left)
    assert sorted([*pairs, *only_right]) == sorted(right)
    assert all(pairs[key] == (left[key], right[key]) for key in pairs)


def test_the_files_of_an_id_are_in_nobodys_way() -> None:
    ids = ["a", "a.png/b", "a.PNG/c", "a.png/b.json/d", "x/v1.0/y", "x/v1.0"]
    files = {safe_name(one) + ending for one in ids for ending in (".png", ".json", ".jpg")}
    folders = {str(folder) for file in files for folder in PurePosixPath(file.lower()).parents}
    assert len(files) == 3 * len(ids)
    assert folders.isdisjoint(files)
    assert safe_name("x/v1.0/y") == "x/v1.0/y"


@pytest.mark.parametrize("key", ["image_root", "pseudo_root"])
def test_a_root_with_nul_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"m\.jsonl:1: image_root and pseudo_root"):
        read_manifest(_write(tmp_path / "m.jsonl", {**HEADER, key: "a\0b"}, ROW))


@pytest.mark.parametrize("key", ["id", "image", "group", "dataset"])
def test_half_a_character_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"m\.jsonl:2: .*JSON"):
        read_manifest(_write(tmp_path / "m.jsonl", HEADER, {**ROW, key: "a\ud800b"}))


def test_a_size_that_no_image_may_have_is_refused(tmp_path: Path) -> None:
    """Else arrays of that size are made before anyone finds that the file is missing."""
    with pytest.raises(UserError, match=r"m\.jsonl:2: size is 60000 x 50000, above the 89478485"):
        read_manifest(_write(tmp_path / "m.jsonl", HEADER, {**ROW, "size": [50000, 60000]}))
