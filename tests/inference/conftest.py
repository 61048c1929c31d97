from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.io import images
from tests.helpers.models import FileMaker, file_maker, save_student


@pytest.fixture(scope="session")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FileMaker:
    """Read-only: the .safetensors and the .onnx of a name in `SPECS`."""
    pytest.importorskip("onnxruntime")
    return file_maker(tmp_path_factory, hasattr(request.config, "workerinput"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: a native student's checkpoint."""
    return save_student(tmp_path_factory.mktemp("student") / "student.ckpt")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a.jpg and b.jpg of one size, and sub/c.jpg."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    for name, size in {"a.jpg": (40, 60), "b.jpg": (40, 60), "sub/c.jpg": (90, 33)}.items():
        images.write_jpeg(folder / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8), 90)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Coarse patches of colour and noise, of a size that is no multiple of any stride."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (12, 17, 3), np.uint8)
    image = np.kron(small, np.ones((7, 7, 1), np.uint8)) // 2 + rng.integers(0, 99, (84, 119, 3))
    images.write_png(tmp_path / "photo.png", image.astype(np.uint8))
    return tmp_path / "photo.png"
