"""The student that ships with the package; the last tests need its file, which a build may lack."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from boxpromptiml import Localizer
from boxpromptiml.cli import main
from boxpromptiml.errors import UserError
from boxpromptiml.inference import shipped
from boxpromptiml.inference.export import describe
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.shipped import shipped_student, weights_file
from tests.helpers.models import SPECS, make_network

ROOT = Path(__file__).parents[2]
STUDENT = ROOT / "boxpromptiml" / "weights" / "student.safetensors"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the installed package, with the file of a small student."""
    monkeypatch.setattr(shipped, "files", lambda _: tmp_path / "package")
    path = tmp_path / "package" / "weights" / "student.safetensors"
    path.parent.mkdir(parents=True)
    network = make_network(SPECS["student"])
    write_safetensors(path, network, describe(network, SPECS["student"]), half=True)
    return path


def test_without_a_checkpoint_the_shipped_student_is_used(
    package: Path, photos: Path, tmp_path: Path
) -> None:
    assert shipped_student() == weights_file(None) == package
    own, named = Localizer.load(), Localizer.load(package)
    assert own.spec == named.spec == SPECS["student"]
    np.testing.assert_array_equal(own(photos / "a.jpg"), named(photos / "a.jpg"))
    assert main(["localize", f"--images={photos}", f"--out={tmp_path / 'maps'}"]) == 0
    rows = (tmp_path / "maps" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(row)["threshold"] for row in rows} == {0.4}


def test_a_folder_stands_for_the_weights_in_it(package: Path, photos: Path, tmp_path: Path) -> None:
    Localizer.load().save_pretrained(tmp_path / "saved")
    assert weights_file(str(tmp_path / "saved")) == tmp_path / "saved" / "model.safetensors"
    loaders = (Localizer.load, Localizer.from_pretrained)
    one, two = (load(tmp_path / "saved")(photos / "a.jpg") for load in loaders)
    np.testing.assert_array_equal(one, two)
    with pytest.raises(UserError, match=r"photos/model\.safetensors: no such weights file"):
        Localizer.load(photos)


def test_an_installation_without_the_file_is_one_line(
    package: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package.unlink()
    manifest = f"--manifest={tmp_path / 'none.jsonl'}"
    for words in (["localize", f"--images={photos}"], ["robustness", manifest]):
        assert main([*words, f"--out={tmp_path / 'out'}"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(package) in line
        assert "name a localizer with --checkpoint" in line
    assert not (tmp_path / "out").exists()


def test_wheel_and_sdist_take_the_folder_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["boxpromptiml"]
    found = {path for pattern in patterns for path in (ROOT / "boxpromptiml").glob(pattern)}
    assert {path for path in STUDENT.parent.iterdir() if path.is_file()} <= found
    assert STUDENT.with_name("README.md") in found


@pytest.mark.skipif(not STUDENT.exists(), reason="this tree holds no trained student")
def test_the_file_itself() -> None:
    assert STUDENT.stat().st_size <= 4_000_000
    with safe_open(STUDENT, "np") as stream:
        kinds = {stream.get_slice(name).get_dtype() for name in stream.keys()}  # noqa: SIM118
    assert kinds <= {"F16", "I64"}
    localizer = Localizer.load()
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    prob = localizer(image)
    assert prob.shape == image.shape[:2]
    assert np.isfinite(prob).all()
    spec = localizer.spec
    assert spec.trained_on
    assert (spec.copy_move, spec.flips) == (True, True)
    assert spec.calibration is not None
    assert spec.calibration.copy_weight is not None
