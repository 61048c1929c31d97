"""Files of one image, and rows of an earlier run that somebody may have edited."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from boxpromptiml.inference.predictions import Thresholds, read_rows, write_prediction
from boxpromptiml.io.images import read_image

ROW: dict[str, Any] = {
    "name": "a", "path": "a.jpg", "height": 2, "width": 3, "image_score": 0.5, "threshold": 0.5,
    "area": 0.0, "sha256": "", "notes": "",
}  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        {"name": "./a"},  # a second name for the files of `a`
        {"name": "b/../a"},
        {"name": "a" * 5000},
        {"image_score": 1e308},
        {"area": -1},
        {"threshold": None},
        {"fpr": 2},
    ],
)
def test_an_edited_row_is_as_if_it_were_not_there(edit: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "prob" / name).mkdir(parents=True)
        (tmp_path / "prob" / f"{name}.png").touch()
    rows = [ROW | edit, ROW | {"name": "b"}]
    (tmp_path / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(read_rows(tmp_path)) == ["b"]


def test_viewers_turn_the_overlay_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    image, info = read_image(tmp_path / "a.jpg")
    prob, limits = np.zeros((40, 60), np.float32), Thresholds(0.5)
    write_prediction(tmp_path, "a", tmp_path / "a.jpg", image, info, prob, 0.1, limits, True, "x")
    with Image.open(tmp_path / "overlay" / "a.jpg") as drawn:
        assert drawn.size == (60, 40)  # in stored pixels, as map and mask
        assert ImageOps.exif_transpose(drawn).size == (40, 60)
