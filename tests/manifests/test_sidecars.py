"""A pseudo-mask counts only while its sidecar says that it is the one that is asked for."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.manifests.sidecars import (
    Sidecar,
    expected_fingerprint,
    mask_sha256,
    read_sidecar,
    sidecar_path,
    teacher_signature,
    write_sidecar,
)
from boxpromptiml.records import Box, Sample

SAMPLE = Sample("a", "d", "train", "g", "x/y.jpg", (5, 6), 1, (Box(0, 0, 2.5, 3),))
SIDECAR = Sidecar(
    schema_version=1,
    signature="s",
    image_sha256="i",
    mask_sha256="m",
    boxes=SAMPLE.boxes or (),
    teacher={"teacher": {"name": "grabcut"}, "consensus": {"copies": 1}},
    scores=(0.5,),
    notes=("degenerate: empty",),
    status="degenerate",
    unsure=0.25,
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    mask = tmp_path / "a.png"
    write_sidecar(mask, SIDECAR)
    assert sidecar_path(mask) == tmp_path / "a.json"
    assert read_sidecar(mask) == SIDECAR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "sidecar schema 2, not 1"),
        ({"status": "fine"}, "status"),
        ({"unsure": "much"}, "unsure"),
        ({"boxes": [[0, 0, 1]]}, "boxes"),
        ({"extra": 1}, "extra"),
    ],
)
def test_another_schema_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    mask = tmp_path / "a.png"
    write_sidecar(mask, SIDECAR)
    path = sidecar_path(mask)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        read_sidecar(mask)
    assert str(path) in str(caught.value)


def test_a_missing_or_odd_file_is_named_and_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: .*pseudo-masks"):
        read_sidecar(tmp_path / "a.png")
    (tmp_path / "b.json").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "c.json")
    (tmp_path / "d.json").write_text("[" * 10_000)
    for name in "bcd":
        with pytest.raises(UserError, match=f"{name}.json"):
            read_sidecar(tmp_path / f"{name}.png")


def test_the_fingerprint_depends_on_image_boxes_and_teacher() -> None:
    teacher = teacher_signature({"name": "grabcut"}, {"copies": 1})
    found = {
        expected_fingerprint(SAMPLE, "i", teacher),
        expected_fingerprint(SAMPLE, "j", teacher),
        expected_fingerprint(replace(SAMPLE, boxes=()), "i", teacher),
        expected_fingerprint(SAMPLE, "i", teacher_signature({"name": "sam"}, {"copies": 1})),
        expected_fingerprint(SAMPLE, "i", teacher_signature({"name": "grabcut"}, {"copies": 2})),
    }
    assert len(found) == 5
    same = replace(SAMPLE, id="b", boxes=(Box(0.0, 0.0, 2.5, 3.0),))  # 0 and 0.0 are one number
    assert expected_fingerprint(same, "i", teacher) in found


def test_the_hash_of_a_mask_is_that_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"png")
    assert mask_sha256(tmp_path / "a.png") == sha256_bytes(b"png")
    assert mask_sha256(tmp_path / "b.png") is None
