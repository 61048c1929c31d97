import json
from pathlib import Path

import pytest
import torch
from torch import nn

from boxpromptiml.cli import main
from boxpromptiml.evaluation.complexity import measure
from boxpromptiml.inference.checkpoint import build_network
from boxpromptiml.inference.formats import write_safetensors
from tests.helpers.models import SPECS, make_network

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_figures_of_a_network_that_can_be_counted_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 1))
    found = measure(network, 3, (400, 500), repeats=3)
    assert found.parameters == 3 * 8 * 25 + 8 + 8 + 1
    assert found.multiply_adds == 400 * 500 * (3 * 8 * 25 + 8)
    assert found.seconds > 0
    assert 400 * 500 * 8 * 4 * 0.5 < found.peak_memory < 400 * 500 * 8 * 4 * 20
    assert found.device.startswith("cpu")


def test_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPECS["wcbnet"]
    network = make_network(spec)
    write_safetensors(tmp_path / "n.safetensors", network, spec.to_dict())
    words = [f"--model={tmp_path / 'n.safetensors'}", "--size", "96", "64", "--repeats=1"]
    assert main(["complexity", *words, f"--out={tmp_path / 'c.json'}"]) == 0
    said = capsys.readouterr().out
    assert "wcbnet, mobilenetv3_small_050" in said
    assert "at 96 x 64" in said
    found = json.loads((tmp_path / "c.json").read_text())
    assert found["parameters"] == sum(p.numel() for p in network.parameters())
    assert found["size"] == [96, 64]


def test_the_checkpoint_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "n.safetensors"
    weights.write_bytes(b"weights")
    assert main(["complexity", f"--checkpoint={weights}", f"--out={weights}"]) == 1
    assert "must end in .json" in capsys.readouterr().err
    assert weights.read_bytes() == b"weights"


def test_of_a_configuration(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    words = [f"--model={EXPERIMENTS / 'native.yaml'}", "--repeats=1", f"--out={out}"]
    assert main(["complexity", *words]) == 0
    found = json.loads(out.read_text())
    assert found["size"] == [224, 352]
    assert 0.1e6 < found["parameters"] < 2e6
    assert found["peak_memory"] > 224 * 352 / 4 * 16 * 4  # of its first feature map


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=x.onnx"], "checkpoint that it was exported from"),
        (["--model=none.ckpt"], "no such"),
        (["--model={}/empty.yaml"], "has no model"),
        (["--model={}/wide.yaml"], "student.fusion.width"),
        (["--model=x.ckpt", "--size", "0", "9"], "--size"),
        (["--model=x.ckpt", "--size", "9"], "--size"),
        (["--model=x.ckpt", "--repeats=0"], "--repeats"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "empty.yaml").write_text("data: {}\n")
    (tmp_path / "wide.yaml").write_text(
        "model: {class_path: boxpromptiml.DistillTask, "
        "init_args: {student: {fusion: {width: 60000}}}}\n"
    )
    assert main(["complexity", *(word.format(tmp_path) for word in words)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_random_weights_do_not_change_the_count() -> None:
    torch.manual_seed(1)
    spec = SPECS["student"]
    counts = [measure(build_network(spec), 3, (64, 64), 1).multiply_adds for _ in range(2)]
    assert counts[0] == counts[1] > 0
