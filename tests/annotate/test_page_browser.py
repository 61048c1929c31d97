"""The page in headless Chromium: an upload, a box, a bad file, nothing from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.inference.checkpoint import build_network
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io import images
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from tests.helpers.browser import CHROMEDRIVER, CHROMIUM, Browser, free_port, wait_for

pytest.importorskip("gradio", reason='needs gradio: pip install -e ".[demo]"')
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs apt install chromium chromium-driver"
)
SIZE = (90, 160)  # of the photograph


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    config = StudentConfig("mobilenetv3_small_050", fusion=FusionConfig(width=16, prototypes=8))
    spec = ModelSpec(config, NetworkInput("resize", (64, 64)), 0.5)
    write_safetensors(path, build_network(spec).eval(), spec.to_dict())
    return path


@pytest.fixture
def address(checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    words = ["--checkpoint", str(checkpoint), "--port", str(port)]
    page = subprocess.Popen(
        [sys.executable, "-m", "boxpromptiml", "page", *words],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        assert page.stdout is not None
        said = page.stdout.readline()
        assert said == f"http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
        yield said.split()[0]
        page.send_signal(signal.SIGINT)
        page.wait(60)
    finally:
        page.kill()
        page.wait()
    assert not list(tmp_path.glob("tmp*"))  # uploads are gone


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    pixels = np.random.default_rng(0).integers(40, 90, (*SIZE, 3))
    pixels[((rows - 45) / 20) ** 2 + ((columns - 80) / 30) ** 2 < 1] += np.array([120, 60, 20])
    images.write_jpeg(tmp_path / "photo.jpg", pixels.astype(np.uint8), 95)
    return tmp_path / "photo.jpg"


def shows(browser: Browser, name: str) -> bool:
    script = "const e = document.querySelector(arguments[0]); return !!e && e.naturalWidth > 0"
    return browser.run(script, f"#{name} img")


def said(browser: Browser) -> str:
    return browser.run("return document.querySelector('.said').innerText").strip()


def wait_until_said(browser: Browser, text: str) -> None:
    try:
        wait_for(lambda: text in said(browser), 30)
    except TimeoutError:
        pytest.fail(f"the page says {said(browser)!r}, not {text!r}")


def sides(browser: Browser) -> list[float]:
    script = "return [...document.querySelectorAll('input[type=number]')].map(e => +e.value)"
    return browser.run(script)


@pytest.mark.parametrize("width", [1280, 375])
def test_upload_box_and_answers(address: str, photo: Path, tmp_path: Path, width: int) -> None:
    with Browser(tmp_path / "profile", width, 800) as browser:
        browser.open(address)
        wait_for(lambda: browser.run("return !!document.querySelector('input[type=file]')"))
        browser.type("input[type=file]", str(photo))
        wait_until_said(browser, "Click one corner")
        wait_for(lambda: all(shows(browser, name) for name in ("photo", "flagged", "prob")))
        assert not shows(browser, "teacher")

        browser.click("#photo img", 0.25, 0.2)
        wait_until_said(browser, "Now click")
        browser.click("#photo img", 0.75, 0.8)
        wait_for(lambda: shows(browser, "teacher"))
        assert sides(browser) == pytest.approx([40, 18, 120, 72], abs=2)
        figures = browser.run("return document.querySelector('.figures').innerText")
        assert "Area of the mask" in figures
        assert browser.run("return document.documentElement.scrollWidth") <= width

        asked = browser.requested()
        assert len(asked) > 10
        own = (address, address.replace("http", "ws", 1))
        assert [url for url in asked if not url.startswith(own)] == []


def test_the_browser_is_told_to_load_nothing_from_outside(address: str, tmp_path: Path) -> None:
    script = """const image = new Image(); const done = arguments.length;
    document.addEventListener('securitypolicyviolation', e => document.title = e.blockedURI);
    image.src = 'http://192.0.2.1/leak.png'; return done"""
    with Browser(tmp_path / "profile") as browser:
        browser.open(address)
        wait_for(lambda: browser.run("return !!document.querySelector('input[type=file]')"))
        browser.run(script)
        wait_for(lambda: "192.0.2.1" in browser.run("return document.title"), 10)


def test_a_bad_file_and_a_bad_box_are_said_and_the_page_lives_on(
    address: str, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.jpg").write_bytes(photo.read_bytes()[:900])
    with Browser(tmp_path / "profile") as browser:
        browser.open(address)
        wait_for(lambda: browser.run("return !!document.querySelector('input[type=file]')"))
        browser.type("input[type=file]", str(tmp_path / "torn.jpg"))
        wait_until_said(browser, "torn.jpg: ")
        assert browser.run("return !!document.querySelector('.said [role=alert]')")
        assert not any(shows(browser, name) for name in ("photo", "flagged", "prob", "teacher"))

        browser.click("button[aria-label='Clear'], button[title='Clear']")
        wait_for(lambda: browser.run("return !!document.querySelector('input[type=file]')"))
        browser.type("input[type=file]", str(photo))
        wait_for(lambda: shows(browser, "photo"))
        browser.click("#ask")
        wait_until_said(browser, "Fill in all four sides")
        for number, text in enumerate(("10", "18", "4", "72")):
            browser.type(f"#side-{number} input", text)
        browser.click("#ask")
        wait_until_said(browser, "inside the image of 160 x 90")
        browser.type("#side-2 input", "0")
        browser.click("#ask")
        wait_for(lambda: shows(browser, "teacher"))
        assert sides(browser) == [10, 18, 40, 72]
