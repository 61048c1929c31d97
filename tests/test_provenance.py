import hashlib
import json

import pytest

from boxpromptiml import provenance


def test_sha256_of_file_and_bytes_are_hashlibs(tmp_path):
    data = b"x" * 3_000_000
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert provenance.sha256_file(tmp_path / "f") == expected
    assert provenance.sha256_bytes(data) == expected


def test_signature_depends_on_content_and_not_on_order():
    assert provenance.signature({"a": [1, 2], "b": None}) == provenance.signature(
        {"b": None, "a": [1, 2]}
    )
    assert provenance.signature({"a": [1, 2]}) != provenance.signature({"a": [2, 1]})
    with pytest.raises(ValueError, match="JSON"):
        provenance.signature({"a": float("nan")})


def test_a_failing_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")

    def interrupted():
        with provenance.atomic_writer(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


def test_jsonl_escapes_names_that_are_not_text(tmp_path):
    path = tmp_path / "f.jsonl"
    rows = [{"path": "a\udcff\n\u202e.jpg"}, {"path": "é"}]
    provenance.write_jsonl(path, rows)
    lines = path.read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        provenance.write_json(tmp_path / "f.json", {"f1": float("nan")})
    assert not list(tmp_path.iterdir())
