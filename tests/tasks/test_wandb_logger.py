"""No server, no key: each caused, in a process of its own, since wandb keeps its settings."""

import json
import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from boxpromptiml.cli import main
from boxpromptiml.tasks.wandb import sweep_folder

PRELUDE = """
import logging, sys
from pathlib import Path
from boxpromptiml.cli import main
from boxpromptiml.tasks.wandb import PatientWandbLogger
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


VIEWER = {"data": {"viewer": {"id": "1", "entity": "me", "username": "me", "email": "me@localhost",
                             "flags": "{}", "teams": {"edges": []}}}}  # fmt: skip


class Refusing(BaseHTTPRequestHandler):
    """Weights & Biases as far as the question who one is; all else it refuses."""

    status = 401
    message = "user is not logged in"
    knows_key = False

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"] or 0))
        known = self.knows_key and b"query Viewer" in asked
        answer = VIEWER if known else {"errors": [{"message": self.message}]}
        self.send_response(200 if known else self.status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *words):
        pass


class RefusingEntity(Refusing):
    status, message, knows_key = 404, "entity nobody not found", True


@contextmanager
def serving(handler: type[Refusing]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("refusing", [Refusing, RefusingEntity])
def test_a_wrong_key_or_entity_costs_one_line_and_the_run_is_kept(refusing, tmp_path):
    code = PRELUDE.replace('"test"', '"test", entity="nobody"')
    code += 'logger.log_metrics({"loss": 1.0}, step=3)\nprint("finished")'
    with serving(refusing) as address:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
            env=environment(tmp_path, WANDB_API_KEY="0" * 40, WANDB_BASE_URL=address), timeout=240,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "finished" in done.stdout
    (line,) = warnings_of(done.stderr)
    assert refusing.message in line
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert log.parent.name in line


def test_it_takes_what_lightnings_logger_takes(capsys):
    """Also the arguments of wandb.init, so that the command line can put ours in its place."""
    given = ["--trainer.logger.init_args.project=p", "--trainer.logger.init_args.tags=[a,b]",
             "--trainer.logger.init_args.entity=e"]  # fmt: skip
    found = []
    for name in ("lightning.pytorch.loggers.WandbLogger",
                 "boxpromptiml.tasks.wandb.PatientWandbLogger"):  # fmt: skip
        assert main(["fit", f"--trainer.logger={name}", *given, "--print_config"]) == 0
        found.append(yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]["init_args"])
    assert found[0] == found[1]
    assert found[0]["tags"] == ["a", "b"]


def test_it_is_put_in_place_of_lightnings_in_a_list_too(tmp_path, data_root):
    """Beside ours, whose history stays, and another; the configuration reaches the run."""
    name = "lightning.pytorch.loggers"
    loggers = [{"class_path": f"{name}.WandbLogger", "init_args": {"project": "test"}},
               {"class_path": f"{name}.CSVLogger",
                "init_args": {"save_dir": "elsewhere", "name": "", "version": ""}},
               {"class_path": f"{name}.CSVLogger",
                "init_args": {"save_dir": "more", "name": "x"}}]  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"trainer": {"logger": loggers}}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("earlier")
    words = [
        "--config=c.yaml", "--trainer.default_root_dir=run", "--data.input.size=[32,32]",
        *(f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val", "test")),
        "--data.supervision=mask", "--model.student.backbone=mobilenetv3_small_050",
        "--trainer.accelerator=cpu", "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1",
    ]  # fmt: skip
    for verb, more in (("fit", []), ("test", ["--ckpt_path=run/checkpoints/last.ckpt"])):
        done = subprocess.run(
            [sys.executable, "-m", "boxpromptiml", verb, *words, *more], cwd=tmp_path, timeout=240,
            env=environment(tmp_path), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert "no API key" in done.stderr
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2
    assert all(b"gradient_clip_val" in run.read_bytes() for run in runs)  # the configuration
    assert (tmp_path / "run" / "metrics_before_0.csv").read_text() == "earlier"
    assert "train/loss" in (tmp_path / "run" / "metrics.csv").read_text()  # not of `test`
    assert not (tmp_path / "elsewhere").exists()
    assert len(list((tmp_path / "more" / "x").iterdir())) == 2


@pytest.mark.parametrize("sweep", [None, "abc123"])
def test_each_run_of_an_agent_has_a_folder(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    monkeypatch.delenv("WANDB_SWEEP_ID", raising=False)
    if sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", sweep)
    assert sweep_folder("runs/x") == ("runs/x/sweep_abc123/r1" if sweep else "runs/x")
