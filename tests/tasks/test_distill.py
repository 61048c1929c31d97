"""The student learns, and its checkpoint alone brings it back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.models.backbone import with_normalization
from boxpromptiml.models.student import Student
from boxpromptiml.tasks.callbacks import MetricsFile
from boxpromptiml.tasks.distill import DistillTask
from tests.helpers.training import (
    SMALL,
    STUDENT,
    checkpoints_in,
    make_data,
    make_task,
    make_trainer,
    training_batches,
)


@pytest.mark.slow
def test_it_learns_what_is_easy_and_the_checkpoint_alone_brings_it_back(
    data_root: Path, tmp_path: Path
) -> None:
    task, data = make_task(), make_data(data_root)
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), MetricsFile(), max_epochs=30)
    trainer.fit(task, data)
    (scores,) = trainer.test(task, data, ckpt_path=str(tmp_path / "best.ckpt"), verbose=False)
    assert scores["test/pixel_f1"] > 0.6  # bright ellipses on noise; all-ones scores 0.2
    assert json.loads((tmp_path / "metrics_test.json").read_text())["pixel_f1"] == pytest.approx(
        scores["test/pixel_f1"]
    )
    student, spec = load_localizer(tmp_path / "best.ckpt")
    network = with_normalization(STUDENT)
    assert (spec.network, spec.input, spec.threshold) == (network, SMALL, 0.5)
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        same = task.eval().network(image).logits  # in channels_last: other rounding
        torch.testing.assert_close(student(image).logits, same, atol=1e-3, rtol=1e-2)


def test_label_supervision_without_an_image_loss_is_refused(
    data_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="image_weight"):
        make_trainer(tmp_path).fit(make_task(), make_data(data_root, supervision="label"))
    trainer = make_trainer(tmp_path, checkpoints_in(tmp_path), max_epochs=1)
    trainer.fit(make_task(image_weight=1.0), make_data(data_root, supervision="label"))


def test_an_image_head_without_an_image_loss_is_refused(data_root: Path, tmp_path: Path) -> None:
    headed = DistillTask(replace(STUDENT, image_head=True), SMALL)
    with pytest.raises(UserError, match=r"image head.*image_weight"):
        make_trainer(tmp_path).fit(headed, make_data(data_root))


def test_the_attention_can_be_the_map(data_root: Path, tmp_path: Path) -> None:
    fusion = replace(STUDENT.fusion, output="attention")
    task = DistillTask(replace(STUDENT, fusion=fusion), SMALL, lr=3e-3, attention_weight=0.5)
    make_trainer(tmp_path, checkpoints_in(tmp_path), max_epochs=1).fit(task, make_data(data_root))
    student, _ = load_localizer(tmp_path / "last.ckpt")
    assert isinstance(student, Student)
    assert student.head is None
    image = torch.rand(1, 3, 50, 70)
    with torch.inference_mode():
        output, fused = student.attend(image)
    coarse = fused.final.mean(dim=1, keepdim=True).logit()
    torch.testing.assert_close(
        student.enlarged(coarse, 50, 70), output.logits, atol=5e-3, rtol=5e-3
    )


def test_the_side_loss_trains_the_attention_maps(data_root: Path) -> None:
    gradients: dict[float, list[float]] = {}
    batch = training_batches(make_data(data_root))[0]
    for weight in (0.0, 1.0):
        task = make_task(attention_weight=weight)
        task.log = lambda *_, **__: None  # type: ignore[method-assign]
        task.training_step(batch, 0).backward()
        named = dict(task.network.named_parameters())
        biases = (named["fusion.base.bias"].grad, named["fusion.memory.read.bias"].grad)
        gradients[weight] = [bias.abs().item() for bias in biases if bias is not None]
    assert len(gradients[0.0]) == 2
    assert all(m > 3 * n for m, n in zip(gradients[1.0], gradients[0.0], strict=True))


def test_alpha_and_prototypes_can_have_a_learning_rate_of_their_own() -> None:
    plain, own = make_task().parameter_groups(), make_task(memory_lr=0.1).parameter_groups()
    assert [len(group["params"]) for group in own] == [
        len(plain[0]["params"]) - 1,
        len(plain[1]["params"]) - 1,
        2,
    ]
    assert (own[2]["lr"], own[2]["weight_decay"]) == (0.1, 0.0)
