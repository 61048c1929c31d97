"""The script is run by bash itself."""

import subprocess
from pathlib import Path

import pytest

from boxpromptiml.cli import _TRAINER_VERBS, _VERBS, main
from data_prep.__main__ import _JOBS


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "boxpromptiml"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as stream:
        patch.setattr("sys.stdout", stream)
        assert main(["completion"]) == 0
    return path


def completed(script: Path, *words: str) -> set[str]:
    """What bash offers when Tab is pressed behind the last word."""
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _boxpromptiml; '
    command = ["bash", "-c", ask + 'echo "${COMPREPLY[@]}"', str(script), "boxpromptiml", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_commands_and_jobs(script: Path) -> None:
    assert completed(script, "") == {*_VERBS, *_TRAINER_VERBS, "data"}
    assert completed(script, "ro") == {"robustness"}
    assert completed(script, "data", "") == set(_JOBS)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["localize", "--im"], {"--images"}),
        (["localize", "--images", "photos", "--thr"], {"--threads", "--threshold"}),
        (["fit", "--trainer.max_e"], {"--trainer.max_epochs"}),
        (["data", "pseudo-masks", "--num_s"], {"--num_shards"}),
        (["data", "import", "--mani"], set()),
        (["unknown", "--"], set()),
    ],
)
def test_options(script: Path, words: list[str], offered: set[str]) -> None:
    assert completed(script, *words) == offered
