"""The commands of README and guides, line by line, on tiny data: they must run as printed."""

import importlib
import inspect
import re
import shlex
import shutil
from pathlib import Path

import pytest

from boxpromptiml.cli import main
from data_prep.__main__ import _JOBS as JOBS
from data_prep.__main__ import main as data_prep
from tests.helpers.data import make_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FASTER = [
    "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.input.size=[64,64]",
    "--data.batch_size=2", "--trainer.enable_progress_bar=false",
    "--trainer.check_val_every_n_epoch=1",
]  # fmt: skip


def commands(text: str) -> list[list[str]]:
    """The words of every command in the bash blocks of a text, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_smaller(words: list[str]) -> None:
    """Run a command of this project; trainings get fewer and smaller steps."""
    if words[:3] == ["python", "-m", "data_prep"]:
        assert data_prep(words[3:]) == 0, words
        return
    assert words[0] == "boxpromptiml", words
    network = "wcbnet" if "experiments/image_label.yaml" in words else "student"
    smaller = f"--model.{network}.backbone=mobilenetv3_small_050"
    more = [*FASTER, smaller, "--model.pretrained=null"] if "fit" in words else []
    assert main([*words[1:], *more]) == 0, words


@pytest.mark.slow
def test_the_readme_runs_line_by_line(
    tiny_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("experiments", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    lines = [words for words in commands(README) if words[:3] != ["python", "-m", "pip"]]
    assert [words[1] for words in lines if words[0] == "boxpromptiml"] == [
        "localize", "demo", "fit", "test", "report", "localize", "evaluate", "info", "annotate"
    ]  # fmt: skip
    for words in lines:
        if words == ["boxpromptiml", "demo"]:
            shutil.copytree(tiny_demo, tmp_path / "runs" / "demo")
        elif words[1] == "annotate":  # would serve its page until it is stopped
            assert Path(words[words.index("--images") + 1]).is_dir()
        else:
            run_smaller(words)
    assert (tmp_path / "runs/maps/prob/forgery.png").is_file()
    assert (tmp_path / "runs/mine/report.html").is_file()
    assert (tmp_path / "runs/mine/scores/per_image.csv").is_file()


@pytest.mark.slow
def test_the_guide_to_own_data_runs_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for seed, split in enumerate(("train", "val", "test")):
        make_folder(tmp_path / "DATA" / split, 4, 2, seed=seed)
    for words in commands((ROOT / "docs" / "own_data.md").read_text()):
        run_smaller(words)
    assert (tmp_path / "runs/check/report.html").is_file()
    assert (tmp_path / "runs/native/robustness/robustness.svg").is_file()
    assert (tmp_path / "runs/scores/per_image.csv").is_file()
    assert (tmp_path / "runs/mixed/checkpoints/last.ckpt").is_file()


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1_200


def test_python_lines_name_what_exists() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code.splitlines()[0], {})  # noqa: S102 - our own README


ROOMS = "boxpromptiml|data_prep|docs|experiments|tests|benchmarks|examples"
TEXTS = [
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/**/*.md"))
    if path.relative_to(ROOT).parts[0] in ("docs", "data_prep", "experiments", "tests")
    or path.parent == ROOT
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_tests_named_in_a_text_exist(text: Path) -> None:
    """Links, and paths in code spans; NAME and the like stand for a file to write."""
    content = re.sub(r"```.*?```", "", text.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(((?!http|#)[^)#]+)\)", content):
        assert (text.parent / link).exists(), link
    for span in re.findall(r"`([^`\n]+)`", content):
        for path, test in re.findall(rf"(?<![\w/])((?:{ROOMS})/[\w/.-]+)(?:::(\w+))?", span):
            if not re.search(r"[A-Z]{4}|foo|\*", path.replace("README", "")):
                assert (ROOT / path).exists(), path
                assert f"def {test}(" in (ROOT / path).read_text() if test else True, span


@pytest.mark.parametrize("job", JOBS)
def test_the_guide_lists_every_option_of_a_job(job: str) -> None:
    guide = (ROOT / "data_prep" / "README.md").read_text().partition("## Options")[2]
    (row,) = re.findall(rf"^\| `{job}` \|.*", guide, re.MULTILINE)
    module, name = JOBS[job][1].split(":")
    options = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert set(re.findall(r"--\w+", row)) == {f"--{option}" for option in options}
