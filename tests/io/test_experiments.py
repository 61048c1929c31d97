"""Packaged experiments, by name and by the path that the documentation uses."""

import tomllib
from importlib.metadata import PackagePath
from pathlib import Path

import pytest

from boxpromptiml.cli.words import with_experiments
from boxpromptiml.io import experiments
from boxpromptiml.io.experiments import find_experiment, packaged_experiments

ROOT = Path(__file__).parents[2]


def test_all_files_of_the_repository_are_packaged_and_found() -> None:
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").rglob("*.yaml")}
    assert {f"experiments/{name}.yaml" for name in packaged_experiments()} == here
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "data-files"
    ]
    packed = {
        f"{folder.removeprefix('share/boxpromptiml/')}/{path.name}"
        for folder, patterns in folders.items()
        for pattern in patterns
        for path in ROOT.glob(pattern)
        if path.suffix == ".yaml"
    }
    assert packed == here


def test_an_installed_wheel_knows_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share/boxpromptiml/experiments"
    (folder / "studies").mkdir(parents=True)
    for name in ("base", "studies/supervision"):
        (folder / f"{name}.yaml").write_text("# one\n")
    package = tmp_path / "lib/boxpromptiml/io/experiments.py"
    monkeypatch.setattr(experiments, "__file__", str(package))

    class Distribution:
        def locate_file(self, path: PackagePath) -> Path:
            return tmp_path / "lib" / path

    listed = PackagePath("../share/boxpromptiml/experiments/base.yaml")
    listed.dist = Distribution()  # type: ignore[assignment]
    monkeypatch.setattr(experiments, "files", lambda _: [PackagePath("boxpromptiml/a.py"), listed])
    assert packaged_experiments() == {
        "base": folder / "base.yaml", "studies/supervision": folder / "studies/supervision.yaml"
    }  # fmt: skip


def test_a_file_of_the_user_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    native = str(ROOT / "experiments/native.yaml")
    for text in ("native", "native.yaml", "experiments/native.yaml"):
        assert find_experiment(text) == native
    assert with_experiments(["-c", "native", "--config=mine.yaml"]) == [
        "-c", native, "--config=mine.yaml"
    ]  # fmt: skip
    (tmp_path / "native.yaml").write_text("{}")
    assert find_experiment("native.yaml") == "native.yaml"
