"""`from boxpromptiml import ...`: what the package promises to its users."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import boxpromptiml
from boxpromptiml.cli import main
from data_prep.__main__ import main as data_prep

NAMES = (
    "CamConfig", "DistillTask", "FusionConfig", "GrabCutTeacher", "ImageLabelTask",
    "LocalizationData", "Localizer", "LocalizerOutput", "NetworkInput", "OwnConfig", "Proposal",
    "SamTeacher", "SegmenterConfig", "StudentConfig", "WCBConfig", "__version__",
    "evaluate_predictions", "masked_bce", "read_manifest", "trust",
)  # fmt: skip


def test_the_public_names() -> None:
    assert set(boxpromptiml.__all__) == set(NAMES)
    for name in NAMES:
        assert getattr(boxpromptiml, name) is not None
        assert name in dir(boxpromptiml)
    assert boxpromptiml.Localizer.__name__ == "Localizer"
    with pytest.raises(AttributeError, match="no attribute 'Localiser'"):
        boxpromptiml.Localiser  # noqa: B018


def test_documents_import_public_names_alone() -> None:
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/*.ipynb"),
             *root.glob("boxpromptiml/weights/*.md")]  # fmt: skip
    found = [
        line
        for page in pages
        for line in re.findall(r"from boxpromptiml\S* import .+", page.read_text())
    ]
    assert len(found) > 3
    assert [line for line in found if not line.startswith("from boxpromptiml import")] == []


@pytest.mark.parametrize("words", [["boxpromptiml", "--help"], ["data_prep", "--help"]])
def test_help_imports_neither_torch_nor_numpy(words: list[str]) -> None:
    program = (
        "import sys, runpy\n"
        f"sys.argv = {words!r}\n"
        "try:\n    runpy.run_module(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "print('LOADED', *({'torch', 'numpy', 'lightning', 'jsonargparse'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == data_prep(["--version"]) == 0
    assert capsys.readouterr().out == f"boxpromptiml {boxpromptiml.__version__}\n" * 2
