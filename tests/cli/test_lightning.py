"""`fit`: how it ends, and Trainer options that once ended in a traceback."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import get_worker_info

from boxpromptiml.cli import main
from boxpromptiml.data import dataset
from boxpromptiml.io.weights import load_weights
from boxpromptiml.manifests.sources import Source, stored_image
from boxpromptiml.records import Batch, ImageArray
from boxpromptiml.tasks.distill import DistillTask
from tests.helpers.fit import fit


@pytest.fixture(scope="module")
def run(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    assert fit(data_root, folder, "--trainer.max_epochs=2") == 0
    return folder


def test_the_end_names_the_best_checkpoint_and_the_next_command(
    data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fit(data_root, tmp_path, "--trainer.max_epochs=1") == 0
    out, err = capfd.readouterr()
    best = tmp_path / "checkpoints" / "best.ckpt"
    lines = out.splitlines()
    assert lines[-4] == "started from scratch; 1 epochs, 4 steps in all"
    assert lines[-3].startswith("last epoch: ")
    assert lines[-2].startswith(f"best: {best} (val/pixel_f1 0.")
    assert lines[-1] == (
        f"next: boxpromptiml test --config {tmp_path / 'config.yaml'} --ckpt_path {best}"
    )
    for noise in ("weights_only", "litlogger", "treespec", "will be deleted", "sync_dist"):
        assert noise not in err


def test_a_finished_run_trains_nothing_and_says_so(
    run: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes(), (run / "metrics.csv").read_bytes()
    assert fit(data_root, run, "--trainer.max_epochs=2", f"--ckpt_path={last}") == 0
    said = capsys.readouterr().out
    assert f"resumed from {last}; NOTHING WAS TRAINED: it has 2 epochs, 8 steps already" in said
    assert (last.read_bytes(), (run / "metrics.csv").read_bytes()) == before


def test_fewer_epochs_than_the_checkpoint_has_are_refused(
    run: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    assert fit(data_root, run, "--trainer.max_epochs=1", f"--ckpt_path={last}") == 1
    said = capsys.readouterr().err
    assert "has 2 epochs already, more than --trainer.max_epochs=1" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pytorch-lightning_version", "x"),
        ("state_dict", {"a": 1}),
        ("loops", 7),
        ("callbacks", [1]),
        ("optimizer_states", {"a": 1}),
        ("lr_schedulers", None),
        ("training_seed", "x"),
    ],
)
def test_a_state_that_cannot_be_restored_is_one_line(
    key: str,
    value: object,
    run: Path,
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = load_weights(run / "checkpoints" / "last.ckpt")
    torch.save(content | {key: value}, tmp_path / "odd.ckpt")
    words = ["--trainer.max_epochs=3", f"--ckpt_path={tmp_path / 'odd.ckpt'}"]
    assert fit(data_root, tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: the ")


@pytest.mark.parametrize(
    "option",
    ["data.seed=-1", "trainer.val_check_interval=0", "trainer.val_check_interval=1000",
     "data.eval_batch_size=99999999999999999999"],
)  # fmt: skip
def test_a_number_that_does_not_fit_is_one_line(
    option: str, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(data_root, tmp_path, "--trainer.max_epochs=1", f"--{option}") in (1, 2)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert option.split("=", maxsplit=1)[0].rpartition(".")[2] in said.splitlines()[-1]
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("damage", ["shape", "missing", "rate", "scheduler", "counter"])
def test_an_optimizer_state_of_other_weights_is_one_line(
    damage: str, run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load_weights(run / "checkpoints" / "last.ckpt")
    (optimizer,), (scheduler,) = content["optimizer_states"], content["lr_schedulers"]
    match damage:
        case "shape":
            optimizer["state"][0]["exp_avg"] = torch.zeros(3, 5)
        case "missing":
            del optimizer["state"][0]["exp_avg"]
        case "rate":
            optimizer["param_groups"][0]["betas"] = "odd"
        case "counter":
            progress = "epoch_loop.automatic_optimization.optim_progress"
            total = content["loops"]["fit_loop"][progress]["optimizer"]["step"]["total"]
            total["ready"] = "odd"
        case _:
            scheduler["base_lrs"] = ["odd"]
    torch.save(content, tmp_path / "odd.ckpt")
    (tmp_path / "more.yaml").write_text(f"ckpt_path: {tmp_path / 'odd.ckpt'}\n")
    words = ["--trainer.max_epochs=3", f"--config={tmp_path / 'more.yaml'}"]
    assert fit(data_root, tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: the training state in the checkpoint cannot")
    saved = list((tmp_path / "checkpoints").glob("*.ckpt"))
    assert not saved or damage == "scheduler"  # which acts after the first step


def test_last_without_a_checkpoint_says_that_it_starts_from_scratch(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--trainer.max_epochs=1", "--ckpt_path=last"]
    assert fit(data_root, tmp_path, *words) == 0
    folder = tmp_path / "checkpoints"
    assert f"STARTED FROM SCRATCH, since {folder} had no last.ckpt" in capsys.readouterr().out
    assert fit(data_root, tmp_path, *words) == 0
    assert f"resumed from {folder / 'last.ckpt'}" in capsys.readouterr().out


def test_untrained_weights_take_no_runs_validation_scores(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "metrics_val.json").read_bytes()
    assert main(["validate", f"--config={run / 'config.yaml'}"]) == 1
    assert "add --ckpt_path" in capsys.readouterr().err
    assert (run / "metrics_val.json").read_bytes() == before


def test_last_and_best_are_of_the_run_whatever_the_logger(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(tmp_path / "logs"), "name": "mine"},
    }
    words = [f"--trainer.logger={json.dumps(logger)}", "--trainer.max_epochs=1"]
    assert fit(data_root, tmp_path, *words) == 0
    assert fit(data_root, tmp_path, *words, "--ckpt_path=last") == 0
    assert f"resumed from {tmp_path / 'checkpoints' / 'last.ckpt'}" in capsys.readouterr().out
    config = next((tmp_path / "logs").rglob("config.yaml"))
    tested = [f"--config={config}", f"--data.test=[{data_root}/test.jsonl]"]
    assert main(["test", *tested, "--checkpoint=best"]) == 0  # as other commands call it
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    assert main(["test", *tested, "--ckpt_path=best"]) == 1
    assert "--ckpt_path=best: there is no" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more",
    [
        ["--trainer.overfit_batches=1", "--trainer.max_epochs=2"],
        ["--trainer.precision=bf16-true", "--trainer.max_epochs=1"],
        ["--trainer.precision=bf16-true", "--trainer.max_epochs=1", "--data.input.mode=native"],
        ["--trainer.max_epochs=-1", "--trainer.max_steps=3"],
        ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0"],
    ],
    ids=" ".join,
)
def test_trainer_options_that_work(data_root: Path, tmp_path: Path, more: list[str]) -> None:
    assert fit(data_root, tmp_path, *more) == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:05"], "--trainer.max_steps"),
        (["--trainer.devices=0"], "devices"),
        (["--trainer.strategy=nonsense"], "nonsense"),
        (["--trainer.max_epochs=-7"], "-7"),
        (["--trainer.devices=-3"], "devices"),
        (["--trainer.devices=10000000000"], "--trainer.devices"),
        (["--trainer.callbacks+=ModelPruning", "--trainer.callbacks.pruning_fn=x"], "pruning_fn"),
        (["--seed_everything=-1"], "--seed_everything"),
        (["--seed_everything=99999999999999"], "--seed_everything"),
        (["--trainer.accumulate_grad_batches=0"], "--trainer.accumulate_grad_batches"),
        (["--trainer.check_val_every_n_epoch=0"], "--trainer.check_val_every_n_epoch"),
        (["--ckpt_path=hpc"], "--ckpt_path=hpc"),
        (["--ckpt_path="], "--ckpt_path="),
        (["--trainer.precision=bf16-true", "--model.student.residuals=srm"], "use bf16-mixed"),
    ],
)
def test_trainer_options_that_cannot_work_are_one_line(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert fit(data_root, tmp_path, *more) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert said in errors[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_gpu_that_is_not_there(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(data_root, tmp_path, "--trainer.accelerator=gpu") == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("error:")


def test_a_divergence_first_seen_in_validation_is_called_one(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model.lr=1e30", "--model.warmup=0", "--trainer.limit_train_batches=1"]
    assert fit(data_root, tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert "the training diverged. Lower --model.lr" in said
    assert "sigmoid" not in said


def test_a_test_manifest_without_test_images_does_not_matter_to_fit(
    data_root: Path, tmp_path: Path
) -> None:
    words = ["--trainer.max_epochs=1", f"--data.test=[{data_root}/val.jsonl]"]
    assert fit(data_root, tmp_path, *words) == 0


def test_a_killed_loader_process_is_one_line(
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def deadly(source: Source) -> ImageArray:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return stored_image(source)

    monkeypatch.setattr(dataset, "stored_image", deadly)
    words = ["--trainer.max_epochs=1", "--data.num_workers=1", "--trainer.num_sanity_val_steps=0"]
    assert fit(data_root, tmp_path, *words) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: a loader process was killed")
    assert "Traceback" not in said


def test_ctrl_c_gives_130_and_keeps_where_it_was(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = DistillTask.training_step

    def interrupted(task: DistillTask, batch: Batch, batch_idx: int) -> torch.Tensor:
        if batch_idx == 2:
            raise KeyboardInterrupt
        return step(task, batch, batch_idx)

    monkeypatch.setattr(DistillTask, "training_step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert fit(data_root, tmp_path, "--trainer.max_epochs=1") == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    assert (tmp_path / "checkpoints" / "interrupted.ckpt").is_file()


def test_a_configuration_is_not_written_through_a_link(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text("# lightning.pytorch==2")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").symlink_to("../elsewhere.yaml")
    assert fit(data_root, tmp_path / "run", "--trainer.max_steps=1") == 0
    assert (tmp_path / "elsewhere.yaml").read_text() == "# lightning.pytorch==2"
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert text.startswith("# lightning.pytorch==")


def test_a_configuration_by_hand_is_not_replaced(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 3} # by hand")
    assert fit(data_root, tmp_path, "--trainer.max_steps=1") == 1
    assert "config.yaml: is there, and not of an earlier job" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "trainer: {max_epochs: 3} # by hand"


def test_a_configuration_of_a_moved_run_does_not_write_where_the_run_was(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    words = ["validate", "--config", str(moved / "config.yaml")]
    words += ["--ckpt_path", str(moved / "checkpoints" / "last.ckpt")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert f"config.yaml: is of a run in {run}, and results would go there; add" in said
    assert main([*words, f"--trainer.default_root_dir={moved}"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert (moved / "config_validate.yaml").is_file()


@pytest.mark.parametrize(
    "name",
    ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/interrupted.ckpt",
     "metrics_val.json"],
)  # fmt: skip
def test_files_of_another_program_are_not_replaced(
    name: str, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / name).write_text('{"mine": 1}')
    assert fit(data_root, tmp_path, "--trainer.max_epochs=1") == 1
    assert f"{name}: is there, and not of an earlier job" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]
    assert (tmp_path / name).read_text() == '{"mine": 1}'
