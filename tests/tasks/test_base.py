"""What all tasks share: seeds, refusals, and what a checkpoint says it was trained on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxpromptiml import Localizer
from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.export import export, with_spec
from boxpromptiml.io.files import sha256_file
from boxpromptiml.manifests.manifest import write_manifest
from boxpromptiml.manifests.sources import read_sources, stored_image
from boxpromptiml.metrics.histograms import Floats
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.tasks.callbacks import LocalCheckpointIO
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.numeric import DivergedError
from tests.helpers.data import make_manifest
from tests.helpers.models import CALIBRATION
from tests.helpers.training import (
    SMALL,
    STUDENT,
    checkpoints_in,
    make_data,
    make_task,
    make_trainer,
)


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_untrained_weights_are_refused(data_root: Path, tmp_path: Path, verb: str) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(UserError, match="--ckpt_path"):
        getattr(trainer, verb)(make_task(), make_data(data_root))


def test_another_students_checkpoint_is_refused(data_root: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), max_epochs=1)
    trainer.fit(make_task(), make_data(data_root))
    other = DistillTask(StudentConfig(backbone="resnet10t"), SMALL)
    with pytest.raises(UserError, match="another network"):
        make_trainer(tmp_path).test(other, make_data(data_root), ckpt_path=tmp_path / "last.ckpt")


def test_weights_that_are_not_finite_are_never_written(data_root: Path, tmp_path: Path) -> None:
    task, data = make_task(), make_data(data_root)
    trainer = make_trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
    trainer.fit(task, data)
    with torch.no_grad():
        next(task.parameters()).fill_(math.inf)
    with pytest.raises(DivergedError):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


def test_same_seed_same_weights(data_root: Path, tmp_path: Path) -> None:
    def train(folder: Path) -> dict[str, torch.Tensor]:
        task = make_task()
        make_trainer(folder, checkpoints_in(folder)).fit(task, make_data(data_root))
        return task.state_dict()

    first, again = train(tmp_path / "a"), train(tmp_path / "b")
    assert all(torch.equal(first[name], again[name]) for name in first)


def _manifest(root: Path, name: str, seed: int, **changes: Any) -> Path:
    made = make_manifest(root / name, "train", 4, 1, seed)
    rows = (replace(row, dataset=name, **changes) for row in made.samples)
    return write_manifest(made.path, made.header, rows).path


def _fit(root: Path, run: Path, manifests: list[Path], **settings: Any) -> tuple[str, ...]:
    data = make_data(root)
    data.paths["train"] = manifests
    trainer = make_trainer(run, checkpoints_in(run), plugins=LocalCheckpointIO(), **settings)
    ckpt_path = str(run / "last.ckpt") if (run / "last.ckpt").exists() else None
    trainer.fit(make_task(), data, ckpt_path=ckpt_path)
    return load_localizer(run / "last.ckpt")[1].trained_on


def test_the_spec_names_the_datasets_trained_on_and_export_keeps_them(
    data_root: Path, tmp_path: Path
) -> None:
    zebra, ant = (_manifest(tmp_path, name, 11 + n) for n, name in enumerate(("zebra", "ant")))
    unlabelled = _manifest(tmp_path, "left out", 13, label=None)
    manifests = [zebra, ant, unlabelled]
    assert _fit(data_root, tmp_path, manifests, max_epochs=1) == ("ant", "zebra")
    export(tmp_path / "last.ckpt", tmp_path / "student.safetensors")
    assert load_localizer(tmp_path / "student.safetensors")[1].trained_on == ("ant", "zebra")
    bee = _manifest(tmp_path, "bee", 15)
    assert _fit(data_root, tmp_path, [bee], max_epochs=2) == ("ant", "bee", "zebra")


def test_a_checkpoint_of_an_earlier_version_keeps_its_normalisation(
    data_root: Path, tmp_path: Path
) -> None:
    student = replace(STUDENT, rgb_mean=(0.1, 0.2, 0.3), rgb_std=(0.4, 0.5, 0.6))
    task = DistillTask(student, SMALL)
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    other, trainer = make_task(), make_trainer(tmp_path)
    trainer.test(other, make_data(data_root), tmp_path / "old.ckpt", weights_only=True)
    assert other.spec.network == student
    assert other.get_buffer("student.mean").flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_scores_are_calibrated_as_the_checkpoint_says_until_training_goes_on(
    data_root: Path, tmp_path: Path
) -> None:
    task, data = make_task(), make_data(data_root)
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), max_epochs=1)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    spec = replace(task.spec, calibration=CALIBRATION)
    with_spec(tmp_path / "plain.ckpt", spec, tmp_path / "calibrated.ckpt")

    def scores(name: str) -> Floats:
        parts = trainer.predict(task, data, ckpt_path=tmp_path / name, weights_only=True)
        assert parts is not None
        return np.concatenate([part["image_score"] for part in parts])  # type: ignore[call-overload]

    with_flips = replace(spec, flips=True)  # whose calibration is not one of single views
    with_spec(tmp_path / "plain.ckpt", with_flips, tmp_path / "flips.ckpt")
    plain, calibrated = scores("plain.ckpt"), scores("calibrated.ckpt")
    np.testing.assert_array_equal(scores("flips.ckpt"), plain)
    expected = 1 / (1 + np.exp(-(np.log(plain / (1 - plain)) / 2 - 1)))
    np.testing.assert_allclose(calibrated, expected, atol=1e-5)
    localizer = Localizer.load(tmp_path / "calibrated.ckpt")
    sources = read_sources([data_root / "test.jsonl"], "test")
    own = [localizer.localize([stored_image(source)])[0].score for source in sources]
    np.testing.assert_allclose(sorted(calibrated), sorted(own), atol=1e-5)
    trainer.fit(task, data)
    assert load_localizer(tmp_path / "last.ckpt")[1].calibration is None


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with weights that no seed gives."""
    folder = tmp_path_factory.mktemp("trained")
    task = make_task()
    task.spec = replace(task.spec, trained_on=("before",))
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    trainer = make_trainer(folder)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "student.ckpt")
    return folder / "student.ckpt"


@pytest.mark.parametrize("ending", ["ckpt", "safetensors"])
def test_training_starts_from_all_weights_of_a_localizer(
    data_root: Path, tmp_path: Path, trained: Path, ending: str
) -> None:
    path = trained
    if ending == "safetensors":
        path = tmp_path / "student.safetensors"
        export(trained, path)
    task = make_task(init_from=path)
    network, _ = load_localizer(trained)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(task.network.state_dict()[name], tensor)
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), max_epochs=1)
    trainer.fit(task, make_data(data_root))
    _, spec = load_localizer(tmp_path / "last.ckpt")
    assert spec.started_from == sha256_file(path)
    assert set(spec.trained_on) > {"before"}


def test_a_localizer_of_another_architecture_is_one_clear_line(trained: Path) -> None:
    with pytest.raises(UserError, match=r"student\.ckpt: holds another network: StudentConfig"):
        DistillTask(replace(STUDENT, residuals="srm"), SMALL, init_from=trained)
    with pytest.raises(UserError, match="give one of them"):
        make_task(init_from=trained, pretrained=Path("weights.pth"))


def test_channels_beside_rgb_count(trained: Path) -> None:
    with pytest.raises(UserError, match=r"with 0 channels beside RGB.* with 3$"):
        DistillTask(STUDENT, replace(SMALL, error_levels=(75,)), init_from=trained)
