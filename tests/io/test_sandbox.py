"""Decoding in a child: faults are caused inside it, by programs put in the place of its own."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images, sandbox
from boxpromptiml.io.images import Limits
from boxpromptiml.io.sandbox import Bounds, IsolatedDecoder, for_pixels

RNG = np.random.default_rng(0)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    images.write_png(tmp_path / "a.png", RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
    return tmp_path / "a.png"


@pytest.fixture
def evil(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replace the child's decoder, but only for files named evil.*, by a statement."""

    def arm(statement: str) -> None:
        program = f"""
import os, signal, time
from boxpromptiml.io import images, sandbox
real = images.read_image
def read_image(path, limits):
    if "evil" in path:
        {statement}
    return real(path, limits)
images.read_image = read_image
sandbox.serve()
"""
        monkeypatch.setattr(sandbox, "_PROGRAM", program)

    return arm


def reason(decode: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(RejectedInput) as caught:
        decode(path)
    assert caught.value.path == str(path)
    return caught.value.reason


def test_pixels_and_facts_are_those_of_the_decoder(tmp_path: Path, photo: Path) -> None:
    images.write_jpeg(tmp_path / "b.jpg", RNG.integers(0, 256, (300, 400), dtype=np.uint8), 90)
    odd = os.fsencode(tmp_path) + b"/\xff two\nlines.png"
    Image.new("RGBA", (5, 7)).save(odd.decode(errors="surrogateescape"), "PNG")
    with IsolatedDecoder() as decode:
        for path in (photo, tmp_path / "b.jpg", os.fsdecode(odd), str(photo)):
            image, info = decode(path)
            expected, facts = images.read_image(path)
            assert info == facts
            np.testing.assert_array_equal(image, expected)
            image[:] = 0  # it is ours to change


def test_rejections_are_those_of_the_decoder(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to(photo)
    with IsolatedDecoder(limits=Limits(max_pixels=2000)) as decode:
        assert reason(decode, tmp_path / "none.png") == "missing"
        assert reason(decode, tmp_path / "text.png") == "unknown_format"
        assert reason(decode, tmp_path / "fifo.png") == "not_a_file"
        assert reason(decode, tmp_path / "link.png") == "not_a_file"
        assert reason(decode, photo) == "too_many_pixels"


@pytest.mark.slow
def test_larger_images_than_pillow_takes_by_itself(tmp_path: Path) -> None:
    """In the child only; one that is larger still is rejected."""
    side = 9_460  # 89.5 megapixels, of one bit
    Image.new("1", (side, side), 1).save(tmp_path / "large.png")
    limits = for_pixels(side * side, 60)
    with IsolatedDecoder(*limits) as decode:
        image, info = decode(tmp_path / "large.png")
        assert info.size == image.shape[:2] == (side, side)
        assert image[-1, -1].tolist() == [255] * 3
    assert reason(images.read_image, tmp_path / "large.png") == "too_many_pixels"
    with IsolatedDecoder(*for_pixels(side * side - 1, 60)) as decode:
        assert reason(decode, tmp_path / "large.png") == "too_many_pixels"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("time.sleep(100)", "timeout"),
        ("[0 for _ in iter(int, 1)]", "timeout"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("os._exit(0)", "crashed"),
        ("raise AssertionError('a bug')", "crashed"),
        ("bytearray(3 * 10**9)", "out_of_memory"),
        ("os.write(1, b'{' * 9 + b'\\n')", "crashed"),
        ("os.write(1, b'[1]\\n')", "crashed"),
        ("os.write(1, b'x' * 2**21)", "crashed"),
        ('os.write(1, b\'{"size": [9, 9], "info": {}}\\n\')', "crashed"),
    ],
)
def test_a_fault_in_the_child_costs_one_image(
    evil: Callable[..., None], photo: Path, statement: str, expected: str
) -> None:
    evil(statement)
    bad = photo.with_name("evil.png")
    bad.write_bytes(photo.read_bytes())
    seconds = 0.3 if "sleep" in statement else 1  # of which five pass on the clock
    with IsolatedDecoder(Bounds(seconds=seconds)) as decode:
        decode(photo)
        began = time.monotonic()
        assert reason(decode, bad) == expected
        assert time.monotonic() - began < 30
        np.testing.assert_array_equal(decode(photo)[0], images.read_image(photo)[0])


@pytest.mark.parametrize("size", [(-1, 9), (0, 9), (10**6, 10**6), (9, 9)])
def test_wrong_pixels_of_a_child_that_was_taken_over(
    evil: Callable[..., None], photo: Path, size: tuple[int, int]
) -> None:
    fields = '"format": "PNG", "mode": "RGB", "orientation": 1, "sha256": "", "notes": []'
    answer = f'{{"size": {list(size)}, "info": {{{fields}}}}}'
    evil(f"os.write(1, {answer.encode()!r} + bytes([10]))")
    bad = photo.with_name("evil.png")
    bad.write_bytes(photo.read_bytes())
    with IsolatedDecoder(Bounds(seconds=5)) as decode:
        assert reason(decode, bad) == "crashed"
        decode(photo)


def test_a_large_picture_beyond_the_memory_is_rejected_and_the_next_is_not(
    tmp_path: Path, photo: Path
) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    with IsolatedDecoder(Bounds(memory=300 * 2**20)) as decode:
        assert reason(decode, tmp_path / "large.png") == "out_of_memory"
        decode(photo)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nobody_is_left_behind(photo: Path) -> None:
    decode = IsolatedDecoder()
    decode(photo)
    assert decode._child is not None
    process = decode._child._process
    os.kill(process.pid, signal.SIGSTOP)
    decode.close()
    assert process.returncode == -signal.SIGKILL
    before = open_files()
    for _ in range(2):
        with IsolatedDecoder() as again:
            again(photo)
    assert open_files() <= before


def test_a_child_that_cannot_start_is_said(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PROGRAM", "raise SystemExit(1)")
    with IsolatedDecoder() as decode, pytest.raises(UserError, match="no decoder starts"):
        decode(photo)
    with pytest.raises(UserError, match="seconds must be"):
        Bounds(seconds=0)


def test_programs_beside_the_photographs_are_not_run(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "numpy", "PIL", "boxpromptiml"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in an interactive session
    with IsolatedDecoder() as decode:
        decode(photo)
    assert not (tmp_path / "ran").exists()


def test_a_closed_standard_input_costs_no_image(photo: Path) -> None:
    """The file in memory would get its number, which is the child's end of a pipe."""
    kept = os.dup(0)
    try:
        os.close(0)
        with IsolatedDecoder() as decode:
            assert decode(photo)[0].any()
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_bytes_in_memory_are_decoded_like_a_file(photo: Path, tmp_path: Path) -> None:
    with IsolatedDecoder() as decode:
        expected, facts = decode(photo)
        image, info = decode.decode_bytes(photo.read_bytes(), "upload.png")
        np.testing.assert_array_equal(image, expected)
        assert info == facts
        with pytest.raises(RejectedInput) as caught:
            decode.decode_bytes(photo.read_bytes()[:200], "torn.png")
        assert (caught.value.path, caught.value.reason) == ("torn.png", "truncated_or_corrupt")
        np.testing.assert_array_equal(decode(photo)[0], expected)
