"""`from boxpromptiml import ...`: what the package promises to its users."""

import subprocess
import sys

import pytest

import boxpromptiml
from boxpromptiml.cli import main
from data_prep.__main__ import main as data_prep

NAMES = (
    "DistillTask", "GrabCutTeacher", "ImageLabelTask", "LocalizationData", "Localizer",
    "SamTeacher", "__version__", "evaluate_predictions", "read_manifest",
)  # fmt: skip


def test_the_public_names() -> None:
    assert set(boxpromptiml.__all__) == set(NAMES)
    for name in NAMES:
        assert getattr(boxpromptiml, name) is not None
        assert name in dir(boxpromptiml)
    assert boxpromptiml.Localizer.__name__ == "Localizer"
    with pytest.raises(AttributeError, match="no attribute 'Localiser'"):
        boxpromptiml.Localiser  # noqa: B018


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
