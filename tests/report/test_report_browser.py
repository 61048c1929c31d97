"""The page in a real browser: it fits a phone, sorts and filters without a script, runs none."""

import json
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.report.build import build_report
from boxpromptiml.report.page import render
from tests.helpers.report_pages import make_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt install chromium)"),
]

# The measuring script stands in a page around the report: the report's own policy allows none.
OUTER = """<!DOCTYPE html><iframe id="page" style="width: {width}px; height: 800px; border: 0"
srcdoc="{html}"></iframe><pre id="found"></pre><script>
const frame = document.getElementById("page");
frame.onload = () => {{
  const inside = frame.contentDocument;
  const rows = () => [...inside.querySelectorAll(".rows .row")]
    .filter(row => row.offsetParent !== null)
    .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
    .map(row => row.querySelector("h4").textContent);
  const lines = () => [...inside.querySelectorAll(".picture svg")]
    .filter(svg => getComputedStyle(svg).display !== "none").length;
  const found = {{ width: inside.documentElement.scrollWidth, worst: rows(), lines: lines() }};
  for (const id of ["order-best", "order-name", "kind-0", "kind-1", "lines"]) {{
    inside.getElementById(id).click();
    found[id] = id === "lines" ? lines() : rows();
  }}
  const gap = inside.querySelector(".picture img").getBoundingClientRect().width;
  found.picture = gap - inside.querySelector(".picture svg").getBoundingClientRect().width;
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>"""


def dump(path: Path) -> str:
    """The page's elements after it has loaded."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options += ["--disable-background-networking", f"--user-data-dir={path.parent / 'profile'}"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, timeout=120, text=True).stdout


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = make_run(tmp_path_factory.mktemp("run"), [0.9, 0.1, 0.8, 0.2], [0.9])
    other = make_run(tmp_path_factory.mktemp("with_a_name_that_is_rather_long"), [0.9] * 4, [0.9])
    return render(build_report([run, other], None))


def measure(html: str, width: int, folder: Path) -> dict[str, Any]:
    path = folder / "outer.html"
    path.write_text(OUTER.format(width=width, html=escape(html)), encoding="utf-8")
    text = dump(path)
    found = text[text.index('<pre id="found">') + 16 :]
    return json.loads(found[: found.index("</pre>")])


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_page_is_never_wider_than_the_window(html: str, width: int, tmp_path: Path) -> None:
    assert measure(html, width, tmp_path)["width"] <= width


def test_rows_are_sorted_and_filtered_by_the_controls(html: str, tmp_path: Path) -> None:
    found = measure(html, 1280, tmp_path)
    assert found["worst"] == ["set/b", "set/d", "set/a", "set/c"]
    assert found["order-best"] == ["set/c", "set/a", "set/d", "set/b"]
    assert found["order-name"] == ["set/a", "set/b", "set/c", "set/d"]
    assert found["kind-0"] == ["set/b", "set/d"]  # removal, still by name
    assert found["kind-1"] == ["set/a", "set/c"]
    assert found["lines"] == 0
    assert abs(found["picture"]) < 1


def test_a_script_that_got_in_would_not_run(html: str, tmp_path: Path) -> None:
    planted = '<script>document.title = "ran"</script><img src=x onerror="document.title = 1">'
    path = tmp_path / "page.html"
    path.write_text(html.replace("</main>", f"{planted}</main>"), encoding="utf-8")
    text = dump(path)
    assert "<script>" in text
    assert "<title>Run " in text
