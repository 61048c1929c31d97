"""The page in headless Chromium, with real drags and keys, on a desktop and on a phone."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.annotate.desk import Desk
from boxpromptiml.annotate.layers import Layers
from boxpromptiml.annotate.photographs import Album, find_photographs
from boxpromptiml.annotate.server import listen, make_server
from boxpromptiml.annotate.storage import Annotation, Storage, open_out, read_saved
from boxpromptiml.annotate.summary import summary_text
from boxpromptiml.io import images
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.records import Teacher
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.sam import SamTeacher
from tests.annotate.test_layers import load_brightness, scene
from tests.helpers.approx import approx
from tests.helpers.browser import Pointer, drag, needs_browser, open_page, start_chromium
from tests.helpers.tiny_sam import tiny_sam

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_browser, pytest.mark.slow]
NAMES = ("a.jpg", "b.jpg", "c.jpg")
OBJECT = (48, 27, 112, 63)  # of `scene`, 160 x 90, in the middle
AROUND = (40, 18, 120, 72)


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    with start_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def decode() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder() as decoder:
        yield decoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        images.write_jpeg(tmp_path / "photos" / name, scene(), 95)
    return tmp_path / "photos"


Serve = Callable[..., Any]  # a context manager that gives the page's address


@pytest.fixture
def serve(folder: Path, decode: IsolatedDecoder) -> Serve:
    @contextmanager
    def serving(saves: bool = True, port: int = 0, sam: Teacher | None = None) -> Iterator[str]:
        out = folder.parent / "boxes.json"
        saved = open_out(out)
        photographs, _ = find_photographs(folder, saved.photographs)
        storage = Storage(out, folder, photographs, saved, "mine", "train") if saves else None
        album = Album(folder, photographs, decode)
        layers = Layers(sam or GrabCutTeacher(), Consensus(), load_brightness)
        settings = {"teacher": "sam" if sam else "grabcut", "live": sam is None}
        desk = Desk(album, layers, storage, "ana", settings)
        with listen(port) as listening:
            port = listening.getsockname()[1]
            server = make_server(desk, "secret", port)
            thread = Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            yield f"http://127.0.0.1:{port}/secret/"
            server.should_exit = True
            thread.join()

    return serving


def wait_ready(page: "Page") -> None:
    """Until a photograph is shown."""
    page.wait_for_selector("#hint:not(:empty)")


def wait_saved(page: "Page") -> None:
    page.wait_for_selector("#saved.yes[aria-busy=false]:has-text('Saved')")


def wait_mask(page: "Page", count: int = 1) -> None:
    page.wait_for_function(
        "count => [...document.querySelectorAll('#boxes small')]"
        ".filter(e => e.textContent.includes('mask')).length === count", arg=count
    )  # fmt: skip


def point(
    page: "Page", x: float, y: float, size: tuple[int, int] = (160, 90)
) -> tuple[float, float]:
    """The window's point over a pixel of a photograph of this width and height."""
    place = page.locator("#canvas").bounding_box()
    assert place is not None
    scale = min(place["width"] / size[0], place["height"] / size[1])
    left = place["x"] + (place["width"] - scale * size[0]) / 2
    top = place["y"] + (place["height"] - scale * size[1]) / 2
    return left + scale * x, top + scale * y


def drag_box(
    page: "Page", box: tuple[float, float, float, float], pointer: Pointer = "mouse"
) -> None:
    x0, y0, x1, y1 = box
    drag(page, point(page, x0, y0), point(page, x1, y1), pointer)


def saved(folder: Path) -> dict[str, Annotation]:
    return read_saved(folder.parent / "boxes.json").annotations


@pytest.mark.parametrize(
    ("width", "pointer"), [(1280, "mouse"), (1280, "pen"), (390, "touch"), (390, "mouse")]
)
def test_a_drag_becomes_a_box_with_its_mask(
    chromium: "Browser", serve: Serve, folder: Path, width: int, pointer: Pointer
) -> None:
    with serve() as address, open_page(chromium, address, width) as page:
        wait_ready(page)
        drag_box(page, AROUND, pointer)
        wait_mask(page)
        wait_saved(page)
        assert "score" in page.inner_text("#boxes")
        one = saved(folder)["a.jpg"]
        assert (one.verdict, one.finished, one.annotator) == ("manipulated", False, "ana")
        assert one.boxes == (approx(AROUND, abs=1),)
        assert 0 < one.seconds < 60

        page.click("#next")
        page.wait_for_function("() => document.querySelector('#name').textContent === 'b.jpg'")
        wait_saved(page)
        assert saved(folder)["a.jpg"].finished


def test_the_mask_is_seen_while_the_box_is_drawn(chromium: "Browser", serve: Serve) -> None:
    """The orange of the mask is on the canvas before the button of the mouse is released."""
    script = """() => { const c = document.querySelector('#canvas');
      const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      const near = (value, other) => Math.abs(value - other) < 6;
      for (let i = 0; i < data.length; i += 4)
        if (near(data[i], 255) && near(data[i + 1], 140) && near(data[i + 2], 60)) return true;
      return false; }"""
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        assert not page.evaluate(script)
        page.mouse.move(*point(page, *AROUND[:2]))
        page.mouse.down()
        page.mouse.move(*point(page, 100, 60))
        page.mouse.move(*point(page, *AROUND[2:]))
        page.wait_for_function(script)
        page.mouse.up()


def test_sam_is_asked_after_the_drag_and_encodes_a_photograph_once(
    chromium: "Browser", serve: Serve
) -> None:
    network, encoded = tiny_sam(), []
    network.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    with (
        serve(sam=SamTeacher(network, "tiny", "")) as address,
        open_page(chromium, address) as page,
    ):
        wait_ready(page)
        asked: list[str] = []
        page.on("request", lambda one: asked.extend(["mask"] if "/mask?" in one.url else []))
        drag_box(page, AROUND)
        wait_mask(page)
        drag_box(page, (5, 5, 30, 30))
        wait_mask(page, 2)
        assert len(asked) == 2
        assert len(encoded) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_every_verdict_by_its_key_until_all_have_one(
    chromium: "Browser", serve: Serve, folder: Path, width: int
) -> None:
    with serve() as address, open_page(chromium, address, width) as page:
        wait_ready(page)
        page.keyboard.press("Enter")  # nothing said yet
        assert "N: nothing manipulated" in page.inner_text("#problem")
        page.keyboard.press("n")
        page.wait_for_selector("#name:has-text('b.jpg')")
        wait_ready(page)
        page.keyboard.press("u")
        page.wait_for_selector("#name:has-text('c.jpg')")
        wait_ready(page)
        drag_box(page, AROUND)
        page.keyboard.press("Enter")
        page.wait_for_selector("#done[open]")
        assert "1 manipulated, 1 with nothing manipulated, 1 skipped" in page.inner_text("#done")
        page.keyboard.press("Enter")  # closes
        wait_saved(page)
    found = saved(folder)
    assert [found[name].verdict for name in NAMES] == ["authentic", "skipped", "manipulated"]
    assert all(one.finished for one in found.values())


def test_the_seconds_are_those_that_a_photograph_was_shown(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    wall = []
    with serve() as address, open_page(chromium, address) as page:
        for name, shown in zip(NAMES, (200, 400, 600), strict=True):
            began = time.monotonic()
            page.wait_for_selector(f"#name:has-text('{name}')")
            wait_ready(page)
            page.wait_for_timeout(shown)
            page.keyboard.press("n")
            wall.append(time.monotonic() - began)
        page.wait_for_selector("#done[open]")
        wait_saved(page)
    found = [saved(folder)[name].seconds for name in NAMES]
    for seconds, least, most in zip(found, (0.2, 0.4, 0.6), wall, strict=True):
        assert least <= seconds <= most
    assert f"median {sorted(found)[1]:.1f} s" in summary_text(folder.parent / "boxes.json")


def test_undo_goes_back_to_an_earlier_photograph(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        drag_box(page, AROUND)
        drag_box(page, (5, 5, 30, 30))
        wait_mask(page, 2)
        page.keyboard.press("Backspace")
        wait_mask(page, 1)
        page.keyboard.press("n")  # too early: the box is gone
        page.wait_for_selector("#name:has-text('b.jpg')")
        wait_ready(page)
        page.keyboard.press("Backspace")
        page.wait_for_selector("#name:has-text('a.jpg')")
        wait_mask(page, 1)
        wait_saved(page)
        assert saved(folder)["a.jpg"].boxes == (approx(AROUND, abs=1),)
        page.click("#undo")
        page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 0")
        wait_saved(page)
    assert saved(folder)["a.jpg"].verdict is None


def test_a_box_is_drawn_moved_and_removed_by_keys_alone(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        page.keyboard.press("b")
        for key in (
            "ArrowLeft",
            "ArrowUp",
            "Shift+ArrowRight",
            "Shift+ArrowDown",
            "Shift+ArrowDown",
        ):
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        wait_mask(page)
        wait_saved(page)
        drawn = (0.35 * 160 - 1, 0.35 * 90 - 1, 0.65 * 160, 0.65 * 90 + 1)
        assert saved(folder)["a.jpg"].boxes == (approx(drawn),)
        assert "from 55, 31" in page.inner_text("#live")
        assert page.inner_text("#name") == "a.jpg"  # Enter has left the box, no more
        page.keyboard.press("Backspace")  # all of the moves together
        wait_saved(page)
        page.keyboard.press("Delete")
        wait_saved(page)
        page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 0")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#name:has-text('b.jpg')")
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#name:has-text('a.jpg')")
        page.keyboard.press("?")
        assert page.is_visible("#help")
        page.keyboard.press("n")  # is no verdict while help is open
        page.uncheck("#letters")
        page.keyboard.press("Escape")
        page.keyboard.press("n")  # nor while letters do not act
        assert page.inner_text("#name") == "a.jpg"
    assert saved(folder)["a.jpg"].verdict is None


def test_a_corner_can_be_dragged_and_a_click_draws_nothing(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        drag_box(page, AROUND)
        wait_mask(page)
        drag_box(page, (120, 72, 140, 80))
        wait_mask(page)
        wait_saved(page)
        assert saved(folder)["a.jpg"].boxes == (approx((40, 18, 140, 80), abs=1),)
        page.mouse.click(*point(page, 10, 10))
        page.mouse.move(*point(page, 10, 10))
        page.mouse.down()
        page.mouse.move(*point(page, 30, 60))
        page.keyboard.press("Escape")  # given up in the middle
        page.mouse.up()
        page.click("#boxes button >> nth=1")  # removes it
        wait_saved(page)
    assert saved(folder)["a.jpg"].boxes == ()


INNER = (50, 28, 110, 62)  # seen at 2.3 times the size, the middle in the middle
MIDDLE = (80, 45)


def zoomed(
    page: "Page", pixel: tuple[float, float], factor: float, fixed: tuple[float, float] = MIDDLE
) -> tuple[float, float]:
    """The window's point over a pixel, zoomed around a pixel that has not moved."""
    (x, y), (fixed_x, fixed_y) = point(page, *pixel), point(page, *fixed)
    return fixed_x + factor * (x - fixed_x), fixed_y + factor * (y - fixed_y)


def test_a_box_drawn_with_the_wheel_turned_is_in_stored_pixels(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        page.mouse.move(*point(page, *MIDDLE))
        page.mouse.wheel(0, -400)
        page.wait_for_selector("#fit:visible")
        factor = math.exp(400 * 0.002)
        drag(page, zoomed(page, INNER[:2], factor), zoomed(page, INNER[2:], factor))
        wait_mask(page)
        wait_saved(page)
        assert saved(folder)["a.jpg"].boxes == (approx(INNER, abs=0.5),)
        drag(page, zoomed(page, INNER[2:], factor), zoomed(page, (100, 60), factor))  # its corner
        wait_saved(page)
        page.wait_for_function("() => !document.querySelector('#boxes').innerText.includes('…')")
        assert saved(folder)["a.jpg"].boxes == (approx((*INNER[:2], 100, 60), abs=0.5),)
        page.click("#fit")
        assert not page.is_visible("#fit")
        drag_box(page, (5, 5, 30, 30))
        wait_saved(page)
        wait_mask(page, 2)
        page.mouse.wheel(0, -400)
        page.keyboard.press("Enter")  # the next photograph is seen as a whole
        page.wait_for_selector("#name:has-text('b.jpg')")
        wait_ready(page)
        drag_box(page, AROUND)
        wait_mask(page)
        wait_saved(page)
    found = saved(folder)
    assert found["a.jpg"].boxes[1] == approx((5, 5, 30, 30), abs=0.5)
    assert found["b.jpg"].boxes == (approx(AROUND, abs=0.5),)


def test_zoomed_and_moved_by_keys_alone(chromium: "Browser", serve: Serve, folder: Path) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        page.keyboard.press("+")
        page.keyboard.press("=")
        assert "2.3 times" in page.inner_text("#live")
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("b")  # in the middle of what is seen
        wait_saved(page)
        x0, y0, x1, y1 = saved(folder)["a.jpg"].boxes[0]
        assert (x0 + x1) / 2 < 75
        assert (y0 + y1) / 2 == approx(45, abs=1)
        page.keyboard.press("Enter")
        page.keyboard.down("Space")
        start = point(page, *MIDDLE)
        drag(page, start, (start[0] - 100, start[1]))
        page.keyboard.up("Space")
        page.keyboard.press("-")
        page.keyboard.press("0")
        assert not page.is_visible("#fit")
        page.click("#larger")
        page.click("#smaller")
        drag_box(page, AROUND)
        wait_saved(page)
    assert len(saved(folder)["a.jpg"].boxes) == 2  # moving has drawn nothing
    assert saved(folder)["a.jpg"].boxes[1] == approx(AROUND, abs=0.5)


def test_two_fingers_zoom_and_move_and_one_draws(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address, 390) as page:
        wait_ready(page)
        client = page.context.new_cdp_session(page)
        x, y = point(page, *MIDDLE)

        def touch(kind: str, *fingers: tuple[float, float]) -> None:
            points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(fingers)]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", (x - 30, y))
        touch("touchMove", (x - 40, y))  # begins to draw, which the second finger gives up
        touch("touchStart", (x - 40, y), (x + 40, y))
        for apart in (50, 60, 80):
            touch("touchMove", (x - apart, y), (x + apart, y))
        touch("touchMove", (x - 75, y), (x + 85, y))  # 5 points to the right
        touch("touchEnd", (x + 85, y))
        touch("touchEnd")
        page.wait_for_selector("#fit:visible")
        start, end = (zoomed(page, pixel, 2) for pixel in (INNER[:2], INNER[2:]))
        drag(page, (start[0] + 5, start[1]), (end[0] + 5, end[1]), "touch")
        wait_mask(page)
        wait_saved(page)
    assert saved(folder)["a.jpg"].boxes == (approx(INNER, abs=1),)


def test_a_large_photograph_is_seen_pixel_by_pixel(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    """A chessboard of single pixels is grey as a whole; its squares are seen when zoomed."""
    board = np.indices((900, 3200)).sum(0) % 2 * 255
    images.write_png(folder / "a.jpg", np.dstack([board.astype(np.uint8)] * 3))
    script = """([x, y]) => { const c = document.querySelector('#canvas');
      const r = c.getBoundingClientRect(), s = c.width / r.width;
      const data = c.getContext('2d').getImageData((x - r.x) * s, (y - r.y) * s, 40, 40).data;
      return Math.max(...data.filter((_, i) => i % 4 === 0)) -
             Math.min(...data.filter((_, i) => i % 4 === 0)) > 200; }"""
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        middle = point(page, 1600, 450, (3200, 900))
        assert not page.evaluate(script, middle)
        with page.expect_response("**/picture?box=*"):
            for _ in range(7):
                page.keyboard.press("+")
        page.wait_for_function(script, arg=middle)


def test_a_turned_photograph_is_shown_upright_and_stored_right(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    """What is stored at the top left is seen at the top right (orientation 6)."""
    pixels = scene()
    pixels[5:25, 10:40] = 250
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(folder / "a.jpg", quality=95, exif=exif)
    script = """([x, y]) => { const c = document.querySelector('#canvas');
      const r = c.getBoundingClientRect();
      const s = c.width / r.width;
      return c.getContext('2d').getImageData((x - r.x) * s, (y - r.y) * s, 1, 1).data[0]; }"""
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        size = (90, 160)
        assert page.evaluate(script, point(page, 75, 25, size)) > 230
        assert page.evaluate(script, point(page, 15, 25, size)) < 120
        drag(page, point(page, 62, 8, size), point(page, 88, 42, size))
        wait_mask(page)
        wait_saved(page)
    assert saved(folder)["a.jpg"].boxes == (approx((8, 2, 42, 28), abs=1),)


def test_it_goes_on_where_it_was(chromium: "Browser", serve: Serve, folder: Path) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        page.keyboard.press("n")
        page.wait_for_selector("#name:has-text('b.jpg')")
        wait_ready(page)
        drag_box(page, AROUND)
        wait_saved(page)
    with serve() as address, open_page(chromium, address) as page:  # another start, another page
        page.wait_for_selector("#name:has-text('b.jpg')")
        wait_mask(page)
        page.keyboard.press("Backspace")  # also what was drawn then
        page.wait_for_function("() => document.querySelectorAll('#boxes li').length === 0")
        page.keyboard.press("Backspace")
        wait_mask(page)
        page.keyboard.press("Enter")
        page.wait_for_selector("#name:has-text('c.jpg')")
        assert page.get_attribute("#progress", "aria-valuenow") == "2"


def test_what_could_not_be_saved_is_said_and_saved_later(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        page.route("**/photographs/0", lambda route: route.abort())
        drag_box(page, AROUND)
        page.wait_for_selector("#problem:has-text('Not saved yet')")
        assert page.get_attribute("#problem", "role") == "alert"
        assert page.inner_text("#saved") == "Not saved"
        drag_box(page, (5, 5, 30, 30))
        page.unroute("**/photographs/0")
        wait_saved(page)
        assert not page.is_visible("#problem")
    assert len(saved(folder)["a.jpg"].boxes) == 2


def test_of_two_pages_neither_loses_what_the_other_saved(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with (
        serve() as address,
        open_page(chromium, address) as page,
        open_page(chromium, address) as other,
    ):
        for each in (page, other):
            wait_ready(each)
        drag_box(page, AROUND)
        wait_saved(page)
        drag_box(other, (5, 5, 30, 30))
        other.wait_for_selector("#problem:has-text('Somebody else')")
        wait_mask(other)
        assert saved(folder)["a.jpg"].boxes == (approx(AROUND, abs=1),)
        drag_box(other, (5, 5, 30, 30))
        wait_saved(other)
    assert len(saved(folder)["a.jpg"].boxes) == 2


def test_the_students_map_is_off_until_its_key(
    chromium: "Browser", serve: Serve, tmp_path: Path
) -> None:
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url.rpartition("/")[2]))
        assert page.get_attribute("#map", "aria-pressed") == "false"
        page.keyboard.press("m")
        page.wait_for_selector("#hint:has-text('score of the photograph 0.25')")
        assert page.get_attribute("#map", "aria-pressed") == "true"
        page.click("#map")
        assert "score of" not in page.inner_text("#hint")
        assert asked.count("map") == 1


def test_the_mode_page_takes_uploads(
    chromium: "Browser", serve: Serve, folder: Path, tmp_path: Path
) -> None:
    images.write_png(tmp_path / "<b>new.png", scene())
    (tmp_path / "torn.png").write_bytes((tmp_path / "<b>new.png").read_bytes()[:100])
    with serve(saves=False) as address, open_page(chromium, address) as page:
        wait_ready(page)
        assert not page.is_visible("#nothing")
        assert not page.is_visible("#next")
        page.set_input_files("#file", tmp_path / "torn.png")
        page.wait_for_selector("#problem:has-text('torn.png: ')")
        page.set_input_files("#file", tmp_path / "<b>new.png")
        page.wait_for_selector("#name:has-text('<b>new.png')")
        page.wait_for_selector(
            "#hint:has-text('score of the photograph')"
        )  # it is shown at once here
        drag_box(page, AROUND)
        wait_mask(page)
    assert not (folder.parent / "boxes.json").exists()


def test_a_photograph_that_cannot_be_shown_is_said_and_passed(
    chromium: "Browser", serve: Serve, folder: Path
) -> None:
    with serve() as address:
        (folder / "a.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
        with open_page(chromium, address) as page:
            page.wait_for_selector("#problem:has-text('a.jpg: ')")
            page.keyboard.press("ArrowRight")
            page.wait_for_selector("#name:has-text('b.jpg')")
            wait_ready(page)
            drag_box(page, AROUND)
            wait_saved(page)


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_all_of_it_fits_and_can_be_touched(chromium: "Browser", serve: Serve, width: int) -> None:
    with serve() as address, open_page(chromium, address, width, 640) as page:
        wait_ready(page)
        drag_box(page, AROUND)
        wait_mask(page)
        page.evaluate("document.querySelector('#problem').textContent = 'a/long/path'.repeat(20)")
        page.evaluate("document.querySelector('#problem').hidden = false")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelector('#problem').hidden = true")
        for name in (
            "previous",
            "following",
            "ask",
            "undo",
            "map",
            "nothing",
            "unsure",
            "next",
            "larger",
            "smaller",
        ):
            place = page.locator(f"#{name}").bounding_box()
            assert place is not None
            assert place["x"] >= 0
            assert place["x"] + place["width"] <= width
            assert place["y"] + place["height"] <= 640
            assert min(place["width"], place["height"]) >= 44
        canvas = page.locator("#canvas").bounding_box()
        assert canvas is not None
        assert canvas["height"] > 640 / 3
        page.keyboard.press("?")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def contrast(first: list[float], second: list[float]) -> float:
    """Contrast of two colours by WCAG 2.1."""

    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
                  for c in (value / 255 for value in colour[:3])]  # fmt: skip
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_it_can_be_read_and_named(chromium: "Browser", serve: Serve) -> None:
    script = """() => [...document.querySelectorAll('h1, p, button, small, kbd, h2, td')]
      .filter(e => e.checkVisibility() && e.textContent.trim() && !e.disabled).map(e => {
        let behind = e;
        const read = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
        while (behind && read(getComputedStyle(behind).backgroundColor)[3] === 0)
          behind = behind.parentElement;
        return [e.id || e.textContent, read(getComputedStyle(e).color),
                read(getComputedStyle(behind).backgroundColor)]; })"""
    with serve() as address, open_page(chromium, address) as page:
        wait_ready(page)
        drag_box(page, AROUND)
        wait_mask(page)
        wait_saved(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for name, colour, behind in page.evaluate(script):
                assert contrast(colour, behind) >= 4.5, (scheme, name)
        names = page.evaluate(
            "[...document.querySelectorAll('button')].map(e => e.ariaLabel || e.textContent)"
        )
        assert all(len(name.strip()) > 2 for name in names)
        assert page.get_attribute("#stage", "aria-label") == "Photograph 1 of 3, a.jpg"
        assert page.inner_text("#live").startswith("Box from 40, 18")
        assert page.get_attribute("#live", "aria-live") == "polite"
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"  # where the focus is, is seen


def test_the_browser_loads_nothing_from_elsewhere(chromium: "Browser", serve: Serve) -> None:
    script = """() => new Promise(done => {
      document.addEventListener('securitypolicyviolation', event => done(event.blockedURI));
      new Image().src = 'http://192.0.2.1/leak.png'; })"""
    with serve() as address:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(address)
        assert "192.0.2.1" in page.evaluate(script)
        context.close()
