import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from data_prep.annotations import labelme
from tests.helpers.annotation_files import boxes_in, check, fuzzed, scalars, trees


def test_shapes_of_labelme(tmp_path: Path) -> None:
    shapes = [
        {"label": "f", "points": [[5, 5], [1, 2], [3, 9]]},
        {"label": "f", "shape_type": "circle", "points": [[50, 40], [53, 44]]},
        {"label": "f", "shape_type": "point", "points": [[1, 1]]},
        {"label": "f", "shape_type": "polygon", "points": []},
        {"shape_type": "polygon", "points": [[1, 1], [2, 2]]},
        3,
    ]
    content = {"imagePath": "..\\p\\x.jpg", "imageWidth": 120, "imageHeight": 80, "shapes": shapes}
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8-sig")
    boxes, rejected = boxes_in(labelme, tmp_path / "x.json")
    assert boxes == {"p/x.jpg": ((1, 2, 5, 9), (45, 35, 55, 45))}
    assert len(rejected) == 4


labelme_files = st.fixed_dictionaries(
    {"imagePath": st.just("x") | trees, "imageWidth": scalars, "imageHeight": scalars}
    | {
        "shapes": st.lists(
            st.fixed_dictionaries(
                {"label": scalars, "points": st.lists(st.lists(scalars, min_size=2, max_size=2))},
                optional={"shape_type": scalars},
            )
            | trees,
            max_size=4,
        )
    },
)


@fuzzed
@given(tree=labelme_files | trees)
def test_fuzzed_labelme(scratch: Path, tree: Any) -> None:
    check(labelme, scratch, json.dumps(tree, default=str).encode())
