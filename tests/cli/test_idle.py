"""Options of `fit` that have no effect are refused."""

import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.cli.idle import NEEDS, default
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.tasks.callbacks import GuardedCheckpoint
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.tasks.image_label import ImageLabelTask
from tests.helpers.fit import fit

# Options that always act, and (after the bar) those that are checked where they are used. A new
# option belongs here, or into a rule of boxpromptiml/cli/idle.py.
FREE = """
    data.train data.val data.test data.predict data.supervision data.input.mode data.input.size
    data.input.error_levels data.augmentation.horizontal_flip data.augmentation.vertical_flip
    data.augmentation.jpeg data.augmentation.blur data.augmentation.noise data.segmenter.name
    data.include_authentic data.train_fraction data.batch_size data.eval_batch_size
    data.num_workers data.seed model.input.mode model.input.size model.input.error_levels
    model.student.backbone model.student.residuals model.student.stages model.student.rgb_mean
    model.student.rgb_std model.student.fusion.width model.student.fusion.gates
    model.student.fusion.output model.attention_weight
    model.student.fusion.memory model.wcbnet.backbone model.wcbnet.inputs model.wcbnet.stages
    model.wcbnet.weighting model.wcbnet.pooling model.wcbnet.rgb_mean model.wcbnet.rgb_std
    model.cam.method model.cam.view model.dice_weight model.image_weight model.lr
    model.weight_decay model.warmup model.threshold checkpoint.monitor checkpoint.mode
    checkpoint.filename checkpoint.save_top_k
    |
    data.cache data.degrade.name data.degrade.level data.augmentation.min_scale model.network
    model.loss data.augmentation.rotate90 data.segmenter.weights model.student.image_head
    model.pretrained model.init_from
"""
CLASSES = {
    "data": (LocalizationData,),
    "model": (DistillTask, ImageLabelTask),
    "checkpoint": (GuardedCheckpoint,),
}


def leaves(name: str, value: Any) -> Iterator[str]:
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(f"{name}.{field.name}", getattr(value, field.name))
    else:
        yield name


def test_every_option_either_always_acts_or_has_a_rule() -> None:
    options = {
        leaf
        for room, owners in CLASSES.items()
        for owner in owners
        for parameter in list(inspect.signature(owner).parameters.values())
        for leaf in leaves(f"{room}.{parameter.name}", parameter.default)
    }
    ruled = {option for need in NEEDS for option in need.options}
    free = set(FREE.replace("|", "").split())
    assert options == ruled | free
    assert not ruled & free
    assert {need.other for need in NEEDS} <= free  # a rule does not depend on another


def test_every_rule_holds_for_a_value_that_exists() -> None:
    for need in NEEDS:
        owner = next(o for o in CLASSES[need.options[0].split(".")[0]] if _has(o, need.options[0]))
        of_other = LocalizationData if need.other.startswith("data.") else owner
        standard = default(of_other, need.other)
        assert type(standard) is str
        assert set(need.values) != {standard}


def _has(owner: type, option: str) -> bool:
    return option.split(".")[1] in inspect.signature(owner).parameters


@pytest.mark.parametrize(
    ("words", "option", "reason"),
    [
        ("--data.weights.mask=1", "data.weights.mask", "--data.supervision mask"),
        ("--data.weights={label: 1}", "data.weights.label", "--data.supervision mask"),
        ("--data.soft_unsure=true", "data.soft_unsure", "--data.supervision mask"),
        ("--data.segmenter.segments=9", "data.segmenter.segments", "--data.segmenter.name none"),
        ("--model.student.truncation=2", "model.student.truncation",
         "--model.student.residuals none"),
        ("--model.student.fusion.memory=none", "model.student.fusion.prototypes",
         "--model.student.fusion.memory none"),
        ("--model.init_args.student.fusion.ema_decay=0.5", "model.student.fusion.ema_decay",
         "--model.student.fusion.memory learnable"),
    ],
)  # fmt: skip
def test_an_option_of_the_command_line_without_effect_is_one_line(
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    option: str,
    reason: str,
) -> None:
    assert fit(data_root, tmp_path / "run", words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --{option} has no effect with {reason}; leave one of them out"
    )
    assert not (tmp_path / "run").exists()


def test_what_a_later_file_makes_idle_passes(data_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "ablation.yaml"
    file.write_text(
        "model: {init_args: {student: {truncation: 2.0, fusion: {alpha: 0.4, memory: none}}}}\n"
        "data: {weights: {cam: 1.0}}\n"
    )
    words = [f"--config={file}", "--trainer.fast_dev_run=true", "--data.weights.cam=0.5"]
    assert fit(data_root, tmp_path / "run", "--model.student.fusion.prototypes=64", *words) == 0
