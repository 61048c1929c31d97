import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io.images import read_mask
from boxpromptiml.records import MaskArray
from data_prep.importers.archive import open_source
from data_prep.importers.assemble import assemble
from data_prep.importers.checking import ImportOptions
from data_prep.importers.layout import DatasetLayout, RawItem, Tree
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


def _rectangle(path: Path) -> MaskArray:
    try:
        (height, width), (x0, y0, x1, y1) = json.loads(path.read_text())
    except ValueError as error:
        raise RejectedInput(path, "bad_annotation", str(error)) from error
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _rectangles(tree: Tree) -> Iterator[RawItem]:
    for key, image, note in tree.pair(tree.by_key(r"(\w+)\.jpg"), tree.by_key(r"(\w+)\.json")):
        yield RawItem(key, image, 1, note)


def test_a_converter_reads_what_is_no_image(tmp_path: Path) -> None:
    """A mask may be described by a text; one that is broken or of another size is rejected."""
    raw = tmp_path / "raw"
    texts = {"good": "[[48, 64], [3, 4, 9, 11]]", "turned": "[[64, 48], [3, 4, 9, 11]]", "cut": "["}
    for name, text in texts.items():
        photo(raw / f"{name}.jpg", np.zeros((48, 64), bool))
        (raw / f"{name}.json").write_text(text)
    layout = DatasetLayout("own", "X.jpg, X.json", "rectangles", _rectangles, convert=_rectangle)
    masks = tmp_path / "masks"
    options = ImportOptions("own", None, None, False, tmp_path, masks)
    result = assemble(layout, open_source(raw, tmp_path / "files"), options)
    assert [sample.id for sample in result.samples] == ["own/good"]
    assert (read_mask(masks / "good.png") == _rectangle(raw / "good.json")).all()
    assert {Path(error.path).name: error.reason for error in result.rejected} == {
        "turned.json": "size_mismatch",
        "cut.json": "bad_annotation",
    }
