from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from data_prep.annotations import cvat
from tests.helpers.annotation_files import (
    boxes_in,
)


def test_shapes_of_cvat(tmp_path: Path) -> None:
    shapes = """
        <box label="f" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90"/>
        <polygon label="f" points="1.5,2;7,3;4,9.25"/>
        <mask label="f" rle="1, 2" left="3" top="4" width="10" height="5"/>
        <ellipse label="f" cx="50" cy="40" rx="20" ry="10" rotation="90"/>
        <tag label="f"/><points label="f" points="1,2"/><polygon label="f"/>"""
    (tmp_path / "a.xml").write_text(
        f'<annotations><image name="x" width="120" height="80">{shapes}</image></annotations>'
    )
    boxes, rejected = boxes_in(cvat, tmp_path / "a.xml")
    expected = [(45, 25, 55, 45), (1.5, 2, 7, 9.25), (3, 4, 13, 9), (40, 20, 60, 60)]
    assert boxes["x"] == tuple(pytest.approx(box) for box in expected)
    assert [error.path.split("/")[-1] for error in rejected] == ["points[5]", "polygon[6]"]


def test_cvat_for_video_says_what_to_export(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(UserError, match="CVAT for images"):
        cvat.read(tmp_path / "x.xml")
