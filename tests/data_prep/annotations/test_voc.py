from pathlib import Path

import pytest

from data_prep.annotations import voc
from tests.helpers.annotation_files import boxes_in, voc_text
from tests.helpers.approx import approx

ROTATION = "<attributes><attribute><name>rotation</name><value>{}</value></attribute></attributes>"


@pytest.mark.parametrize(("degrees", "box"), [("0", (20, 30, 80, 50)), ("90.0", (40, 10, 60, 70))])
def test_a_turn_kept_in_an_attribute(degrees: str, box: tuple[float, ...], tmp_path: Path) -> None:
    text = voc_text([(20, 30, 80, 50)]).replace("</object>", ROTATION.format(degrees) + "</object>")
    (tmp_path / "x.xml").write_text(text)
    assert boxes_in(voc, tmp_path / "x.xml") == ({"x.jpg": (approx(box),)}, [])


def test_a_turn_that_is_no_number_is_rejected(tmp_path: Path) -> None:
    text = voc_text([(20, 30, 80, 50)]).replace("</object>", ROTATION.format("a") + "</object>")
    (tmp_path / "x.xml").write_text(text)
    boxes, (error,) = boxes_in(voc, tmp_path / "x.xml")
    assert boxes == {"x.jpg": ()}
    assert "'a' is not a number" in str(error)
