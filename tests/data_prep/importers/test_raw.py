from pathlib import Path

from tests.helpers.imports import imported
from tests.helpers.trees import TREES


def test_an_entry_that_cannot_be_looked_at_does_not_lose_the_rest(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    (source / "a").symlink_to(source / "b")
    (source / "b").symlink_to(source / "a")
    manifest, rejected = imported(tmp_path, "dso1")
    assert rejected == {"a": "not_a_file", "b": "not_a_file"}
    assert len(manifest.samples) == 4
