import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.records import Box
from data_prep.annotations import Annotations, coco, screen
from tests.helpers.annotation_files import SIZE, boxes_in, check, fuzzed, scalars, trees


def test_boxes_come_from_the_segmentation_where_there_is_no_bbox(tmp_path: Path) -> None:
    segmentations: list[dict[str, Any]] = [
        {"segmentation": [[1.5, 2, 7, 3, 4, 9.25], [0, 20, 1, 21, 0, 22]]},
        {"segmentation": {"size": list(SIZE), "counts": [5, 10, 80 * 120 - 15]}, "bbox": []},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": {"size": [9, 9], "counts": [0, 81]}},
        {"segmentation": []},
        {"segmentation": [], "bbox": "1234"},
        {},
    ]
    content = {
        "images": [{"id": "a", "file_name": "x.jpg", "width": 120, "height": 80}],
        "annotations": [{"image_id": "a"} | row for row in segmentations],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    boxes, rejected = boxes_in(coco, tmp_path / "x.json")
    assert boxes == {"x.jpg": ((0, 2, 7, 22), (0, 5, 1, 15))}
    assert len(rejected) == 5


def test_labels_choose(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "x.jpg", "width": 120, "height": 80}],
        "annotations": [
            {"image_id": 1, "category_id": number, "bbox": [number, 1, 5, 5]}
            for number in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "forged"}, {"id": 2, "name": "sky"}, {"name": 3}, 4],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert boxes_in(coco, tmp_path / "x.json", labels=["sky"])[0] == {"x.jpg": ((2, 1, 7, 6),)}
    assert len(boxes_in(coco, tmp_path / "x.json")[0]["x.jpg"]) == 3


@pytest.mark.parametrize(
    ("key", "broken", "count"),
    [
        ("images", {}, 101),
        ("annotations", {}, 101),
        ("annotations", {"image_id": 1}, 201),  # the image's own list is full at half of it
    ],
)
def test_a_file_that_is_broken_throughout_is_given_up(
    key: str,
    broken: dict[str, Any],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each rejection takes memory."""
    monkeypatch.setattr(screen, "_MAX_REJECTED", 100)
    image = {"id": 1, "file_name": "x.jpg", "width": 120, "height": 80}
    content = {"images": [image], "annotations": [], key: [broken] * count}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"x\.json#.*100 entries are broken, .*x\.json"):
        coco.read(tmp_path / "x.json")


@pytest.mark.parametrize("same", ["id", "file_name"])
def test_coco_images_that_share_an_id_or_a_name_are_all_rejected(same: str, tmp_path: Path) -> None:
    images = [
        {"id": number, "file_name": f"{number}.jpg", "width": SIZE[1], "height": SIZE[0]}
        for number in range(3)
    ]
    images[1][same] = images[0][same]
    boxes = [{"image_id": number, "bbox": [1, 2, 3, 4]} for number in range(3)]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    found, rejected = boxes_in(coco, path)
    assert found == {"2.jpg": (Box(1, 2, 4, 6),)}
    places = [error.path.partition("#")[2] for error in rejected]
    assert places == ["images[0]", "images[1]", "annotations[0]", "annotations[1]"]


coco_files = st.fixed_dictionaries(
    {
        "images": st.lists(
            st.fixed_dictionaries(dict.fromkeys(("id", "file_name", "width", "height"), scalars))
            | st.just({"id": 1, "file_name": "x", "width": 120, "height": 80})
            | trees,
            max_size=3,
        ),
        "annotations": st.lists(
            st.fixed_dictionaries(
                {"image_id": st.just(1) | scalars},
                optional={"bbox": trees | st.lists(scalars, min_size=4, max_size=4)}
                | dict.fromkeys(("segmentation", "category_id", "attributes"), trees),
            )
            | trees,
            max_size=5,
        ),
    },
    optional={"categories": trees},
)


@fuzzed
@given(tree=coco_files | trees)
def test_fuzzed_coco(scratch: Path, tree: Any) -> None:
    check(coco, scratch, json.dumps(tree, default=str).encode())


def _content(ids: list[Any], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    images = [
        {"id": key, "file_name": f"{n}.jpg", "width": SIZE[1], "height": SIZE[0]}
        for n, key in enumerate(ids)
    ]
    return {"images": images, "annotations": annotations}


def _read(path: Path, content: dict[str, Any]) -> Annotations:
    (path / "x.json").write_text(json.dumps(content))
    return coco.read(path / "x.json")


BOX = {"bbox": [10, 10, 20, 20]}


def test_ids_are_compared_as_text(tmp_path: Path) -> None:
    found = _read(tmp_path, _content([0, "1", 2.0], [{"image_id": n} | BOX for n in ("0", 1, "2")]))
    assert [len(image.shapes) for image in found.images] == [1, 1, 1]
    assert found.rejected == []
    assert len(_read(tmp_path, _content([1, "1"], [])).rejected) == 2


@pytest.mark.parametrize("lost", [{"image_id": 7}, {"item_id": 1}, {"image_id": None}, {}])
def test_annotations_left_over_leave_images_without_any_unknown(
    lost: dict[str, Any], tmp_path: Path
) -> None:
    """Whose they are is not known: perhaps of one of these images."""
    found = _read(tmp_path, _content([0, 1, 2], [{"image_id": 0} | BOX, lost | BOX]))
    assert [image.annotated for image in found.images] == [True, False, False]
    assert len(found.rejected) == 1


def test_an_annotation_of_a_listed_but_broken_image_is_not_left_over(tmp_path: Path) -> None:
    content = _content([0, 1], [{"image_id": 1} | BOX])
    del content["images"][1]["width"]
    found = _read(tmp_path, content)
    assert [image.annotated for image in found.images] == [True]
    assert len(found.rejected) == 2


def _boxes(*boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    return _content([0], [{"image_id": 0, "bbox": list(box)} for box in boxes])


def test_corners_in_place_of_width_and_height_are_refused(tmp_path: Path) -> None:
    """Two of these leave the image of 120 x 80; the others would fit and be wrong."""
    corners = [(5, 5, 30, 40), (10, 10, 60, 40), (70, 40, 110, 79), (1, 2, 9, 8), (60, 30, 119, 60)]
    with pytest.raises(UserError, match=r"2 of 5 boxes leave .* x, y, width, height"):
        _read(tmp_path, _boxes(*corners))


@pytest.mark.parametrize(
    "boxes",
    [
        [(70, 40, 60, 30)],  # leaves the image and is no pair of corners
        [(5, 5, 30, 40), (110, 70, 20, 20)],
        [(70, 40, 100, 79), *[(1, 1, 20, 20)] * 5],  # less than a fifth leaves
        [(5, 5, 30, 40)],
    ],
)
def test_width_and_height_are_taken_for_what_they_are(
    boxes: list[tuple[float, float, float, float]], tmp_path: Path
) -> None:
    assert len(_read(tmp_path, _boxes(*boxes)).images[0].shapes) == len(boxes)


@pytest.mark.parametrize(
    ("degrees", "corners"),
    [(0, (20, 30, 80, 50)), (90, (40, 10, 60, 70)), (None, (20, 30, 80, 50))],
)
def test_the_turn_that_cvat_keeps_in_an_attribute(
    degrees: int | None, corners: tuple[float, ...], tmp_path: Path
) -> None:
    content = _boxes((20, 30, 60, 20))
    content["annotations"][0]["attributes"] = {"rotation": degrees}
    (shape,) = _read(tmp_path, content).images[0].shapes
    assert shape.corners == pytest.approx(corners)


@pytest.mark.parametrize("origin", ["cam", "mask", "human", None])
def test_origins_are_kept_and_silence_is_told_from_null(origin: str | None, tmp_path: Path) -> None:
    content = _boxes((20, 30, 60, 20))
    assert _read(tmp_path, content).images[0].origin == "unsaid"
    content["annotations"][0]["attributes"] = {"box_origin": origin}
    assert _read(tmp_path, content).images[0].origin == origin
