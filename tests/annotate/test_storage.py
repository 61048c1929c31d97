import json
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from boxpromptiml.annotate.photographs import Photograph, find_photographs
from boxpromptiml.annotate.storage import (
    Annotation,
    Outdated,
    Saved,
    Storage,
    manifest_path,
    open_out,
    read_saved,
)
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.records import Box
from data_prep.import_boxes import import_boxes
from tests.helpers.approx import approx

BOXED = Annotation(
    "manipulated",
    (Box(1.25, 2.0, 10.1, 12.0), Box(20.0, 5.0, 30.0, 20.0)),
    True,
    6.5,
    "ana",
    "2026-01-01",
)
CLEAN = Annotation("authentic", (), True, 3.0, "ana", "2026-01-02")
SKIPPED = Annotation("skipped", (), True, 9.0, "ben", "2026-01-03")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png", "c/d.png", "e.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        images.write_png(tmp_path / "photos" / name, pixels)
    return tmp_path / "photos"


def open_storage(folder: Path, out: Path) -> Storage:
    saved = open_out(out)
    found, _ = find_photographs(folder, saved.photographs)
    return Storage(out, folder, found, saved, "mine", "val")


def annotated(folder: Path, out: Path) -> Storage:
    storage = open_storage(folder, out)
    for name, one in (("a.png", BOXED), ("b.png", CLEAN), ("c/d.png", SKIPPED)):
        storage.put(name, one, 0)
    return storage


def test_the_manifest_says_what_a_job_needs(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "boxes.json"
    annotated(folder, out)
    manifest = read_manifest(manifest_path(out))
    assert [(s.id, s.image, s.label, s.boxes, s.box_origin, s.split) for s in manifest.samples] == [
        ("mine/a.png", "a.png", 1, BOXED.boxes, "human", "val"),
        ("mine/b.png", "b.png", 0, (), "human", "val"),
        ("mine/c/d.png", "c/d.png", None, None, None, "val"),  # skipped: unknown
        ("mine/e.png", "e.png", None, None, None, "val"),
    ]
    for sample in manifest.samples:
        assert manifest.image_path(sample).is_file()
        assert sample.size == (20, 30)
        assert sample.image_sha256 == images.probe(manifest.image_path(sample)).sha256


def test_pycocotools_reads_the_boxes(folder: Path, tmp_path: Path) -> None:
    annotated(folder, tmp_path / "boxes.json")
    coco = COCO(tmp_path / "boxes.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        "a.png", "b.png", "c/d.png", "e.png"
    ]  # fmt: skip
    rows: Any = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    found = [row["bbox"] for row in rows]
    assert found == [approx([1.25, 2, 8.85, 10]), approx([20, 5, 10, 15])]


def test_import_boxes_gives_the_same_boxes(folder: Path, tmp_path: Path) -> None:
    """From the COCO file, into the manifest of the same photographs before anybody drew."""
    open_storage(folder, tmp_path / "empty.json")
    annotated(folder, tmp_path / "boxes.json")
    out = tmp_path / "imported.jsonl"
    status = import_boxes(tmp_path / "empty.jsonl", tmp_path / "boxes.json", "coco", out)
    assert status == 0
    ours = read_manifest(tmp_path / "boxes.jsonl").samples
    for mine, imported in zip(ours, read_manifest(out).samples, strict=True):
        assert (imported.image, imported.box_origin) == (mine.image, mine.box_origin)
        assert (imported.boxes is None) == (mine.boxes is None)
        np.testing.assert_allclose(imported.boxes or (), mine.boxes or (), atol=1e-9)


def test_it_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "boxes.json"
    annotated(folder, out)
    (tmp_path / "boxes.jsonl").unlink()  # as if killed between the two files
    before = out.read_bytes()
    storage = open_storage(folder, out)
    assert out.read_bytes() == before
    assert len(read_manifest(tmp_path / "boxes.jsonl").samples) == 4
    assert storage.get("a.png") == (BOXED, 0)
    assert list(storage.annotations().values()) == [BOXED, CLEAN, SKIPPED, Annotation()]


def test_photographs_that_come_and_go_cost_nothing(folder: Path, tmp_path: Path) -> None:
    annotated(folder, tmp_path / "boxes.json")
    (folder / "a.png").rename(tmp_path / "a.png")
    images.write_png(folder / "aa.png", np.zeros((5, 5, 3), np.uint8))
    storage = open_storage(folder, tmp_path / "boxes.json")
    assert list(storage.annotations()) == ["a.png", "aa.png", "b.png", "c/d.png", "e.png"]
    assert storage.get("a.png")[0] == BOXED


def test_of_two_who_save_at_once_one_is_told(folder: Path, tmp_path: Path) -> None:
    storage = open_storage(folder, tmp_path / "boxes.json")
    assert storage.put("a.png", BOXED, 0) == 1
    with pytest.raises(Outdated):
        storage.put("a.png", CLEAN, 0)
    assert storage.get("a.png") == (BOXED, 1)
    assert storage.put("a.png", CLEAN, 1) == 2


@pytest.mark.parametrize("name", ["boxes.json", "boxes.jsonl"])
def test_what_another_program_wrote_meanwhile_is_kept(
    folder: Path, tmp_path: Path, name: str
) -> None:
    storage = open_storage(folder, tmp_path / "boxes.json")
    storage.put("a.png", BOXED, 0)
    (tmp_path / name).write_text("by hand")
    with pytest.raises(FileExistsError, match=f"{name} was changed by another program; move it"):
        storage.put("b.png", CLEAN, 0)
    assert (tmp_path / name).read_text() == "by hand"
    (tmp_path / name).rename(tmp_path / "mine")
    storage.put("b.png", CLEAN, 0)
    saved = read_saved(tmp_path / "boxes.json").annotations
    assert (saved["a.png"], saved["b.png"]) == (BOXED, CLEAN)
    assert len(read_manifest(tmp_path / "boxes.jsonl").samples) == 4


def test_a_list_of_somebody_else_beside_it_is_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "boxes.errors.jsonl").write_text("my diary")
    with pytest.raises(UserError, match=r"boxes\.errors\.jsonl: is there, and not of an earlier"):
        open_storage(folder, tmp_path / "boxes.json")


def test_threads_lose_nothing(folder: Path, tmp_path: Path) -> None:
    storage = open_storage(folder, tmp_path / "boxes.json")
    names = ("a.png", "b.png", "c/d.png", "e.png")
    threads = [Thread(target=storage.put, args=(name, BOXED, 0)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_saved(tmp_path / "boxes.json").annotations.values()) == {BOXED}


def test_what_cannot_be_written_is_not_believed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(folder, tmp_path / "boxes.json")
    before = (tmp_path / "boxes.json").read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("boxpromptiml.annotate.storage.write_json", fail)
        with pytest.raises(OSError, match="No space"):
            storage.put("a.png", BOXED, 0)
    assert storage.get("a.png") == (Annotation(), 0)
    assert (tmp_path / "boxes.json").read_bytes() == before
    assert storage.put("a.png", BOXED, 0) == 1


def change(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    content["images"][0][key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("verdict", "odd"),
        ("verdict", None),  # although it has boxes
        ("seconds", "7"),
        ("seconds", -1),
        ("orientation", 9),
        ("height", 2.5),
        ("height", 0),
        ("width", 25),  # its boxes lie outside
        ("id", 2),
        ("file_name", "b.png"),
        ("file_name", "../secret.png"),
    ],
)
def test_an_edited_file_is_one_line(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    annotated(folder, tmp_path / "boxes.json")
    change(tmp_path / "boxes.json", key, value)
    before = (tmp_path / "boxes.json").read_bytes()
    with pytest.raises(UserError, match=r"boxes\.json: ") as caught:
        open_storage(folder, tmp_path / "boxes.json")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "boxes.json").read_bytes() == before


def test_files_of_others_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    annotated(folder, tmp_path / "boxes.json")
    with pytest.raises(UserError, match=r"must end in \.json"):
        open_out(tmp_path / "boxes.txt")
    other = tmp_path / "coco.json"
    other.write_text('{"info": {}, "images": [], "annotations": []}')
    with pytest.raises(UserError, match="was not written by"):
        open_out(other)
    lines = (tmp_path / "boxes.jsonl").read_text().replace('"annotate"', '"import"')
    (tmp_path / "train.jsonl").write_text(lines)
    with pytest.raises(UserError, match=r"train\.jsonl: was not written by"):
        open_out(tmp_path / "train.json")
    assert open_out(tmp_path / "new.json") == Saved()


def test_ten_thousand_photographs_are_read_back(tmp_path: Path) -> None:
    every = [Photograph(f"{number:05}.jpg", (3000, 4000), 1, "0" * 64) for number in range(10_000)]
    storage = Storage(tmp_path / "boxes.json", tmp_path, every, Saved(), "mine", "train")
    storage.put("09999.jpg", replace(BOXED, boxes=(Box(0, 0, 4000, 3000),)), 0)
    assert read_saved(tmp_path / "boxes.json").annotations["09999.jpg"].verdict == "manipulated"
