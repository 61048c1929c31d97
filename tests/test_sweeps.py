"""Sweeps without a server: each file's runs as W&B's agent would start them."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb.wandb_agent
import yaml

from boxpromptiml.cli import main
from boxpromptiml.metrics.pixel import LocalizationMetrics

Agent = Callable[[dict[str, Any], dict[str, Any]], list[str]]

FOLDER = Path(__file__).parent.parent / "experiments" / "sweeps"
SWEEPS = sorted(FOLDER.glob("*.yaml"))
DRAWS: dict[str, Callable[[dict[str, Any], float], float]] = {
    "uniform": lambda p, u: p["min"] + u * (p["max"] - p["min"]),
    "log_uniform_values": lambda p, u: p["min"] * (p["max"] / p["min"]) ** u,
    "int_uniform": lambda p, u: round(p["min"] + u * (p["max"] - p["min"])),
}


def load(path: Path) -> dict[str, Any]:
    settings = yaml.safe_load(path.read_text())
    assert isinstance(settings, dict)
    return settings


def choices(parameter: dict[str, Any]) -> list[Any]:
    """What the server may choose: every value, or both ends of a range and draws between."""
    if "value" in parameter:
        return [parameter["value"]]
    if "values" in parameter:
        return parameter["values"]
    draw, chance = DRAWS[parameter["distribution"]], random.Random(0)  # noqa: S311
    return [draw(parameter, u) for u in (0.0, 1.0, *(chance.random() for _ in range(4)))]


def runs(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of as many runs as it takes to choose everything once."""
    offered = {name: choices(parameter) for name, parameter in settings["parameters"].items()}
    most = max(len(values) for values in offered.values())
    return [{name: v[i % len(v)] for name, v in offered.items()} for i in range(most)]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Agent:
    """Sweep settings and chosen values to the words of the process that the agent would start."""
    started: list[list[str]] = []

    def process(command: list[str], **_: object) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace()

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", process)
    for name in (wandb.env.RUN_ID, wandb.env.SWEEP_PARAM_PATH):
        monkeypatch.setenv(name, "")  # the agent sets them in os.environ: put them back
    monkeypatch.setenv(wandb.env.DIR, str(tmp_path))

    def words(settings: dict[str, Any], values: dict[str, Any]) -> list[str]:
        itself: Any = SimpleNamespace(
            _sweep_command=list(settings["command"]), _function=None, _in_jupyter=False,
            _forward_signals=False, _run_processes={},
        )  # fmt: skip
        args = {name: {"value": value} for name, value in values.items()}
        command = {"run_id": "r1", "program": settings["program"], "args": args}
        wandb.wandb_agent.Agent._command_run(itself, command)
        monkeypatch.delenv(wandb.env.RUN_ID)
        assert started[-1][:2] == ["/usr/bin/env", "boxpromptiml"]
        return started[-1][2:]

    return words


def found_in(printed: dict[str, Any], dotted: str) -> Any:
    found = printed
    for key in dotted.split("."):
        found = found[key]
    return found


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_every_run_of_a_sweep_parses(
    sweep: Path, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(sweep)
    for values in runs(settings):
        assert main([*agent(settings, values), "--print_config"]) == 0
        printed = yaml.safe_load(capsys.readouterr().out)
        for name, value in values.items():
            assert found_in(printed, name) == value, name


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_one_that_the_server_takes(sweep: Path) -> None:
    """What its documentation asks for, and a score that we log."""
    settings = load(sweep)
    known = {"program", "project", "method", "metric", "parameters", "command", "early_terminate"}
    assert set(settings) <= known | {"run_cap", "name", "description"}
    assert settings["method"] in ("grid", "random", "bayes")
    ranges = [p for p in settings["parameters"].values() if "distribution" in p]
    assert all(p["min"] < p["max"] and isinstance(p["min"], (int, float)) for p in ranges)
    assert settings["method"] != "grid" or not ranges
    stage = "test" if settings["command"][2] == "test" else "val"  # nothing is trained by a test
    with pytest.warns(UserWarning, match="called before"):
        scores = {f"{stage}/{name}" for name in [*LocalizationMetrics().compute(), "best_f1"]}
    assert settings["metric"]["name"] in scores
    assert settings["metric"]["goal"] == "maximize"
    if "early_terminate" in settings:
        assert settings["early_terminate"]["type"] == "hyperband"
        assert settings["early_terminate"].keys() & {"min_iter", "max_iter"}
    assert "experiments/wandb.yaml" in settings["command"]  # or no score reaches the server
    assert settings["command"][-1] == "${args}"  # after --config, or it would be overridden


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.init_args.lr", 1e-05),
        ("model.init_args.lr", 0.00012345678901234567),
        ("data.include_authentic", False),
        ("data.train", ["a.jsonl", "b c.jsonl"]),
        ("data.input.size", [64, 96]),
        ("data.weights", {"mask": 0.5, "pseudo": 0.0, "cam": 0.0, "box": 1.0, "label": 0.0,
                          "authentic": 1.0}),
        ("model.init_args.student.fusion.memory", "none"),
    ],
)  # fmt: skip
def test_what_the_agent_writes_is_read_back(
    name: str, value: Any, agent: Agent, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(FOLDER / "fusion_grid.yaml")
    assert main([*agent(settings, {name: value}), "--print_config"]) == 0
    assert found_in(yaml.safe_load(capsys.readouterr().out), name) == value


@pytest.mark.parametrize("sweep", ["student_bayes", "fusion_grid"])
def test_a_run_of_a_sweep_runs(sweep: str, agent: Agent, data_root: Path, tmp_path: Path) -> None:
    settings = load(FOLDER / f"{sweep}.yaml")
    command = agent(settings, runs(settings)[0])
    data = [f"--data.{split}=[{data_root}/{split}.jsonl]" for split in ("train", "val", "test")]
    smaller = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--data.batch_size=2",
               "--data.input.size=[64,64]", f"--trainer.default_root_dir={tmp_path}",
               "--data.supervision=mask"]  # fmt: skip
    assert main([*command, *data, *smaller]) == 0
    assert wandb.run is None
    assert not os.environ.get(wandb.env.RUN_ID)
