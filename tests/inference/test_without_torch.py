"""Exported files run where PyTorch is not: an import hook refuses it in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml import Localizer
from boxpromptiml.io import images
from boxpromptiml.io.map_files import read_map
from tests.helpers.models import EXPORTED, FileMaker

REFUSE = """
import sys
REFUSED = {"torch", "torchvision", "timm", "lightning", "onnx", "safetensors"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
"""
COMMAND = "from boxpromptiml.cli import main; sys.exit(main(sys.argv[1:]))"
ALL_WAYS = """
import numpy
from boxpromptiml import Localizer
from boxpromptiml.cli import main
model, photos, out = sys.argv[1:]
for tile in ("false", "true"):
    words = [f"--checkpoint={model}", f"--images={photos}", f"--out={out}/{tile}", f"--tile={tile}"]
    assert main(["localize", *words]) == 3
numpy.save(f"{out}/prob.npy", Localizer.load(model)(f"{photos}/a.png"))
"""


def refused(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", REFUSE + program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module", params=EXPORTED)
def files(request: pytest.FixtureRequest, exported: FileMaker) -> tuple[Path, Path]:
    """A localizer's .safetensors and its .onnx."""
    return exported(request.param)[1:]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (70, 110), "b.jpg": (90, 61), "c.jpg": (70, 110)}.items():
        coarse = rng.integers(0, 256, (size[0] // 10 + 1, size[1] // 10 + 1, 3), np.uint8)
        image = coarse.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]] // 2
        image += rng.integers(0, 60, image.shape, dtype=np.uint8)
        write = images.write_png if name.endswith("png") else images.write_jpeg
        write(tmp_path / "photos" / name, image, *([90] if name.endswith("jpg") else []))
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_command_and_python_give_the_same_maps(
    files: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    network, exported = files
    done = refused(ALL_WAYS, exported, photos, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 rejected") == 2
    localizer = Localizer.load(network)
    for tile in (False, True):
        for path in sorted(photos.glob("[abc].*")):
            found = read_map(tmp_path / str(tile).lower() / "prob" / f"{path.stem}.png")
            expected = localizer(path, tile=tile)
            assert np.ptp(expected) > 0.01, "a flat map would prove nothing"
            np.testing.assert_allclose(found.prob, expected, atol=1e-4)
    prob = np.load(tmp_path / "prob.npy")
    np.testing.assert_allclose(prob, localizer(photos / "a.png"), atol=1e-5)


def test_what_needs_torch_says_so(exported: FileMaker, photos: Path, tmp_path: Path) -> None:
    network = exported("student").safetensors
    words = ["localize", "--checkpoint", network, "--images", photos, "--out", tmp_path / "out"]
    done = refused(COMMAND, *words)
    assert done.returncode == 1
    assert "needs torch, which is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert refused("import torch").returncode == 1, "the hook is broken"
