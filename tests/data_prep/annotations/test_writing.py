"""What the writers write, read by other people's libraries and by our own readers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from defusedxml.ElementTree import parse
from globox import AnnotationSet
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from boxpromptiml.records import Box, Sample, Split
from data_prep.annotations import AnnotatedImage, coco, cvat, labelstudio, voc, yolo
from data_prep.annotations.fitting import fit_boxes
from data_prep.annotations.parts import split_parts
from data_prep.annotations.writing import WRITERS, Drawn, WrittenFormat, refuse_same_file
from tests.helpers.annotation_files import DRAWN, SIZE
from tests.helpers.approx import approx

FORMATS = get_args(WrittenFormat)
SINGLE = {"coco": "x.json", "cvat": "x.xml", "labelstudio": "x.json"}
MASK = np.zeros(SIZE, np.bool_)
MASK[10:30, 20:60] = True
MASK[15:20, 30:40] = False  # a gap inside
MASK[50:80, 90:120] = True  # up to the image's corner
CLASS = "möglich & <fake>"


def _sample(image: str, boxes: Any, split: Split = "train") -> Sample:
    return Sample(image, "d", split, image, image, SIZE, 1, boxes)


IMAGES = [
    Drawn(_sample(f"sub/{name}", tuple(Box(*box) for box in boxes)))
    for name, boxes in DRAWN.items()
]
UNANNOTATED = Drawn(_sample("sub/nobody.jpg", None, "val"))


def _masked() -> Drawn:
    parts = split_parts(MASK)
    boxes = tuple(box for box, _ in parts)
    return Drawn(_sample("sub/m.jpg", boxes), tuple(part for _, part in parts))


def _write(folder: Path, kind: WrittenFormat, images: Sequence[Drawn], name: str = CLASS) -> Path:
    for path, text in WRITERS[kind].texts(images, name):
        target = folder / (path or SINGLE[kind])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder / SINGLE.get(kind, "")


def _read(folder: Path, kind: WrittenFormat) -> list[AnnotatedImage]:
    if kind == "coco":
        return coco.read(folder / SINGLE[kind]).images
    if kind == "cvat":
        return cvat.read(folder / SINGLE[kind]).images
    if kind == "labelstudio":
        return labelstudio.read(folder / SINGLE[kind]).images
    read, top = (voc.read, "Annotations") if kind == "voc" else (yolo.read, "labels")
    found: list[AnnotatedImage] = []
    for path in (folder / top).rglob("*.*"):
        found += read(path, path.parent.relative_to(folder / top).as_posix()).images
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_our_readers_give_the_boxes_back(kind: WrittenFormat, tmp_path: Path) -> None:
    _write(tmp_path, kind, IMAGES)
    found = {Path(one.name).stem: one for one in _read(tmp_path, kind)}
    assert len(found) == len(IMAGES)
    for drawn in IMAGES:
        one = found[Path(drawn.sample.image).stem]
        boxes = fit_boxes(one, one.name, SIZE).boxes
        assert boxes == tuple(approx(box, abs=1e-9) for box in drawn.sample.boxes or ())
        assert one.annotated
        assert {shape.label for shape in one.shapes} <= {"0" if kind == "yolo" else CLASS}


sides = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda s: abs(s[0] - s[1]) > 1e-4)
anything = st.tuples(sides, sides, st.integers(1, 20_000), st.integers(1, 20_000))


@settings(max_examples=25)
@given(values=anything)
@pytest.mark.parametrize("kind", FORMATS)
def test_any_box_of_any_image_comes_back(
    kind: WrittenFormat, values: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (xs, ys, height, width) = values
    box = Box(min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height)
    drawn = Drawn(replace(_sample("x.jpg", (box,)), size=(height, width)))
    folder = tmp_path_factory.mktemp("any")
    _write(folder, kind, [drawn])
    (one,) = _read(folder, kind)
    assert fit_boxes(one, "x.jpg", (height, width)).boxes == (approx(box, abs=1e-7),)


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"voc"}))
def test_our_readers_give_the_boxes_of_masks_back(kind: WrittenFormat, tmp_path: Path) -> None:
    masked = _masked()
    _write(tmp_path, kind, [masked])
    (one,) = _read(tmp_path, kind)
    assert fit_boxes(one, one.name, SIZE).boxes == tuple(
        approx(b) for b in masked.sample.boxes or ()
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_images_that_nobody_annotated_are_marked_or_left_out(
    kind: WrittenFormat, tmp_path: Path
) -> None:
    _write(tmp_path, kind, [UNANNOTATED, IMAGES[0]])
    found = {Path(one.name).stem: one.annotated for one in _read(tmp_path, kind)}
    expected = {"coco": False, "labelstudio": False, "cvat": True}  # CVAT cannot say it
    assert found.pop("nobody", None) == expected.get(kind)
    assert len(found) == 1
    assert not (tmp_path / "val.txt").exists()


@pytest.mark.parametrize("kind", ["voc", "yolo", "cvat", "coco"])
def test_globox_reads_the_boxes(kind: WrittenFormat, tmp_path: Path) -> None:
    from PIL import Image

    single = _write(tmp_path, kind, IMAGES, "forged")
    if kind == "coco":
        read = AnnotationSet.from_coco(single)
    elif kind == "cvat":
        read = AnnotationSet.from_cvat(single)
    elif kind == "voc":
        read = AnnotationSet.from_pascal_voc(tmp_path / "Annotations" / "sub")
    else:
        for name in DRAWN:
            Image.new("L", SIZE[::-1]).save(tmp_path / name)
        read = AnnotationSet.from_yolo_v5(
            tmp_path / "labels" / "sub", image_folder=tmp_path, image_extension=".jpg"
        )
    assert len(read) == len(DRAWN)
    for image_id in read.image_ids:
        boxes = [approx(box, abs=1e-6) for box in DRAWN[Path(image_id).name]]
        assert [box.ltrb for box in read[image_id].boxes] == boxes
        assert {box.label for box in read[image_id].boxes} <= {"0" if kind == "yolo" else "forged"}


def test_pycocotools_reads_the_masks(tmp_path: Path) -> None:
    read = COCO(str(_write(tmp_path, "coco", [IMAGES[0], _masked()])))
    annotations = read.loadAnns(read.getAnnIds(2))
    assert (sum(read.annToMask(one) for one in annotations) == MASK).all()
    assert sum(one["area"] for one in annotations) == MASK.sum()
    assert [one["segmentation"] for one in read.loadAnns(read.getAnnIds(1))] == [[], []]
    assert [one["bbox"] for one in annotations] == [[20, 10, 40, 20], [90, 50, 30, 30]]


def test_masks_of_cvat_are_runs_along_the_rows_of_their_boxes(tmp_path: Path) -> None:
    root = parse(_write(tmp_path, "cvat", [_masked()])).getroot()
    found = np.zeros(SIZE, np.bool_)
    for node in root.iter("mask"):
        left, top, width, height = (
            int(float(node.get(k))) for k in ("left", "top", "width", "height")
        )
        runs = [int(run) for run in node.get("rle").split(", ")]
        part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
        found[top : top + height, left : left + width] |= part
    assert (found == MASK).all()
    assert root.findtext("meta/task/labels/label/name") == CLASS


def test_a_yolo_folder_lists_its_images_by_split(tmp_path: Path) -> None:
    images = [Drawn(_sample("a.jpg", ())), Drawn(_sample("s/ü b.png", (), "test"))]
    _write(tmp_path, "yolo", images, 'a: "b"')
    data = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert data == {"train": "train.txt", "test": "test.txt", "names": {0: 'a: "b"'}}
    assert (tmp_path / "test.txt").read_text() == "./images/s/ü b.png\n"
    assert (tmp_path / "labels" / "s" / "ü b.txt").read_text() == ""


def test_label_studio_is_percent_of_the_image(tmp_path: Path) -> None:
    tasks = json.loads(_write(tmp_path, "labelstudio", [IMAGES[0]], "f").read_text())
    assert tasks[0]["data"] == {"image": "/data/local-files/?d=sub/a%20b.jpg"}
    result = tasks[0]["annotations"][0]["result"][1]
    whole = {"x": 0, "y": 0, "width": approx(100), "height": approx(100), "rotation": 0}
    assert result["value"] == whole | {"rectanglelabels": ["f"]}
    assert (result["original_width"], result["original_height"]) == SIZE[::-1]


def test_images_that_would_share_a_file_are_rejected() -> None:
    names = ["a.jpg", "b/a.jpg", "b/a.png", "c.d.jpg", "c.jpg"]
    found = refuse_same_file([_sample(name, ()) for name in names])
    assert [error.path for error in found] == ["b/a.jpg", "b/a.png"]
