"""Headless Chromium by Playwright, and real drags by mouse, finger and pen."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason='needs a browser: apt install chromium, and playwright: pip install -e ".[test]"',
)

Pointer = Literal["mouse", "touch", "pen"]
Point = tuple[float, float]


@contextmanager
def start_chromium() -> Iterator["Browser"]:
    """A browser for several windows."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )


@contextmanager
def open_page(
    browser: "Browser", address: str, width: int = 1280, height: int = 800
) -> Iterator["Page"]:
    """A window at an address; one of a phone, with a touch screen, if it is narrow.

    What the page asks for elsewhere, and errors of its scripts, fail the test at the end.
    """
    wrong: list[str] = []
    own = "/".join(address.split("/")[:3])
    is_phone = width < 600
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=is_phone, is_mobile=is_phone
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: wrong.extend([one.url][one.url.startswith(own) :]))
    page.goto(address)
    yield page
    context.close()
    assert wrong == []


def drag(page: "Page", start: Point, end: Point, pointer: Pointer = "mouse") -> None:
    """Drag from one point of the window to another, in four steps."""
    steps = [tuple(a + (b - a) * part / 4 for a, b in zip(start, end, strict=True))
             for part in range(5)]  # fmt: skip
    client = page.context.new_cdp_session(page)
    if pointer == "touch":
        for number, (x, y) in enumerate(steps):
            kind = "touchMove" if number else "touchStart"
            points = [{"x": x, "y": y}]
            client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        return
    for number, (x, y) in enumerate([*steps, steps[-1]]):
        kind = {0: "mousePressed", len(steps): "mouseReleased"}.get(number, "mouseMoved")
        about = {"type": kind, "x": x, "y": y, "pointerType": pointer, "clickCount": 1}
        client.send("Input.dispatchMouseEvent", about | {"button": "left", "buttons": 1})
