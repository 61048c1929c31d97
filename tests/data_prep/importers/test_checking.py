import os
from pathlib import Path

from tests.helpers.imports import imported
from tests.helpers.trees import TREES, mask, photo, region


def test_a_name_that_a_manifest_cannot_hold_does_not_lose_the_rest(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    for folder in ("label_in_wild", "c:"):
        stem = f"{folder[0]}\\b"
        photo(source / folder / "images" / f"{stem}.jpg", region(stem))
        mask(source / folder / "masks" / f"{stem}.png", region(stem))
    photo(source / "c:" / "images" / "c.jpg", region("c"))
    mask(source / "c:" / "masks" / "c.png", region("c"))
    manifest, rejected = imported(tmp_path, "in_the_wild")
    assert len(manifest.samples) == 2
    assert rejected == dict.fromkeys(
        ["label_in_wild/images/l\\b.jpg", "c:/images/c\\b.jpg", "c:/images/c.jpg"], "bad_name"
    )


def test_verify_finds_what_headers_hide(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    photo(source / "images" / "cut.jpg", region("cut"))
    mask(source / "masks" / "cut.png", region("cut"))
    photo(source / "images" / "black.jpg", region("black"))
    mask(source / "masks" / "black.png", region("black") & False)
    whole = (source / "images" / "cut.jpg").read_bytes()
    (source / "images" / "cut.jpg").write_bytes(whole[:-100])
    assert imported(tmp_path, "in_the_wild")[1] == {}
    assert imported(tmp_path, "in_the_wild", "--verify", "true")[1] == {
        "images/cut.jpg": "truncated_or_corrupt",
        "masks/black.png": "empty_mask",
    }


def test_names_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    folder = os.fsencode(source / "label_in_wild" / "images")
    photograph = (source / "label_in_wild" / "images" / "bull.jpg").read_bytes()
    for name in (b"a\xff.jpg", "b\u2028.jpg".encode(), b"c\nd.jpg"):
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(photograph)  # noqa: PTH118
        stem = os.fsdecode(name)[:-4]
        mask(source / "label_in_wild" / "masks" / f"{stem}.png", region("bull"))
    manifest, rejected = imported(tmp_path, "in_the_wild")
    assert len(manifest.samples) == 2
    assert list(rejected.values()) == ["bad_name"] * 3
