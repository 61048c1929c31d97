"""experiments/paper: every file runs on tiny data, every command of its README parses and runs."""

import glob
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from boxpromptiml.cli import main
from data_prep.__main__ import main as data_prep
from data_prep.protocols.published import PROTOCOLS
from tests.helpers import trees

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


@pytest.mark.slow
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


def commands_of(guide: str, folder: Path) -> list[list[str]]:
    """What a guide's shell lines would start, by programs that write down their words."""
    for name in ("boxpromptiml", "python"):
        program = folder / name
        program.write_text(
            f"#!{sys.executable} -IS\nimport json, sys\n"
            f"with open({str(folder / 'log')!r}, 'a') as log:\n"
            f"    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    script = "\n".join(re.findall(r"```bash\n(.*?)```", guide, re.DOTALL))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-euc", script], env={"PATH": path}, cwd=folder, check=True)
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The commands of the guide to the first paper."""
    return commands_of(GUIDE, tmp_path_factory.mktemp("bin"))


def test_the_commands_of_the_guide_to_the_second_paper_parse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = commands_of((FOLDER / "paper_labels" / "README.md").read_text(), tmp_path)
    assert Counter(words[1] for words in found) == {"-m": 6, "fit": 2, "test": 2, "validate": 4}
    monkeypatch.chdir(FOLDER.parent)
    for words in found:
        run, rest = (data_prep, words[3:]) if words[0] == "python" else (main, words[1:])
        assert run([*rest, "--print_config"]) == 0, (shlex.join(words), capsys.readouterr().err)
        assert yaml.safe_load(capsys.readouterr().out)


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


def enlarge(raw: Path) -> None:
    """More images of the datasets that are divided into training and test, each its own group."""
    for number in range(10, 16):
        splice, copy, task = f"canong3_canonxt_sub_{number}", str(number), f"NC2016_{number:04d}"
        trees.photo(raw / f"columbia/4cam_splc/{splice}.tif", trees.region(splice))
        colours = np.where(trees.region(splice)[..., None], (0, 200, 0), (200, 0, 0))
        edges = Image.fromarray(colours.astype(np.uint8))
        trees.save(raw / f"columbia/4cam_splc/edgemask/{splice}_edgemask.jpg", edges)
        trees.photo(raw / f"coverage/image/{copy}t.tif", trees.region(copy))
        trees.mask(raw / f"coverage/mask/{copy}forged.tif", trees.region(copy))
        root = raw / "NC2016_Test0601"
        trees.photo(root / f"probe/{task}.jpg", trees.region(task))
        mask = f"reference/manipulation/mask/{task}.png"
        trees.mask(root / mask, ~trees.region(task))
        row = ["manipulation", f"probe/{task}.jpg", "Y", mask, f"world/{task}.jpg", *"YNN"]
        with (root / "reference/manipulation/NC2016-manipulation-ref.csv").open("a") as table:
            table.write("|".join(row) + "\n")


def make_raw(raw: Path) -> None:
    """The datasets of the guide in miniature, under the names that it gives them."""
    for name in ("casia_v1", "casia_v2", "columbia", "coverage"):
        trees.TREES[name](raw / name)
    trees.nist16(raw)
    trees.in_the_wild(raw)
    trees.korus(raw / "realistic-tampering")
    for name, archive in (("cocoglide", "CocoGlide"), ("imd2020", "IMD2020")):
        trees.TREES[name](raw / name)
        shutil.make_archive(str(raw / archive), "zip", raw / name)
        shutil.rmtree(raw / name)
    for network in ("facebook", "weibo", "wechat", "whatsapp"):
        for stem in ("Sp_D_CNN_A_art0024_ani0032_0268", "Sp_S_NND_A_nat0054_nat0054_0189"):
            trees.photo(raw / f"osn/casia_{network}/Tp/{stem}.jpg", trees.region(stem))
            trees.mask(raw / f"osn/casia_{network}/Gt/{stem}.png", trees.region(stem))
    enlarge(raw)


def in_miniature(words: list[str]) -> list[str]:
    """A command of the guide for a few images, without a GPU and without weights."""
    replaced = {"cuda": "cpu", "sam": "grabcut"}
    words = [replaced.get(word, word) for word in words]
    for option in (
        ("--teacher_checkpoint", "--model_type", "--device") if "grabcut" in words else ()
    ):
        at = words.index(option)
        del words[at : at + 2]
    if "--val_fraction" in words:
        words[words.index("--val_fraction") + 1] = "0.4"
    if words[1] == "fit" or "experiments/paper/social_networks.yaml" in words:
        network = "wcbnet" if "experiments/image_label.yaml" in words else "student"
        words += [
            "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1",
            "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--data.train_fraction=1",
            "--data.batch_size=2", "--data.num_workers=0", "--data.input.size=[32,32]",
            "--model.pretrained=null", f"--model.{network}.backbone=mobilenetv3_small_050",
        ]  # fmt: skip
    return words


def expanded(word: str) -> list[str]:
    """The files that a pattern names, as the shell has it."""
    return sorted(glob.glob(word)) if word.endswith("*.jsonl") else [word]  # noqa: PTH207 - relative


@pytest.mark.slow
def test_the_guide_works_from_the_raw_data_to_the_tables(
    commands: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command, in order, on miniature data; two forgeries of a divided dataset are tested."""
    make_raw(tmp_path / "raw")
    (tmp_path / "experiments").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    plan = PROTOCOLS["boxpromptiml"]
    trained = {portion.dataset for portion in plan.portions if portion.split == "train"}
    fewer = [
        portion._replace(manipulated=2)
        if portion.split == "test" and portion.dataset in trained
        else portion
        for portion in plan.portions
    ]
    monkeypatch.setitem(PROTOCOLS, "boxpromptiml", plan._replace(portions=tuple(fewer)))
    printed = ""
    for command in commands:
        words = in_miniature([path for word in command for path in expanded(word)])
        if words[:2] == ["python", "-c"]:
            program = [sys.executable, *words[1:]]
            printed += subprocess.run(program, check=True, text=True, capture_output=True).stdout
            continue
        run = data_prep if words[0] == "python" else main
        # 3: the trees in miniature have the known errors of the datasets
        assert run(words[3:] if words[0] == "python" else words[1:]) in (0, 3), shlex.join(words)
    tables = re.findall(r"^(\S+) .* IND ([\d.e-]+) OOD ([\d.e-]+)$", printed, re.MULTILINE)
    folder = "runs/paper/boxpromptiml"
    assert [name for name, *_ in tables] == [
        f"{folder}/evaluation/test/best/metrics.json", f"{folder}/lab-minmax/metrics.json"
    ]  # fmt: skip
    assert all(0 <= float(score) <= 1 for _, *scores in tables for score in scores)
    for run_name in ("boxpromptiml", "ten_epochs", "image_label"):
        assert (tmp_path / f"runs/paper/{run_name}/report.html").is_file()
    assert (tmp_path / folder / "robustness/robustness.csv").is_file()
    for network in ("facebook", "weibo", "wechat", "whatsapp"):
        assert (tmp_path / f"runs/paper/casia_{network}/metrics_test.json").is_file()
