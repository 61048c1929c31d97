"""The files that tools and newcomers read agree with the project."""

import re
from pathlib import Path
from typing import Any

import yaml

from boxpromptiml import __version__

ROOT = Path(__file__).parent.parent


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_version_is_the_same_everywhere() -> None:
    assert _yaml("CITATION.cff")["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_use_the_ruff_of_the_lock() -> None:
    (locked,) = re.findall(r"^ruff==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    (hook,) = (repo for repo in _yaml(".pre-commit-config.yaml")["repos"] if "ruff" in repo["repo"])
    assert hook["rev"] == f"v{locked}"


def test_workflows_run_files_that_exist() -> None:
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                for name in re.findall(r"(?:tests/|tests\.|\.ci/)\w+", step.get("run", "")):
                    assert (ROOT / name.replace("tests.", "tests/")).exists(), name
