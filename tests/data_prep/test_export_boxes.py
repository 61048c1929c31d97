import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.records import Box, Sample
from data_prep.__main__ import main
from tests.helpers.approx import approx

SIZE = (80, 120)
ROWS = {  # image: label, boxes, origin
    "t/my photo ü.jpg": (1, (Box(1.25, 2.5, 30.75, 40.125), Box(0, 0, 120, 80)), "mask"),
    "t/cam.jpg": (1, (Box(0.1, 0.2, 0.3, 0.7),), "cam"),
    "t/human.jpg": (None, (Box(1, 2, 3, 4),), "human"),
    "t/looked.jpg": (1, (), "human"),
    "t/network.jpg": (1, (), "cam"),
    "t/empty of unknown.jpg": (1, (), None),
    "t/unknown.jpg": (1, (Box(1, 2, 3, 4),), None),
    "t/nobody.jpg": (1, None, None),
    "a/authentic.jpg": (0, (), None),
}


def _samples(rows: dict[str, Any], blank: bool = False) -> list[Sample]:
    return [
        Sample(
            id=image,
            dataset="d",
            split="train",
            group=image,
            image=image,
            size=SIZE,
            label=label,
            boxes=((() if label == 0 else None) if blank else boxes),
            box_origin=None if blank else origin,
        )
        for image, (label, boxes, origin) in rows.items()
    ]


def _exported(tmp_path: Path, samples: list[Sample]) -> Path:
    write_manifest(tmp_path / "m.jsonl", Header(), samples)
    words = ["--manifest", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "boxes.json")]
    assert main(["export-boxes", *words]) == 0
    return tmp_path / "boxes.json"


def _round_trip(tmp_path: Path, rows: dict[str, Any]) -> Sequence[Sample]:
    _exported(tmp_path, _samples(rows))
    write_manifest(tmp_path / "m.jsonl", Header(), _samples(rows, blank=True))
    words = ["--manifest", tmp_path / "m.jsonl", "--annotations", tmp_path / "boxes.json"]
    words += ["--format", "coco", "--out", tmp_path / "back.jsonl"]
    assert main(["import-boxes", *map(str, words)]) == 0
    return read_manifest(tmp_path / "back.jsonl").samples


def test_everything_comes_back(tmp_path: Path) -> None:
    for sample, (label, boxes, origin) in zip(
        _round_trip(tmp_path, ROWS), ROWS.values(), strict=True
    ):
        assert sample.label == label
        assert sample.box_origin == origin
        if boxes is None:
            assert sample.boxes is None
        else:
            assert sample.boxes == tuple(approx(box, abs=1e-9) for box in boxes)


def test_deleted_and_added_boxes_are_a_persons(tmp_path: Path) -> None:
    rows = {"deleted.jpg": (1, (Box(1, 2, 3, 4),), "cam"), "added.jpg": (1, (), "cam")}
    samples = _samples(rows)
    path = _exported(tmp_path, samples)
    content = json.loads(path.read_text())
    content["annotations"] = [{"image_id": 2, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    path.write_text(json.dumps(content))
    words = ["--manifest", tmp_path / "m.jsonl", "--annotations", path, "--format", "coco"]
    assert main(["import-boxes", *map(str, words), "--out", str(tmp_path / "back.jsonl")]) == 0
    back = read_manifest(tmp_path / "back.jsonl").samples
    assert [(s.boxes, s.box_origin) for s in back] == [((), "human"), (((1, 2, 4, 6),), "human")]


side = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda s: abs(s[0] - s[1]) > 1e-4)
drawn = st.lists(st.tuples(side, side), min_size=1, max_size=4).map(
    lambda pairs: tuple(
        Box(min(x) * SIZE[1], min(y) * SIZE[0], max(x) * SIZE[1], max(y) * SIZE[0])
        for x, y in pairs
    )
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(boxes=drawn)
def test_any_box_comes_back(tmp_path: Path, boxes: Any) -> None:
    (sample,) = _round_trip(tmp_path, {"x.jpg": (1, boxes, "mask")})
    assert sample.boxes == tuple(approx(box, abs=1e-9) for box in boxes)


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    coco = COCO(str(_exported(tmp_path, _samples(ROWS))))
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == list(ROWS)
    assert {(image["height"], image["width"]) for image in images} == {SIZE}
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["manipulated"]
    for image, (_, boxes, _) in zip(images, ROWS.values(), strict=True):
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        expected = [[b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0] for b in boxes or ()]
        assert [annotation["bbox"] for annotation in found] == expected
        assert [a["area"] for a in found] == [pytest.approx(w * h) for _, _, w, h in expected]


def test_globox_reads_it(tmp_path: Path) -> None:
    from globox import AnnotationSet

    read = AnnotationSet.from_coco(_exported(tmp_path, _samples(ROWS)))
    assert set(read.image_ids) == set(ROWS)
    for image, (_, boxes, _) in ROWS.items():
        assert [box.ltrb for box in read[image].boxes] == [pytest.approx(b) for b in boxes or ()]


def test_ids_are_unique_and_paths_relative(tmp_path: Path) -> None:
    content = json.loads(_exported(tmp_path, _samples(ROWS)).read_text())
    ids = [annotation["id"] for annotation in content["annotations"]]
    assert ids == [1, 2, 3, 4, 5]
    assert not any(image["file_name"].startswith("/") for image in content["images"])
