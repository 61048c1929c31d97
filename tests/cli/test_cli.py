import json
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
import yaml

from boxpromptiml.cli import main
from boxpromptiml.models import sam
from tests.helpers.commands import run
from tests.helpers.data import make_folder
from tests.helpers.tiny_sam import tiny_sam

FOLDER = Path(__file__).parents[2] / "experiments"
EXPERIMENTS = sorted(FOLDER.glob("*.yaml"))
IMAGE_LABEL = sorted(FOLDER.glob("image_label/*.yaml"))
TINY = ["--data.batch_size=2", "--data.num_workers=0", "--trainer.accelerator=cpu"]


def data_arguments(root: Path) -> list[str]:
    return [f"--data.{split}=[{root}/{split}.jsonl]" for split in ("train", "val", "test")]


def backbone() -> list[str]:
    return ["--model.student.backbone=mobilenetv3_small_050", "--data.input.size=[64,64]"]


@pytest.mark.slow
@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs_as_it_is(config: Path, data_root: Path, tmp_path: Path) -> None:
    """The file's own settings, on tiny data; pseudo-masks are replaced by masks."""
    supervision = "label" if config.stem == "image_label" else "mask"
    status = main(
        ["fit", "--config", str(config), *data_arguments(data_root),
         f"--data.supervision={supervision}",
         "--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}", *TINY]
    )  # fmt: skip
    assert status == 0


@pytest.mark.slow
@pytest.mark.parametrize("config", IMAGE_LABEL, ids=lambda path: path.stem)
def test_every_ablation_of_the_image_label_branch_runs(
    config: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After image_label.yaml, as its first line says; networks with weights made here."""
    monkeypatch.setattr(sam, "load_sam", lambda *_: (tiny_sam(), "tiny"))
    settings = yaml.safe_load(config.read_text())
    segmenter = settings.get("data", {}).get("segmenter", {})
    more = [f"--data.segmenter.cache={tmp_path}/regions"] if "cache" in segmenter else []
    if "weights" in segmenter:
        more += segmenter_weights(segmenter["name"], tmp_path)
    status = main(
        ["fit", "--config", str(FOLDER / "image_label.yaml"), "--config", str(config),
         *data_arguments(data_root), "--data.input.size=[64,96]", *more, *TINY,
         "--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}"]
    )  # fmt: skip
    assert status == 0
    assert not more or list(tmp_path.rglob("*.npz"))  # the regions were made and kept


def segmenter_weights(name: str, folder: Path) -> list[str]:
    """Random weights of the true architecture, saved as their users would have them."""
    torch.manual_seed(0)
    given = f"--data.segmenter.weights={folder}"
    if name == "deeplabv3":
        network = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=4
        )
        torch.save(network.state_dict(), folder / "deeplab.pth")
        return [f"{given}/deeplab.pth"]
    if name == "sam":
        return [f"{given}/sam.pth", "--data.segmenter.points_per_side=2"]
    kind = {"pspnet": smp.PSPNet, "deeplabv3plus": smp.DeepLabV3Plus}[name]
    kind("resnet18", encoder_weights=None, classes=4).save_pretrained(folder / name)
    return [f"{given}/{name}"]


def test_base_states_every_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """base.yaml documents the default student: native.yaml's values, else those of the code."""
    base, native = (yaml.safe_load((FOLDER / f"{n}.yaml").read_text()) for n in ("base", "native"))
    assert main(["fit", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)

    def check(given: dict[str, Any], default: dict[str, Any], place: str) -> None:
        for key, value in given.items():
            here = f"{place}.{key}"
            assert key in default, here
            if isinstance(value, dict):
                check(value, default[key], here)
            elif key not in ("train", "val", "test", "seed_everything"):
                assert default[key] == value, here

    defaults = dict(printed)
    assert main(["fit", "--print_config", "--model=DistillTask"]) == 0
    defaults["model"] = yaml.safe_load(capsys.readouterr().out)["model"]
    native["trainer"] = {"max_epochs": native["trainer"]["max_epochs"]}
    defaults = _replaced(defaults, native)
    check(base, defaults, "base")


def _replaced(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Nested settings in which others replace those of the same name."""
    return values | {
        key: _replaced(values[key], other) if isinstance(other, dict) else other
        for key, other in others.items()
    }


def test_fit_then_test_then_predict(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    common = [*data_arguments(data_root), *backbone(), *TINY, "--data.supervision=mask",
              f"--trainer.default_root_dir={run}",
              "--trainer.enable_progress_bar=false"]  # fmt: skip
    assert main(["fit", *common, "--trainer.max_epochs=1"]) == 0
    best = run / "checkpoints" / "best.ckpt"
    assert best.is_file()
    assert (run / "config.yaml").is_file()
    capsys.readouterr()
    assert main(["test", *common, f"--ckpt_path={best}"]) == 0
    said = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    scores = json.loads((run / "metrics_test.json").read_text())
    assert ["pixel F1", f"{scores['pixel_f1']:.4f}"] in said
    assert ["image FPR", f"{scores['false_alarm_images']:.4f}"] in said
    history = (run / "metrics.csv").read_bytes()
    predict = [f"--data.predict=[{data_root}/test.jsonl]", f"--ckpt_path={best}"]
    assert main(["predict", *common, *predict]) == 0
    assert len(list((run / "predictions" / "prob").rglob("*.png"))) == 6
    assert len((run / "predictions" / "predictions.jsonl").read_text().splitlines()) == 6
    assert (run / "metrics.csv").read_bytes() == history
    assert {p.name for p in run.glob("config*")} == {
        "config.yaml", "config_test.yaml", "config_predict.yaml"
    }  # fmt: skip
    capsys.readouterr()
    assert main(["test", *common, "--data.input.size=[96,96]", f"--ckpt_path={best}"]) == 1
    assert "config.yaml" in capsys.readouterr().err
    again = ["--config", str(run / "config.yaml"), "--trainer.default_root_dir"]
    assert main(["fit", *again, str(tmp_path / "again")]) == 0
    assert (run / "metrics.csv").read_bytes() == history
    assert (tmp_path / "again" / "checkpoints" / "best.ckpt").is_file()
    assert main(["fit", "--config", str(run / "config.yaml"), "--trainer.fast_dev_run=true"]) == 0
    capsys.readouterr()
    assert main(["test", *common]) == 1
    assert "--ckpt_path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["fit", "--data.bach_size=3"], 2, "bach_size"),
        (["fit", "--model.init_args.lrr=3"], 2, "lrr"),
        (["fit", "--data.supervision=boxes"], 2, "boxes"),
        (["fit", "--config=nowhere.yaml"], 2, "nowhere.yaml"),
        (["fit", "--data.train=[nowhere.jsonl]"], 1, "nowhere.jsonl"),
        (["fit"], 1, "--data.train"),
        (["fit", "--model.student.backbone=tiny_vit_5m"], 1, "tiny_vit_5m_224"),
        (["test", "--ckpt_path=https://example.org/x.ckpt"], 1, "download"),
        (["test", "--weights_only=false"], 1, "weights_only"),
        (["localise"], 2, "localise"),
        (["localize", "--images=[x]"], 2, "out"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(
    arguments: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_help_needs_no_torch() -> None:
    code = "import sys, boxpromptiml.cli as c; c.main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "localize" in done.stdout
    assert main([]) == 2


@pytest.mark.slow
def test_wandb_offline_run(data_root: Path, tmp_path: Path) -> None:
    arguments = ["fit", *data_arguments(data_root), *backbone(), *TINY, "--data.supervision=mask",
                 f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=1",
                 "--config=experiments/wandb.yaml",
                 "--trainer.enable_progress_bar=false"]  # fmt: skip
    done = run(["boxpromptiml", *arguments], environment={"WANDB_MODE": "offline"})
    assert done.status == 0, done.said[-2000:]
    assert list(tmp_path.rglob("*.wandb"))
    assert "val/pixel_f1" in (tmp_path / "metrics.csv").read_text()  # `report` draws its curves
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
    assert (tmp_path / "metrics_val.json").is_file()


def test_data_is_data_prep_and_values_may_be_called_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["boxpromptiml.commands"]["data"]
    entry = EntryPoint("data", value, "boxpromptiml.commands")
    monkeypatch.setattr("boxpromptiml.cli.entry_points", lambda **_: [entry])
    make_folder(tmp_path / "photos", 2, 2)
    monkeypatch.chdir(tmp_path)
    source = ["--dataset", "folder", "--source", "photos"]
    assert main(["data", "import", *source, "--out", "data.jsonl"]) == 0
    assert main(["-q", "data", "check", "--manifest", "data.jsonl", "--out", "data"]) == 0
    assert "error" not in capsys.readouterr().err
