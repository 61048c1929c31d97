"""experiments/paper: every file runs on tiny data, every command of its README parses."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from boxpromptiml.cli import main
from data_prep.__main__ import main as data_prep
from data_prep.protocols.published import PROTOCOLS

FOLDER = Path(__file__).parent.parent / "experiments"
PAPER = sorted((FOLDER / "paper").glob("*.yaml"))
GUIDE = (FOLDER / "paper" / "README.md").read_text()


def configs(config: Path) -> list[str]:
    """The file after the one that its first line names."""
    first = config.read_text().partition("\n")[0]
    label = "after experiments/image_label.yaml" in first
    base = FOLDER / ("image_label.yaml" if label else "paper/boxpromptiml.yaml")
    assert config == base or "after" in config.read_text().partition("\n\n")[0].lower()
    files = [base] if config == base else [base, config]
    return [word for file in files for word in ("--config", str(file))]


@pytest.mark.parametrize("config", PAPER, ids=lambda path: path.stem)
def test_every_file_runs_as_it_is(config: Path, data_root: Path, tmp_path: Path) -> None:
    """On tiny data without weights; pseudo-masks are replaced by masks."""
    network = "wcbnet" if config.stem == "image_label" else "student"
    supervision = "label" if config.stem == "image_label" else "mask"
    status = main(
        ["fit", *configs(config), "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu",
         *(f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val", "test")),
         f"--data.supervision={supervision}", "--data.train_fraction=1", "--data.batch_size=2",
         "--data.num_workers=0", "--data.input.size=[64,64]", "--model.pretrained=null",
         f"--model.{network}.backbone=mobilenetv3_small_050",
         f"--trainer.default_root_dir={tmp_path}"]
    )  # fmt: skip
    assert status == 0


def test_no_two_files_share_a_folder_and_all_are_in_the_guide() -> None:
    folders = Counter(
        yaml.safe_load(config.read_text())["trainer"]["default_root_dir"] for config in PAPER
    )
    assert set(folders.values()) == {1}
    lists = " ".join(re.findall(r"for \w in ([\w ]+); do", GUIDE)).split()
    named = {*lists, *re.findall(r"experiments/paper/(\w+)\.yaml", GUIDE)}
    assert {config.stem for config in PAPER} <= named


def test_the_data_is_that_of_the_protocol() -> None:
    data = yaml.safe_load((FOLDER / "paper/boxpromptiml.yaml").read_text())["data"]
    portions = PROTOCOLS["boxpromptiml"].portions
    trained = {portion.dataset for portion in portions if portion.split == "train"}
    assert {Path(path).parent.name for path in data["train"]} == trained
    assert {Path(path).stem for path in data["val"]} == {f"val_{name}" for name in trained}
    tested = {f"test_{portion.dataset}" for portion in portions if portion.split == "test"}
    assert {Path(path).stem for path in data["test"]} == tested
    assert all(
        portion.authentic == 0 for portion in portions
    )  # include_authentic: false changes nothing
    for portion in portions:
        assert str(portion.manipulated) in GUIDE


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What the guide's shell lines would start, by programs that write down their words."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("boxpromptiml", "python"):
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"with open({str(folder / 'log')!r}, 'a') as log:\n"
            f"    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    script = "\n".join(re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", script], env={"PATH": path}, cwd=folder, check=True)
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def test_every_command_of_the_guide_parses(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER.parent)
    counts = Counter(words[1] if words[0] == "boxpromptiml" else words[3] for words in commands
                     if words[1] != "-c")  # fmt: skip
    assert counts["pseudo-masks"] == counts["boxes"] == 4
    assert counts["fit"] == 1 + 1 + 4 + 4
    of_a_run = "runs/paper/boxpromptiml/config.yaml"  # the same, once it is trained
    for command in commands:
        words = [str(FOLDER / "paper/boxpromptiml.yaml") if w == of_a_run else w for w in command]
        if words[:2] == ["python", "-c"]:
            compile(words[2], "guide", "exec")
            continue
        if words[0] == "python":
            assert words[1:3] == ["-m", "data_prep"]
            status = data_prep([*words[3:], "--print_config"])
        else:
            status = main([*words[1:], "--print_config"])
        printed = capsys.readouterr()
        assert status == 0, (shlex.join(words), printed.err)
        assert yaml.safe_load(printed.out)
