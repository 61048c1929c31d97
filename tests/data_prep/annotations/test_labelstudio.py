import json
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from data_prep.annotations import labelstudio
from tests.helpers.annotation_files import SIZE, boxes_in


def result(kind: str = "rectanglelabels", **value: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "original_width": SIZE[1],
        "original_height": SIZE[0],
        "value": {kind: ["forged"]} | value,
    }


def task(*results: dict[str, Any], image: str = "/data/upload/1/x.jpg") -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(results)}]}


def write(path: Path, *tasks: Any) -> Path:
    (path / "x.json").write_text(json.dumps(list(tasks)))
    return path / "x.json"


def test_percent_of_the_picture_become_pixels(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        task(
            result(x=25, y=50, width=50, height=25),
            result(x=50, y=50, width=25, height=25, rotation=90),  # about its first corner
            result("ellipselabels", x=50, y=50, radiusX=10, radiusY=25, rotation=90),
            result("polygonlabels", points=[[10, 10], [20, 50], [5, 20]]),
            {"type": "choices", "value": {"choices": ["fake"]}},
        ),
    )
    boxes, rejected = boxes_in(labelstudio, path)
    expected = [(30, 40, 90, 60), (40, 40, 60, 70), (40, 28, 80, 52), (6, 8, 24, 40)]
    assert boxes["data/upload/1/x.jpg"] == tuple(pytest.approx(box) for box in expected)
    assert rejected == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("/data/upload/7/0a1b2c3d-a%20b.jpg", "data/upload/7/0a1b2c3d-a b.jpg"),
        ("/data/local-files/?d=photos/a%20b.jpg", "photos/a b.jpg"),
        ("s3://bucket/photos/a.jpg", "photos/a.jpg"),
        ("https://example.org/photos/a.jpg?token=1", "photos/a.jpg"),
    ],
)
def test_addresses_are_taken_for_paths(address: str, name: str, tmp_path: Path) -> None:
    (image,) = labelstudio.read(write(tmp_path, task(image=address))).images
    assert image.name == name


def test_a_task_that_nobody_finished_stays_unknown(tmp_path: Path) -> None:
    skipped = task() | {"annotations": [{"was_cancelled": True, "result": []}]}
    nobody = task(image="y.jpg") | {"annotations": []}
    found = labelstudio.read(write(tmp_path, skipped, nobody, task(image="z.jpg")))
    assert [image.annotated for image in found.images] == [False, False, True]


def test_what_cannot_be_read_does_not_lose_the_rest(tmp_path: Path) -> None:
    twice = task(image="t.jpg")
    twice["annotations"] *= 2
    brush = task(result("brushlabels", rle=[1]), image="b.jpg")
    minimal = {"image": "x.jpg", "label": []}
    path = write(tmp_path, 3, minimal, twice, brush, task(result(x=1, y=1, width=5, height=5)))
    found = labelstudio.read(path)
    assert [error.path.partition("#")[2] for error in found.rejected] == ["[0]", "[1]", "[2]"]
    assert "not as JSON-MIN" in found.rejected[1].message
    assert [len(image.rejected) for image in found.images] == [1, 0]
    assert "export it as COCO" in str(found.images[0].rejected[0])
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json: not a JSON array"):
        labelstudio.read(tmp_path / "x.json")
