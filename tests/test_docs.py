"""The documentation builds without a warning and without a network, and the site needs none."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from boxpromptiml.cli import _VERBS as VERBS
from data_prep.__main__ import _JOBS as JOBS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    loads = r'<(?:script|img|iframe|link)\b[^>]* (?:src|href)="(?:https?:)?//[^"]+'
    for page in pages:
        assert re.findall(loads, page.read_text()) == [], page


@pytest.mark.slow
def test_every_page_of_the_navigation_is_listed(site: Path) -> None:
    titles = re.findall(r"^ +- ([^:\n]+): \S+\.md", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(titles) > 25
    listed = unescape((site / "index.html").read_text())
    for title in titles:
        assert re.search(rf">\s*{re.escape(title)}\s*<", listed), title


@pytest.mark.slow
def test_every_command_and_public_name_is_described(site: Path) -> None:
    commands = (site / "docs/commands/index.html").read_text()
    for name in [f"boxpromptiml-{verb}" for verb in (*VERBS, "fit")] + [
        f"python-m-data_prep-{job}" for job in JOBS
    ]:
        assert f'id="{name}"' in commands
    api = (site / "docs/api/index.html").read_text()
    import boxpromptiml

    for name in set(boxpromptiml.__all__) - {"__version__"}:
        assert re.search(rf'id="boxpromptiml\.[\w.]*{name}"', api), name
