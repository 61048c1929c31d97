"""The files that tools and newcomers read agree with the project."""

import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from boxpromptiml import __version__, cli

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_version_is_the_same_everywhere() -> None:
    assert _yaml("CITATION.cff")["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_bibtex_agrees_with_the_citation_file() -> None:
    cited = _yaml("CITATION.cff")
    bibtex = (ROOT / "docs/citation.md").read_text()
    assert f"version = {{{cited['version']}}}" in bibtex
    for work in (cited, *cited["references"]):
        assert f"= {{{work['title']}}}," in bibtex
    for work in cited["references"]:
        names = [f"{a['family-names']}, {a['given-names']}" for a in work["authors"]]
        assert f"{{{' and '.join(names)}}}" in bibtex
        assert f"{{{work['url'].removeprefix('https://arxiv.org/abs/')}}}" in bibtex


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


def test_the_data_command_is_found_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    group = "boxpromptiml.commands"
    (entry,) = (
        EntryPoint(name, value, group)
        for name, value in PYPROJECT["project"]["entry-points"][group].items()
    )
    monkeypatch.setattr(cli, "entry_points", lambda **wanted: [entry])
    assert cli.main(["data", "--help"]) == 0
    assert "usage: boxpromptiml data JOB" in capsys.readouterr().out
    assert cli.main(["-q", "data", "imprt"]) == 2
    assert "did you mean 'import'? (see boxpromptiml data --help)" in capsys.readouterr().err
    monkeypatch.setattr(cli, "entry_points", lambda **wanted: [])
    assert cli.main(["data", "--help"]) == 1
    assert "data_prep is not installed" in capsys.readouterr().err
