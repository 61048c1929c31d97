"""The README's tour, line by line, on tiny data: what it promises must run as it stands."""

import importlib
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.cli import main
from boxpromptiml.io import images
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


def tour() -> list[list[str]]:
    block = re.search(r"## Five minutes\n```bash\n(.*?)```", README, re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line and not line.startswith("#")]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    for seed, split in enumerate(("train", "val", "test")):
        make_folder(tmp_path / "DATA" / split, 4, 2, seed=seed)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for place in ("photos/a.jpg", "more/b.tif"):
        target = tmp_path / place
        target.parent.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        if target.suffix == ".jpg":
            images.write_jpeg(target, pixels, 90)
        else:
            from PIL import Image

            Image.fromarray(pixels).save(target)
    return tmp_path


@pytest.mark.slow
def test_the_tour_runs_line_by_line(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    lines = tour()
    assert [line[1] for line in lines if line[0] == "boxpromptiml"] == [
        "fit", "test", "report", "localize", "localize", "evaluate", "robustness", "fit", "fit"
    ]  # fmt: skip
    for line in lines:
        network = "wcbnet" if "experiments/image_label.yaml" in line else "student"
        smaller = f"--model.{network}.backbone=mobilenetv3_small_050"
        more = [*FASTER, smaller, "--model.pretrained=null"] if "fit" in line else []
        if line[0] == "boxpromptiml":
            assert main([*line[1:], *more]) == 0, line
        else:
            assert line[:3] == ["python", "-m", "data_prep"]
            assert data_prep(line[3:]) == 0, line
    assert (workplace / "runs" / "native" / "metrics_test.json").is_file()
    assert (workplace / "runs" / "mixed" / "checkpoints" / "last.ckpt").is_file()
    assert (workplace / "runs" / "native" / "report.html").is_file()
    assert (workplace / "runs" / "scores" / "per_image.csv").is_file()
    assert (workplace / "runs" / "native" / "robustness" / "robustness.svg").is_file()
    found = sorted(path.name for path in (workplace / "runs/out/prob").iterdir())
    assert found == ["a.png", "b.png"]


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
