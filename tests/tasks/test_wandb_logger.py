"""No server, no key: each caused, in a process of its own, since wandb keeps its settings."""

import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from boxpromptiml.cli import main
from boxpromptiml.tasks.wandb_logger import sweep_folder

PRELUDE = """
import logging, sys
from pathlib import Path
from boxpromptiml.cli import main
from boxpromptiml.tasks.wandb_logger import PatientWandbLogger
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
logger = PatientWandbLogger(project="test", save_dir="run")
"""
ONLINE = {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}


def environment(home: Path, **more: str) -> dict[str, str]:
    """No settings but these: no key of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return (
        kept | ONLINE | {"HOME": str(home), "NETRC": str(home / "none"), "PYTHONPATH": path} | more
    )


def warnings_of(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("WARNING boxpromptiml")]


def test_an_unreachable_server_costs_one_line_and_the_run_is_kept(data_root, tmp_path):
    code = PRELUDE + textwrap.dedent(f"""
        from lightning.pytorch import Trainer
        from boxpromptiml.data.datamodule import LocalizationData
        from boxpromptiml.models.inputs import NetworkInput
        from boxpromptiml.models.student import StudentConfig
        from boxpromptiml.tasks.distill import DistillTask
        root, small = Path({str(data_root)!r}), NetworkInput("resize", (32, 32))
        data = LocalizationData([root / "train.jsonl"], [root / "val.jsonl"],
                                supervision="mask", input=small, batch_size=4)
        trainer = Trainer(max_epochs=1, logger=logger, accelerator="cpu", default_root_dir="run",
                          enable_progress_bar=False, log_every_n_steps=1)
        trainer.fit(DistillTask(StudentConfig("mobilenetv3_small_050"), small), data)
        print("finished", trainer.global_step)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment(tmp_path, WANDB_API_KEY="0" * 40, WANDB_INIT_TIMEOUT="1"), timeout=240,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "finished 2" in done.stdout
    (line,) = warnings_of(done.stderr)
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert log.stat().st_size > 1000
    assert log.parent.name in line
    assert "wandb sync" in line
    assert "127.0.0.1:9" in line


def test_without_a_key_it_neither_asks_nor_fails(tmp_path):
    """At a terminal, where wandb would wait for an answer."""
    ours, theirs = pty.openpty()
    code = PRELUDE + 'logger.log_metrics({"loss": 1.0}, step=3)\nprint("finished")'
    with (tmp_path / "stdout").open("w") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path),
            stdin=theirs, stdout=stdout, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 65536):
                said += chunk
        except OSError:  # Linux, where the other end is closed
            pass
        try:
            status = process.wait(timeout=60)
        finally:
            process.kill()
            os.close(ours)
    assert status == 0, said.decode()[-3000:]
    assert "finished" in (tmp_path / "stdout").read_text()
    (line,) = warnings_of(said.decode())
    assert "no API key" in line
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_it_takes_what_lightnings_logger_takes(capsys):
    """Also the arguments of wandb.init, so that the command line can put ours in its place."""
    given = ["--trainer.logger.init_args.project=p", "--trainer.logger.init_args.tags=[a,b]",
             "--trainer.logger.init_args.entity=e"]  # fmt: skip
    found = []
    for name in ("lightning.pytorch.loggers.WandbLogger",
                 "boxpromptiml.tasks.wandb_logger.PatientWandbLogger"):  # fmt: skip
        assert main(["fit", f"--trainer.logger={name}", *given, "--print_config"]) == 0
        found.append(yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]["init_args"])
    assert found[0] == found[1]
    assert found[0]["tags"] == ["a", "b"]


@pytest.mark.parametrize("sweep", [None, "abc123"])
def test_each_run_of_an_agent_has_a_folder(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    if sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
    assert sweep_folder("runs/x") == ("runs/x/sweep_abc123/r1" if sweep else "runs/x")
