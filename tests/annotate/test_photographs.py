from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.annotate import photographs as module
from boxpromptiml.annotate.photographs import Album, Photograph, find_photographs
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.records import ImageArray


def noise(size: tuple[int, int], seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    images.write_png(root / "b.png", noise((20, 30)))
    images.write_png(root / "below" / "a.png", noise((40, 50), 1))
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise((8, 12))).save(root / "turned.png", exif=exif)
    (root / "notes.txt").write_text("no image")
    (root / "link.png").symlink_to(root / "b.png")
    images.write_png(root / ".hidden.png", noise((5, 5)))
    return root


@pytest.fixture(scope="module")
def decode() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder() as decoder:
        yield decoder


@pytest.fixture
def album(folder: Path, decode: IsolatedDecoder) -> Album:
    return Album(folder, find_photographs(folder, {})[0], decode)


def test_a_plain_folder_is_enough_and_no_file_is_lost(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, rejected = find_photographs(folder, {}, [folder / "boxes.json"])
    assert "1 hidden images are left out" in caplog.text
    assert [(one.name, one.size, one.shown_size) for one in found] == [
        ("b.png", (20, 30), (20, 30)),
        ("below/a.png", (40, 50), (40, 50)),
        ("turned.png", (8, 12), (12, 8)),
    ]
    assert {(Path(one.path).name, one.reason) for one in rejected} == {
        ("notes.txt", "unknown_format"), ("link.png", "not_a_file")
    }  # fmt: skip
    _, rejected = find_photographs(folder, {}, [folder / "notes.txt"])
    assert [one.reason for one in rejected] == ["not_a_file"]


def test_known_photographs_are_not_read_again(folder: Path) -> None:
    known = {"b.png": Photograph("b.png", (1, 2), 1, "old")}
    assert known["b.png"] in find_photographs(folder, known)[0]


def test_odd_names_are_listed(folder: Path) -> None:
    (folder / "a\\b.png").write_bytes((folder / "b.png").read_bytes())
    (folder / "c\udcff.png").write_bytes((folder / "b.png").read_bytes())
    _, rejected = find_photographs(folder, {})
    assert sum(one.reason == "bad_name" for one in rejected) == 2


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_photographs(tmp_path / "none", {})
    (tmp_path / "a.heic").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"no image that can be read.*a\.heic.*unknown_format"):
        find_photographs(tmp_path, {})


def test_pixels_are_the_stored_ones_and_kept(album: Album) -> None:
    pixels = album.pixels(2)
    np.testing.assert_array_equal(pixels, noise((8, 12)))
    assert not pixels.flags.writeable
    assert album.pixels(2) is pixels


def test_only_a_few_stay_decoded(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_DECODED", 20 * 30 + 8 * 12)
    first, third = album.pixels(0), album.pixels(2)
    assert album.pixels(0) is first
    album.pixels(1)  # larger than the limit: it alone is kept
    assert album.pixels(2) is not third


def test_another_file_in_its_place_is_refused_by_name(folder: Path, album: Album) -> None:
    images.write_png(folder / "b.png", noise((20, 30), 5))
    with pytest.raises(RejectedInput, match=r"^b\.png: is another file"):
        album.pixels(0)
    (folder / "b.png").unlink()
    with pytest.raises(RejectedInput, match=r"^b\.png: .*\[missing\]"):
        album.pixels(0)


def test_nothing_outside_the_folder_is_read(folder: Path, album: Album, tmp_path: Path) -> None:
    """The folder of a photograph becomes a link after the start."""
    images.write_png(tmp_path / "secret" / "a.png", noise((40, 50), 1))
    (folder / "below" / "a.png").unlink()
    (folder / "below").rmdir()
    (folder / "below").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="leads out"):
        album.pixels(1)


def test_uploads_are_kept_in_memory_and_the_oldest_is_forgotten(
    folder: Path, album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (folder / "b.png").read_bytes()
    monkeypatch.setattr(module, "_MAX_UPLOADED", 2 * len(data) - 1)
    monkeypatch.setattr(module, "_MAX_DECODED", 1)
    first, second = album.add("one.png", data), album.add("two.png", data)
    assert (len(album), album[first].name) == (5, "one.png")
    np.testing.assert_array_equal(album.pixels(second), noise((20, 30)))
    album.pixels(0)
    assert album.pixels(second).shape == (20, 30, 3)
    with pytest.raises(RejectedInput, match=r"one\.png: is kept no longer; open it again"):
        album.pixels(first)
    with pytest.raises(RejectedInput, match=r"torn\.png"):
        album.add("torn.png", data[:50])
    assert len(album) == 5
