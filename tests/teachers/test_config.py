from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.teachers.config import SamOptions, make_teacher
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.sam import SamTeacher


def test_grabcut_needs_nothing() -> None:
    assert isinstance(make_teacher("grabcut"), GrabCutTeacher)


def test_sam_without_a_checkpoint_names_the_option() -> None:
    with pytest.raises(UserError, match="needs --teacher_checkpoint FILE"):
        make_teacher("sam")


def test_sam_gets_what_was_given_and_defaults_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(SamTeacher, "from_checkpoint", lambda *given: calls.append(given))
    make_teacher("sam", Path("w.pth"), margin=0.3, multimask=False)
    make_teacher("sam", Path("w.pth"), "vit_l")
    assert calls == [
        (Path("w.pth"), "vit_h", SamOptions("auto", margin=0.3, multimask=False)),
        (Path("w.pth"), "vit_l", SamOptions("auto")),
    ]
