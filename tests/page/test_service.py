"""What the page answers; the page itself is tried in test_page_browser.py."""

import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from boxpromptiml.cli import main
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.localizer import Localized
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.page import pictures
from boxpromptiml.page.command import page
from boxpromptiml.page.service import Desk, Marked, OpenedImage, box_between
from boxpromptiml.records import AUTHENTIC, MANIPULATED, UNSURE, Box, BoxArray, ImageArray, Proposal
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.visualization.overlays import BOX, FLAGGED


class Filled:
    """A teacher that answers with the whole box, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[list[float]]] = []

    def propose(self, image: ImageArray, boxes: BoxArray) -> list[Proposal]:
        self.asked.append(boxes.tolist())
        masks = [np.zeros(image.shape[:2], bool) for _ in boxes]
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
            mask[y0:y1, x0:x1] = True
        return [Proposal(m, 0.75, Box(*b), "odd") for m, b in zip(masks, boxes, strict=True)]


class Brightness:
    """A localizer whose probability is the red channel."""

    def localize(self, found: Any) -> list[Localized]:
        return [Localized((one[..., 0] / 255).astype(np.float32), 0.25) for one in found]


def asked(desk: Desk) -> list[list[list[float]]]:
    teacher: Any = desk.teacher
    assert isinstance(teacher, Filled)
    return teacher.asked


@pytest.fixture
def desk() -> Iterator[Desk]:
    with IsolatedDecoder() as decode:
        localizer: Any = Brightness()
        teacher: Any = Filled()
        yield Desk(localizer, teacher, Consensus(), decode, Lock())


def test_an_upload_is_decoded_and_localized(desk: Desk, tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 5:25] = 255
    images.write_png(tmp_path / "a.png", pixels)
    opened = desk.open(tmp_path / "a.png")
    np.testing.assert_array_equal(opened.image, pixels)
    np.testing.assert_array_equal(opened.prob > 0.5, pixels[..., 0] > 0)
    assert opened.score == 0.25
    assert "<dd>0.250</dd>" in pictures.student_words(opened, 0.5)
    assert "<dd>8.3%</dd>" in pictures.student_words(opened, 0.5)  # 200 of 2400 pixels


def test_a_bad_upload_is_rejected_by_its_bare_name_and_the_next_one_is_served(
    desk: Desk, tmp_path: Path
) -> None:
    images.write_png(tmp_path / "good.png", np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    with pytest.raises(RejectedInput) as caught:
        desk.open(tmp_path / "bad.png")
    assert str(caught.value).startswith("bad.png: ")
    assert str(tmp_path) not in str(caught.value)
    assert desk.open(tmp_path / "good.png").image.shape == (40, 60, 3)


def test_a_box_is_cut_to_the_image_and_answered(desk: Desk) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    marked = desk.mark(image, Box(-5, 30, 10, 90))
    assert marked.box == Box(0, 30, 10, 40)
    assert asked(desk) == [[[0, 30, 10, 40]]]
    assert (marked.levels == MANIPULATED).sum() == 100
    assert (marked.score, marked.note) == (0.75, "odd")


@pytest.mark.parametrize(
    "box",
    [Box(10, 10, 5, 20), Box(0, 0, 0, 9), Box(70, 0, 80, 9), Box(0, 0, float("nan"), 9),
     Box(0, 0, float("inf"), 9)],
)  # fmt: skip
def test_a_box_that_is_none_is_said(desk: Desk, box: Box) -> None:
    with pytest.raises(UserError, match="inside the image of 60 x 40"):
        desk.mark(np.zeros((40, 60, 3), np.uint8), box)
    assert asked(desk) == []


def test_clicked_pixels_lie_in_the_box_whichever_comes_first() -> None:
    corners = ((2, 3), (6, 1)), ((6, 1), (2, 3)), ((2, 1), (6, 3))
    found = {box_between(*two, (10, 20), (40, 60)) for two in corners}
    assert found == {Box(6, 4, 21, 16)}
    assert box_between((5, 5), (5, 5), (10, 20), (10, 20)) == Box(5, 5, 6, 6)


def test_pictures_show_box_corner_and_levels() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    levels = np.full((200, 300), AUTHENTIC, np.uint8)
    levels[50:100, 50:100], levels[50:100, 100:150] = MANIPULATED, UNSURE
    marked = Marked(Box(20, 20, 200, 180), levels, 1.0, "")
    shown = pictures.teacher_picture(image, marked)
    assert tuple(shown[50, 60]) == FLAGGED  # the outline
    assert shown[75, 125, 2] > shown[75, 125, 0] + 50  # blue
    assert tuple(shown[10, 10]) == (90, 90, 90)
    assert tuple(shown[20, 100]) == BOX
    assert tuple(pictures.photograph(image, marked, None)[20, 100]) == BOX
    crossed = pictures.photograph(image, None, (299.0, 0.0))
    assert tuple(crossed[0, 5]) == tuple(crossed[199, 299]) == BOX
    assert (pictures.photograph(image, None, None) == 90).all()
    large = OpenedImage(np.zeros((30, 2400, 3), np.uint8), np.ones((30, 2400), np.float32), 1.0)
    assert [p.shape for p in pictures.student_pictures(large, 0.5)] == [(15, 1200, 3)] * 2
    assert "<dd>6.2%</dd>" not in pictures.teacher_words(marked)
    assert pictures.teacher_words(marked).count("<dd>4.2%</dd>") == 2
    assert "Note" not in pictures.teacher_words(marked)


def test_words_of_strangers_are_no_html() -> None:
    assert pictures.message("<b>", is_error=True) == '<p class="wrong" role="alert">&lt;b&gt;</p>'
    marked = Marked(Box(0, 0, 1, 1), np.zeros((2, 2), np.uint8), 0.5, "<i>")
    assert "&lt;i&gt;" in pictures.teacher_words(marked)


def test_wrong_use_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)  # importing it raises
    monkeypatch.delitem(sys.modules, "boxpromptiml.page.app", raising=False)
    assert main(["page", f"--checkpoint={tmp_path}/none.ckpt"]) == 1
    assert capsys.readouterr().err == ('error: gradio is not installed: pip install -e ".[demo]"\n')
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"copies must be at least 1"):
        page(tmp_path / "none.ckpt", copies=0)
    with pytest.raises(UserError, match="--teacher_checkpoint belongs to --teacher sam"):
        page(tmp_path / "none.ckpt", teacher_checkpoint=Path("sam.pth"))
    with pytest.raises(UserError, match="--teacher sam needs"):
        page(tmp_path / "none.ckpt", teacher="sam")
