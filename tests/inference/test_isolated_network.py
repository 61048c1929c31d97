"""A stranger's .onnx: whatever it does, the job ends with one line, and within its limits."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.inference import isolated_network
from boxpromptiml.inference.isolated_network import IsolatedNetwork, NetworkBounds
from boxpromptiml.inference.onnx_networks import OnnxNetwork
from tests.helpers import onnx_graphs
from tests.helpers.models import FileMaker

IMAGE = np.random.default_rng(0).random((2, 3, 20, 30), np.float32)


def isolated(path: Path, seconds: float = 30.0, memory: int = 2**31) -> IsolatedNetwork:
    return IsolatedNetwork("OnnxNetwork", path, "cpu", "fp32", 1, NetworkBounds(seconds, memory))


def test_it_gives_the_same_numbers(exported: FileMaker) -> None:
    path = exported("student").onnx
    child, here = isolated(path), OnnxNetwork(path, "cpu", "fp32", 1)
    assert child.description == here.description
    for image in (IMAGE, IMAGE[:1, :, :9]):
        for ours, theirs in zip(child(image), here(image), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    process = child._process
    del child
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("make", "limits", "message"),
    [
        (onnx_graphs.endless, {"seconds": 3.0}, "takes more than 3 s"),
        (onnx_graphs.greedy, {}, r"cannot be run|not an ONNX file|memory"),
        (onnx_graphs.another_size, {}, r"map of shape \(2, 1, 20, 9\)"),
    ],
)
def test_harm_ends_with_one_line(
    tmp_path: Path,
    make: Callable[[Path], Path],
    limits: dict[str, float],
    message: str,
) -> None:
    path, started = make(tmp_path / "evil.onnx"), time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        isolated(path, **limits)(IMAGE)  # type: ignore[arg-type]
    assert "evil.onnx" in str(caught.value)
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("words", [["robustness"], ["data", "cam-boxes"]])
def test_every_command_runs_it_within_limits(
    words: list[str],
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("in a child process")

    monkeypatch.setattr(IsolatedNetwork, "__init__", refuse)
    path = onnx_graphs.endless(tmp_path / "evil.onnx")
    options = [f"--manifest={data_root}/val.jsonl", f"--checkpoint={path}"]
    options.append(f"--out={tmp_path}/out.jsonl")
    assert main([*words, *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: in a child process"


CHILDREN = {
    "silent": "import time; time.sleep(100)",
    "dead": "raise SystemExit(7)",
    "nonsense": "import sys; sys.stdout.write('x' * 999); sys.stdout.flush(); sys.stdin.read()",
    "long": "print(str(10**12).rjust(16), flush=True); import sys; sys.stdin.read()",
    "list": "print('2'.rjust(16) + '[]', flush=True); import sys; sys.stdin.read()",
}


@pytest.mark.parametrize("name", list(CHILDREN))
def test_a_child_that_was_taken_over_cannot_do_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(isolated_network, "_PROGRAM", CHILDREN[name])
    with pytest.raises(UserError, match=r"n\.onnx: cannot be run"):
        isolated(tmp_path / "n.onnx", seconds=2.0)


@pytest.mark.parametrize("isolate", ["true", "false"])
def test_values_that_are_not_finite_are_no_clean_map(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str], isolate: str
) -> None:
    """The division by zero is fine for every pixel above 0: the first images are bright."""
    path = onnx_graphs.not_finite(tmp_path / "evil.onnx")
    words = [f"--checkpoint={path}", f"--out={tmp_path / 'out'}", f"--isolate={isolate}"]
    assert main(["localize", *words, "--images", str(photos)]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.png"))


TELEMETRY = """
import sys, pathlib
from boxpromptiml import Localizer
Localizer.load(sys.argv[1])
onnx = sys.modules["onnxruntime"]
"""
IDENTIFIER = """
import onnxruntime, pathlib, sys, time
for _ in range(200):
    if any("onnxruntime" in str(file) for file in pathlib.Path.home().rglob("*")):
        break
    time.sleep(0.05)
else:
    sys.exit("nothing to turn off")
"""


@pytest.mark.parametrize("how", ["package", "example"])
def test_onnx_runtime_stores_and_sends_nothing(
    exported: FileMaker, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its telemetry begins with an identifier below ~/.cache, written at the import."""
    path = exported("student").onnx  # sets the variable in this process
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    script = Path(__file__).parents[2] / "examples" / "localize_onnx.py"
    words = {
        "package": ["-c", TELEMETRY, str(path)],
        "example": [str(script), str(path), str(photo), str(tmp_path / "prob.png")],
    }
    subprocess.run([sys.executable, *words[how]], check=True, capture_output=True)
    assert not [file for file in home.rglob("*") if "onnxruntime" in str(file)]
    subprocess.run([sys.executable, "-c", IDENTIFIER], check=True)


def test_what_a_user_sees(tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = onnx_graphs.save(tmp_path / "n.onnx", onnx_graphs.graph(onnx_graphs.brightness_nodes()))
    words = [f"--checkpoint={path}", f"--out={tmp_path / 'out'}", "--images", str(photos)]
    assert main(["localize", *words]) == 0
    rows = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == 3
    assert json.loads(rows[0])["image_score"] > 0.5
    capsys.readouterr()
