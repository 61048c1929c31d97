from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from data_prep.forgery.photographs import Photo, PhotoInspector, list_photographs, load
from tests.helpers.pictures import picture


def inspected(path: Path, max_side: int | None = None, min_side: int = 48) -> Photo | str:
    """The photograph, or the reason why it was rejected."""
    photo, rejected = PhotoInspector({}, max_side, min_side)((path.name, path))
    return photo if photo else rejected[0].reason


def test_a_photograph_is_known_by_content_size_and_colour(tmp_path: Path) -> None:
    coloured, grey = picture((60, 90), 0), np.repeat(picture((60, 90), 1)[..., :1], 3, axis=2)
    images.write_png(tmp_path / "a.png", coloured)
    images.write_jpeg(tmp_path / "b.jpg", grey, 90)
    one, other = inspected(tmp_path / "a.png"), inspected(tmp_path / "b.jpg")
    assert isinstance(one, Photo)
    assert isinstance(other, Photo)
    assert (one.format, one.size, one.grey, one.outlines) == ("PNG", (60, 90), False, ())
    assert (other.format, other.grey) == ("JPEG", True)
    assert one.sha256 == images.probe(tmp_path / "a.png").sha256


def test_size_limits_hold_after_shrinking(tmp_path: Path) -> None:
    images.write_png(tmp_path / "a.png", picture((60, 240), 0))
    assert inspected(tmp_path / "a.png", min_side=61) == "too_small"
    assert inspected(tmp_path / "a.png", max_side=120, min_side=48) == "too_small"
    kept = inspected(tmp_path / "a.png", max_side=200)
    assert isinstance(kept, Photo)
    assert kept.size == (60, 240)  # as stored
    assert load(kept, 200).shape == (50, 200, 3)
    np.testing.assert_array_equal(load(kept, None), picture((60, 240), 0))


def test_what_shows_nothing_or_has_an_unprintable_name_is_rejected(tmp_path: Path) -> None:
    images.write_png(tmp_path / "flat.png", np.full((60, 60, 3), 9, np.uint8))
    assert inspected(tmp_path / "flat.png") == "featureless"
    images.write_png(tmp_path / "a\nb.png", picture((60, 60), 0))
    assert inspected(tmp_path / "a\nb.png") == "bad_name"


def test_a_file_that_changed_after_it_was_inspected_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images.write_png(path, picture((60, 60), 0))
    photo = inspected(path)
    assert isinstance(photo, Photo)
    images.write_png(path, picture((60, 60), 1))
    with pytest.raises(RejectedInput, match="was changed during the job"):
        load(photo, None)


def test_hidden_files_and_our_own_output_are_not_listed(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", ".hidden/3.png", "a/.4.png", "out/images/5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    found = list_photographs([tmp_path], tmp_path / "out")
    assert [key for key, _ in found] == ["a/1.png", "b/2.png", "circle"]
    with pytest.raises(UserError, match="no such folder"):
        list_photographs([tmp_path / "nowhere"], tmp_path / "out")
