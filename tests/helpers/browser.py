"""Headless Chromium by chromedriver's own protocol (W3C WebDriver), over plain HTTP."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
T = TypeVar("T")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of an element's id, by the standard


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(question: Callable[[], T], seconds: float = 60) -> T:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            raise TimeoutError(f"no answer after {seconds} s")
        time.sleep(0.2)
    return answer


class Browser:
    """One window of `width` x `height` pixels; elements are named by CSS selectors."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900) -> None:
        port = free_port()
        self._driver = subprocess.Popen(
            [str(CHROMEDRIVER), f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._base = f"http://127.0.0.1:{port}"
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += [f"--user-data-dir={folder}", "--no-first-run", "--hide-scrollbars"]
        options = {"args": arguments, "binary": CHROMIUM}
        wishes = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        wait_for(self._is_ready)
        session = self._call("POST", "/session", capabilities={"alwaysMatch": wishes})
        self._base += f"/session/{session['sessionId']}"
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("DELETE", "")
        self._driver.kill()
        self._driver.wait()

    def open(self, url: str) -> None:
        self._call("POST", "/url", url=url)

    def resize(self, width: int, height: int) -> None:
        """The page's own width: the window's cannot be below 500 pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = "Emulation.setDeviceMetricsOverride"
        self._call("POST", "/goog/cdp/execute", cmd=command, params=metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript function's body."""
        return self._call("POST", "/execute/sync", script=script, args=arguments)

    def type(self, selector: str, text: str) -> None:
        """Type into a field, or give a file input its path."""
        found = self._call("POST", "/element", using="css selector", value=selector)
        self._call("POST", f"/element/{found[_ELEMENT]}/value", text=text)

    def click(self, selector: str, right: float = 0.5, down: float = 0.5) -> None:
        """Click at a share of an element's width and height, once it is in view and uncovered."""
        script = """const e = document.querySelector(arguments[0]);
        e.scrollIntoView({block: 'center', behavior: 'instant'});
        const r = e.getBoundingClientRect();
        const x = Math.round(r.x + arguments[1] * r.width);
        const y = Math.round(r.y + arguments[2] * r.height);
        return e.contains(document.elementFromPoint(x, y)) ? {x, y} : null"""
        place = wait_for(lambda: self.run(script, selector, right, down))
        steps = [{"type": "pointerMove", "duration": 0, **place}]
        steps += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        mouse = {"type": "pointer", "id": "mouse", "actions": steps}
        self._call("POST", "/actions", actions=[mouse])

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", "/screenshot"))

    def requested(self) -> list[str]:
        """Addresses that the page asked for since the last call."""
        log = self._call("POST", "/se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in log]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        urls = [one["request"]["url"] for one in sent]
        return [url for url in urls if url.startswith(("http", "ws"))]  # no new-tab page

    def _is_ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status")["ready"])
        except URLError:
            return False

    def _call(self, method: str, path: str, **values: Any) -> Any:
        body = json.dumps(values).encode() if method == "POST" else None
        try:
            with urlopen(Request(self._base + path, body, method=method), timeout=120) as answer:  # noqa: S310
                return json.load(answer)["value"]
        except HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error
