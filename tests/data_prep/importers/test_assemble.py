from pathlib import Path

import pytest

from data_prep.importers.datasets import PUBLIC
from tests.helpers.imports import imported
from tests.helpers.trees import TREES, mask, photo, region


def test_unexpected_counts_are_warnings_with_both_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, _ = imported(tmp_path, "dso1")
    assert "2 manipulated images, 100 expected" in capsys.readouterr().err
    assert "2 authentic images, 100 expected" in manifest.header.notes["warnings"]
    assert manifest.header.notes["counts"] == {"authentic": 2, "manipulated": 2, "splice": 2}


def test_two_names_for_one_image_are_told(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "casia_v2"
    TREES["casia_v2"](source)
    photo(source / "CASIA2" / "Au" / "Au_ani_00018.tif")
    _, rejected = imported(tmp_path, "casia_v2")
    assert rejected["CASIA2/Au/Au_ani_00018.tif"] == "duplicate"


def test_verify_suspects_inverted_masks(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "in_the_wild"
    photo(source / "images" / "a.jpg", region("a"))
    mask(source / "masks" / "a.png", ~region("a"))
    manifest, _ = imported(tmp_path, "in_the_wild", "--verify", "true")
    assert any("inverted" in warning for warning in manifest.header.notes["warnings"])


def test_a_giant_group_is_said(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "imd2020"
    for number in range(30):
        photo(source / "z1" / f"{number}_orig.jpg")
    manifest, _ = imported(tmp_path, "imd2020")
    assert any("30 of 30" in warning for warning in manifest.header.notes["warnings"])


def test_known_bad_sizes_say_where_the_right_ones_are(tmp_path: Path) -> None:
    for dataset in ("casia_v2", "coverage", "imd2020"):
        imported(tmp_path, dataset)
        text = (tmp_path / "out" / f"{dataset}.errors.jsonl").read_text()
        assert "github.com/SunnyHaze" in text
    assert len(PUBLIC["casia_v2"].known) == 17
    assert len(PUBLIC["coverage"].known) == 9
