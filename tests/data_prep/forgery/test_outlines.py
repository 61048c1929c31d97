import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.records import MaskArray
from data_prep.forgery.outlines import CocoOutlines, decode_outline, find_outlines, read_outlines

SIZE = (40, 60)


def _read(segmentation: Any) -> tuple[list[MaskArray], list[RejectedInput]]:
    kept, rejected = read_outlines(CocoOutlines(SIZE, (("a", segmentation),)), SIZE)
    return [decode_outline(counts, SIZE) for counts in kept], rejected


def test_a_square_is_half_open_and_holes_and_parts_count() -> None:
    (mask,), _ = _read([[2, 3, 10, 3, 10, 8, 2, 8], [50, 30, 62, 30, 62, 42, 50, 42]])
    expected = np.zeros(SIZE, bool)
    expected[3:8, 2:10] = expected[30:, 50:] = True
    np.testing.assert_array_equal(mask, expected)
    (ring,), _ = _read([[0, 0, 9, 0, 9, 9, 0, 9, 0, 0, 3, 3, 6, 3, 6, 6, 3, 6, 3, 3]])
    assert ring.sum() == 81 - 9


@given(st.lists(st.floats(5, 18), min_size=5, max_size=12))
def test_polygons_are_those_of_pycocotools_but_for_the_border(radii: list[float]) -> None:
    angle = np.arange(len(radii)) * 2 * np.pi / len(radii)
    x, y = 30 + np.array(radii) * np.cos(angle), 20 + np.array(radii) * np.sin(angle)
    polygon = np.stack([x, y], axis=1).ravel().tolist()
    (mask,), _ = _read([polygon])
    other = reference.decode(reference.merge(reference.frPyObjects([polygon], *SIZE))) > 0
    assert (mask ^ other).sum() <= 0.25 * np.abs(np.diff([*x, x[0]])).sum() + 0.25 * 4 * max(radii)


def test_text_of_pycocotools_comes_back_the_same() -> None:
    mask = np.random.default_rng(0).random(SIZE) < 0.5
    counts = reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    kept, _ = read_outlines(
        CocoOutlines(SIZE, (("a", {"size": list(SIZE), "counts": counts.decode()}),)), SIZE
    )
    assert kept == (counts,)
    np.testing.assert_array_equal(decode_outline(counts, SIZE), mask)


def test_a_mask_file_starting_in_the_corner_comes_back(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[:5, :7] = True
    images.write_png(tmp_path / "m.png", mask.astype(np.uint8) * 255)
    (counts,), _ = read_outlines(tmp_path / "m.png", SIZE)
    assert counts == reference.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


@pytest.mark.parametrize(
    "segmentation",
    [
        [[0, 0, 59, 39] * 10_001],  # pycocotools takes gigabytes, or dies
        [[0, 0, 5, 5, float("inf"), 9]],
        [[0, 0, 5, 5, 10**400, 9]],
        ["123456"],
        [7],
        "x",
        {"size": list(SIZE), "counts": [float("inf")]},
        {"size": list(SIZE), "counts": [float(SIZE[0] * SIZE[1])]},
        {"size": list(SIZE), "counts": "o" * 99},
        {"size": [float("inf"), 60], "counts": [0, 2400]},
        [[-2, -2, -1, -2, -1, -1]],
    ],
)
def test_damage_is_rejected(segmentation: Any) -> None:
    kept, rejected = _read(segmentation)
    assert not kept
    assert [error.reason for error in rejected] == ["bad_annotation"]


def test_many_points_cost_little() -> None:
    start = time.perf_counter()
    ((mask,), _) = _read([[0, 0, 60, 40] * 9_999 + [0, 40, 0, 40]])
    assert mask.sum() == pytest.approx(SIZE[0] * SIZE[1] / 2, rel=0.02)  # the triangle that is left
    assert time.perf_counter() - start < 20


def test_a_bad_image_does_not_lose_the_others(tmp_path: Path) -> None:
    names = ["good", "id", "size", "twice", "alias", "same id", "same id too"]
    rows: list[dict[str, Any]] = [
        {"id": number, "file_name": name, "height": 40, "width": 60}
        for number, name in enumerate(names)
    ]
    rows[1]["id"] = [1]
    rows[2]["height"] = 1e300
    rows[4]["file_name"] = "twice"
    rows[6]["id"] = rows[5]["id"]
    triangle = [[0, 0, 20, 0, 0, 20]]
    notes = [{"image_id": row["id"], "segmentation": triangle} for row in rows]
    text = json.dumps({"images": [*rows, None, 3], "annotations": [None, *notes]})
    path = tmp_path / "r.json"
    path.write_text(text)
    found = find_outlines(path, [(name, Path(name)) for name in names])
    answers = {name: read_outlines(outlines, SIZE) for name, outlines in found.items()}
    assert len(answers.pop("good")[0]) == 1
    bad = {name: (len(kept), len(rejected)) for name, (kept, rejected) in answers.items()}
    assert bad == {"id": (0, 1), "size": (0, 1), "twice": (0, 2), "same id": (0, 1),
                   "same id too": (0, 1)}  # fmt: skip
