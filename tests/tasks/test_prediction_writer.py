"""`boxpromptiml predict` in two processes, one of which may be killed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boxpromptiml.cli import main
from boxpromptiml.io import images
from boxpromptiml.io.files import locked
from boxpromptiml.manifests.manifest import read_manifest
from tests.helpers.commands import Ended, run_as_torchrun

MODULE = '''
import os, signal
from boxpromptiml.tasks.distill import DistillTask

class Mortal(DistillTask):
    """Its second process is killed at its second batch, where DEADLY is set."""

    def predict_step(self, batch, batch_idx):
        if "DEADLY" in os.environ and self.global_rank == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_step(batch, batch_idx)
'''


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mortal")
    (folder / "mortal.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def command(verb: str, root: Path, run: Path) -> list[str]:
    return [
        verb, "--trust=mortal", "--model=mortal.Mortal", f"--trainer.default_root_dir={run}",
        f"--data.{'train' if verb == 'fit' else verb}=[{root}/train.jsonl]",
        f"--data.val=[{root}/val.jsonl]", "--data.supervision=mask",
        "--data.input.size=[64,64]", "--data.batch_size=4", "--data.eval_batch_size=1",
        "--model.student.backbone=mobilenetv3_small_050", "--model.student.fusion.width=16",
        "--model.student.fusion.prototypes=8", "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(module: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    assert main([*command("fit", data_root, run), "--trainer.max_epochs=1"]) == 0
    return run / "checkpoints" / "last.ckpt"


def _predict(
    module: Path, data_root: Path, checkpoint: Path, run: Path, **environment: str
) -> Ended:
    words = [*command("predict", data_root, run), f"--ckpt_path={checkpoint}"]
    words += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    first, _ = run_as_torchrun(["boxpromptiml", *words], 2, environment, module)
    return first


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(
    module: Path, data_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*command("predict", data_root, one), f"--ckpt_path={checkpoint}"]) == 0
    assert _predict(module, data_root, checkpoint, two).status == 0
    tables = [sorted((run / "predictions").glob("*.jsonl")) for run in (one, two)]
    assert [[path.name for path in part] for part in tables] == [["predictions.jsonl"]] * 2
    ours, theirs = (
        [json.loads(line) for line in part[0].read_text().splitlines()] for part in tables
    )
    wanted = [sample.id for sample in read_manifest(data_root / "train.jsonl").samples]
    assert [row["id"] for row in ours] == [row["id"] for row in theirs] == wanted
    for a, b in zip(ours, theirs, strict=True):
        assert a["image_score"] == pytest.approx(b["image_score"], abs=1e-5)
        assert images.read_image(two / "predictions" / "prob" / f"{b['name']}.png")


@pytest.mark.slow
def test_a_killed_process_is_an_error_that_names_what_is_missing(
    module: Path, data_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "predictions.jsonl").write_text('{"id": "a", "image_score": 1}')
    ended = _predict(module, data_root, checkpoint, tmp_path, DEADLY="1")
    assert ended.status == 1
    samples = read_manifest(data_root / "train.jsonl").samples  # the second process has each second
    lost = [sample.id for sample in samples][3::2]
    assert f"{len(lost)} images without a map: {', '.join(map(repr, lost))}" in ended.said
    assert not list(folder.glob("*.jsonl"))
    assert len(list(folder.rglob("*.png"))) == len(samples) - len(lost)


def test_fewer_batches_on_request_are_no_error(
    data_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = [*command("predict", data_root, tmp_path), f"--ckpt_path={checkpoint}"]
    assert main([*words, "--trainer.limit_predict_batches=2"]) == 0
    assert len((tmp_path / "predictions" / "predictions.jsonl").read_text().splitlines()) == 2


def test_a_second_job_waits_for_the_folder(
    data_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command("predict", data_root, tmp_path), f"--ckpt_path={checkpoint}"]
    with locked(tmp_path / "predictions"):
        assert main(words) == 1
    assert "another job is writing" in capsys.readouterr().err
    assert not (tmp_path / "predictions" / "predictions.jsonl").exists()
    assert main(words) == 0
    assert main(words) == 0


def test_an_image_that_cannot_be_read_is_left_out_by_name(
    data_root: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*command("predict", data_root, tmp_path), f"--ckpt_path={checkpoint}"]
    assert main(words) == 0
    manifest = read_manifest(data_root / "train.jsonl")
    path = manifest.image_path(manifest.samples[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        assert main([*words, "--data.num_workers=1"]) == 1
    finally:
        path.write_bytes(whole)
    said = capfd.readouterr().err
    assert f"left out: {path}" in said
    assert f"1 images could not be read, as said above: {manifest.samples[1].id!r}" in said
    folder = tmp_path / "predictions"
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    ids = [sample.id for sample in manifest.samples]
    assert [row["id"] for row in rows] == ids[:1] + ids[2:]
    assert len(list(folder.rglob("*.png"))) == len(ids) - 1


def test_a_refused_job_changes_no_file_of_the_other(
    data_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "config_predict.yaml").write_text("# lightning.pytorch==2: of the other job")
    words = [*command("predict", data_root, tmp_path), f"--ckpt_path={checkpoint}"]
    with locked(tmp_path / "predictions"):
        assert main(words) == 1
    assert "of the other job" in (tmp_path / "config_predict.yaml").read_text()
