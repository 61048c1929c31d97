from pathlib import Path

from data_prep.importers.layout import connected
from tests.helpers.imports import imported
from tests.helpers.trees import TREES, photo


def test_no_image_is_lost_without_a_word(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    photo(source / "DSO-1" / "splicing-03 (copy).png")
    photo(source / "DSI-1" / "normal-1.png")
    (source / "links").mkdir()
    (source / "linked").symlink_to(source / "links", target_is_directory=True)
    (source / "DSO-1" / "normal-09.png").symlink_to(source / "DSO-1" / "normal-01.png")
    _, rejected = imported(tmp_path, "dso1")
    assert rejected == {
        "DSO-1/splicing-03 (copy).png": "unmatched",
        "linked": "not_a_file",
        "DSO-1/normal-09.png": "not_a_file",
    }


def test_chains_that_meet_late_are_one_component() -> None:
    chains = [["a", "b"], ["c", "d"], ["e"], ["d", "b"]]
    assert connected(chains) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}
