import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.records import Box
from data_prep.annotations import coco
from tests.helpers.annotation_files import SIZE, boxes_in, check, fuzzed, scalars, trees


def test_boxes_come_from_the_segmentation_where_there_is_no_bbox(tmp_path: Path) -> None:
    segmentations = [
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
        ("images", {}, 100_001),
        ("annotations", {}, 100_001),
        ("annotations", {"image_id": 1}, 200_001),  # the image's own list is full at half of it
    ],
)
def test_a_file_that_is_broken_throughout_is_given_up(
    key: str, broken: dict[str, Any], count: int, tmp_path: Path
) -> None:
    """Each rejection takes memory."""
    image = {"id": 1, "file_name": "x.jpg", "width": 120, "height": 80}
    content = {"images": [image], "annotations": [], key: [broken] * count}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"x\.json#.*100000 entries are broken, .*x\.json"):
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
