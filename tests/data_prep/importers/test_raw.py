from pathlib import Path

import pytest

from tests.helpers.imports import imported, run
from tests.helpers.trees import TREES


def test_an_entry_that_cannot_be_looked_at_does_not_lose_the_rest(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    (source / "a").symlink_to(source / "b")
    (source / "b").symlink_to(source / "a")
    manifest, rejected = imported(tmp_path, "dso1")
    assert rejected == {"a": "not_a_file", "b": "not_a_file"}
    assert len(manifest.samples) == 4


def test_links_are_followed_when_asked_and_not_in_circles(tmp_path: Path) -> None:
    source, other = tmp_path / "raw" / "dso1", tmp_path / "elsewhere"
    TREES["dso1"](source)
    plain, _ = imported(tmp_path, "dso1")
    (source / "DSO-1").rename(other)
    (source / "DSO-1").symlink_to(other, target_is_directory=True)
    (other / "again").symlink_to(source, target_is_directory=True)
    assert run("dso1", source, tmp_path / "m.jsonl") == 1  # nothing is left of it
    manifest, rejected = imported(tmp_path, "dso1", "--follow_links", "true")
    assert rejected == {}
    assert [s.id for s in manifest.samples] == [s.id for s in plain.samples]
    assert all(manifest.image_path(s).parent.resolve() == other for s in manifest.samples)


def test_hidden_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    for name in (".thumbnails/a.png", ".b.JPG", "DSO-1/._c.png"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    imported(tmp_path, "dso1")
    assert "2 hidden images are left out" in caplog.text
