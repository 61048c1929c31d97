"""The image-label branch from end to end, as its users run it."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.spec import Refinement
from boxpromptiml.io import images
from boxpromptiml.io.map_files import read_map
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.models.bayes import region_posterior
from boxpromptiml.models.configs import CamConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.wcbnet import WCBNet
from boxpromptiml.records import ProbArray
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter
from boxpromptiml.tasks.image_label import ImageLabelTask
from data_prep.__main__ import main as data_prep
from tests.helpers.commands import run_as_torchrun

TASK = "boxpromptiml.tasks.image_label.ImageLabelTask"
NETWORK = [f"--model={TASK}", "--model.wcbnet.backbone=mobilenetv3_small_050"]
DATA = ["--data.supervision=label", "--data.batch_size=4", "--data.input.mode=native",
        "--data.input.size=[64,96]", "--data.input.error_levels=[75]",
        "--data.segmenter.name=slic", "--data.segmenter.segments=40"]  # fmt: skip
STANDARD = f"--data.segmenter.segments={SegmenterConfig().segments}"
TRAINER = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
           "--checkpoint.monitor=val/image_auc"]  # fmt: skip


def arguments(root: Path, run: Path) -> list[str]:
    splits = [f"--data.{split}=[{root}/{split}.jsonl]" for split in ("train", "val", "test")]
    return [*NETWORK, *DATA, *TRAINER, *splits, f"--trainer.default_root_dir={run}"]


def stored(path: Path) -> ProbArray:
    return read_map(path).prob


@pytest.fixture(scope="module")
def unmasked(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data without masks and boxes: an image-label dataset."""
    root = Path(shutil.copytree(data_root, tmp_path_factory.mktemp("labels") / "data"))
    shutil.rmtree(root / "train" / "masks")
    lines = (root / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[1:]:
        row.pop("mask", None)
        row["boxes"] = None if row["label"] else []
    (root / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return root


@pytest.fixture(scope="module")
def run(unmasked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    command = ["fit", *arguments(unmasked, folder), "--trainer.max_epochs=25", "--model.lr=0.003",
               "--trainer.check_val_every_n_epoch=25"]  # fmt: skip
    assert main(command) == 0
    return folder


@pytest.mark.slow
def test_it_learns_from_labels_alone_and_says_how_well(run: Path, unmasked: Path) -> None:
    """Bright ellipses on noise, told apart without one mask or box."""
    checkpoint = f"--ckpt_path={run}/checkpoints/last.ckpt"
    assert main(["test", "--config", f"{run}/config.yaml", checkpoint]) == 0
    scores = json.loads((run / "metrics_test.json").read_text())
    assert scores["image_auc"] > 0.9
    assert scores["auc"] > 0.8
    assert {"image_f1", "image_accuracy", "pixel_f1", "iou"} <= scores.keys()
    coarse = {name for name in scores if name.startswith("coarse_")}
    assert coarse == {"coarse_pixel_f1", "coarse_iou", "coarse_auc", "coarse_false_alarm_pixels"}
    assert scores["auc"] != scores["coarse_auc"]


@pytest.mark.slow
def test_the_checkpoint_alone_brings_network_map_and_refinement_back(run: Path) -> None:
    network, spec = load_localizer(run / "checkpoints" / "last.ckpt")
    assert isinstance(network, WCBNet)
    assert spec.input.error_levels == (75,)
    assert spec.cam == CamConfig()
    assert spec.refinement == Refinement(SegmenterConfig(name="slic", segments=40), "image")


@pytest.mark.slow
def test_localize_refines_as_the_test_did(run: Path, unmasked: Path, tmp_path: Path) -> None:
    """`predict`, `localize` and Python agree; --segmenter.name=none gives the coarse map."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    manifest = read_manifest(unmasked / "test.jsonl")
    sample = manifest.samples[0]
    path = manifest.image_path(sample)
    predict = ["predict", "--config", f"{run}/config.yaml", f"--ckpt_path={checkpoint}",
               f"--data.predict=[{unmasked}/test.jsonl]"]  # fmt: skip
    assert main(predict) == 0
    predicted = stored(run / "predictions" / "prob" / f"{sample.id}.png")
    common = ["localize", f"--checkpoint={checkpoint}", f"--images=[{path}]"]
    assert main([*common, f"--out={tmp_path}/fine"]) == 0
    assert main([*common, f"--out={tmp_path}/coarse", "--segmenter.name=none"]) == 0
    fine, coarse = (
        stored(tmp_path / name / "prob" / f"{path.stem}.png") for name in ("fine", "coarse")
    )
    np.testing.assert_allclose(predicted, fine, atol=8e-3)
    raw = Localizer.load(checkpoint, segmenter=SegmenterConfig(name="none"))(path)
    np.testing.assert_allclose(coarse, raw, atol=1e-4)
    segmenter = build_segmenter(SegmenterConfig(name="slic", segments=40))
    assert segmenter is not None
    regions = segmenter.regions(images.read_image(path)[0])
    np.testing.assert_allclose(fine, region_posterior(raw, regions), atol=1e-3)
    tiled = Localizer.load(checkpoint)(path, tile=True)
    np.testing.assert_allclose(tiled, fine, atol=3e-2)  # one tile: the image itself


@pytest.mark.slow
def test_boxes_from_maps_join_the_students_training(
    run: Path, unmasked: Path, tmp_path: Path
) -> None:
    """The bridge: labels -> maps -> boxes -> pseudo-masks -> mixed supervision."""
    boxes = tmp_path / "boxes.jsonl"
    checkpoint = f"--checkpoint={run}/checkpoints/last.ckpt"
    source = f"--manifest={unmasked}/train.jsonl"
    assert data_prep(["cam-boxes", source, checkpoint, f"--out={boxes}"]) == 0
    samples = read_manifest(boxes).samples
    made = [sample for sample in samples if sample.label == 1]
    assert {sample.box_origin for sample in made} <= {"cam", None}
    assert sum(bool(sample.boxes) for sample in made) >= len(made) / 2
    pseudo = tmp_path / "pseudo"
    assert data_prep(["pseudo-masks", f"--manifest={boxes}", f"--out={pseudo}"]) == 0
    fit = ["fit", f"--data.train=[{pseudo}/manifest.jsonl]", f"--data.val=[{unmasked}/val.jsonl]",
           "--model.student.backbone=mobilenetv3_small_050", "--data.input.size=[64,64]",
           "--data.supervision=mixed", "--data.batch_size=4", "--trainer.fast_dev_run=true",
           f"--trainer.default_root_dir={tmp_path}", *TRAINER[:2]]  # fmt: skip
    assert main(fit) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--data.input.error_levels=[]"], "error_levels"),
        (["--data.supervision=box"], "what `box` supervision needs"),
        (["--data.segmenter.weights=x"], "no weights"),
        (["--model.cam.view=7"], "no such index"),
        (["--data.segmenter.name=deeplabv3", STANDARD], "weights"),
        (["--data.segmenter.name=pspnet", "--data.segmenter.weights=nowhere", STANDARD], "nowhere"),
    ],
)
def test_a_mistake_is_named(
    unmasked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["fit", *arguments(unmasked, tmp_path), *more]) == 1
    captured = capsys.readouterr().err
    assert said in captured
    assert "Traceback" not in captured


@pytest.mark.slow
def test_two_processes_train_validate_and_finish(unmasked: Path, tmp_path: Path) -> None:
    """Every block has gradients, every process enters every barrier."""
    command = [*arguments(unmasked, tmp_path), "--trainer.max_epochs=1", "--trainer.devices=2",
               "--trainer.strategy=ddp", "--data.batch_size=2"]  # fmt: skip
    for ended in run_as_torchrun(["boxpromptiml", "fit", *command], 2):
        assert ended.status == 0, ended.said[-2000:]
    scores = json.loads((tmp_path / "metrics_val.json").read_text())
    assert 0 <= scores["image_auc"] <= 1
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def test_without_any_mask_there_are_image_scores(unmasked: Path, tmp_path: Path) -> None:
    """Validation images with labels alone: nothing but the image scores can be said."""
    lines = (unmasked / "val.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[1:]:
        row.pop("mask", None)
    (tmp_path / "val.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    shutil.copytree(unmasked / "val", tmp_path / "val")
    shutil.rmtree(tmp_path / "val" / "masks")
    command = ["fit", *arguments(unmasked, tmp_path / "run"), f"--data.val=[{tmp_path}/val.jsonl]"]
    assert main([*command, "--trainer.max_epochs=1"]) == 0
    scores = json.loads((tmp_path / "run" / "metrics_val.json").read_text())
    assert 0 <= scores["image_auc"] <= 1
    assert scores.get("pixel_f1") is None


def test_with_no_label_at_all_nothing_can_be_learnt(
    unmasked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (unmasked / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows[1:]:
        row["label"] = None
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    shutil.copytree(unmasked / "train", tmp_path / "train")
    command = ["fit", *arguments(unmasked, tmp_path), f"--data.train=[{train}]"]
    assert main(command) == 1
    assert "no manipulated training image" in capsys.readouterr().err


def test_the_loss_sees_labels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pixel targets say, the gradient is that of the labels."""
    torch.manual_seed(0)
    config = WCBConfig("mobilenetv3_small_050", inputs="rgb")
    task = ImageLabelTask(config, NetworkInput("native", (64, 96)))
    monkeypatch.setattr(task, "log", lambda *_, **__: None)
    batch: Any = {"image": torch.rand(2, 3, 64, 96), "label": torch.tensor([1.0, 0.0]),
             "weight": torch.ones(2), "target": torch.full((2, 1, 64, 96), torch.nan),
             "valid": torch.ones(2, 1, 64, 96, dtype=torch.bool)}  # fmt: skip
    task.eval()
    loss = task.training_step(batch, 0)
    logit = cast(WCBNet, task.network).classify(batch["image"])[0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logit, batch["label"])
    torch.testing.assert_close(loss, expected)
