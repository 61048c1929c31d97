"""What a run was trained on, and the course of its training, read whole and of no other run."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.report.training import (
    BestEpoch,
    TrainingImages,
    best_validation,
    count_images,
    describe_training,
    read_audit,
    read_history,
)
from tests.helpers.report_pages import make_run

HEAD = "epoch,lr,step,train/loss,val/pixel_f1\n"


def write(path: Path, *rows: str) -> None:
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))


def test_losses_are_means_and_scores_the_last_of_an_epoch(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", ",0.1,1,,", "0,,1,1.0,", "0,,2,0.5,", "0,,2,,0.1", "0,,2,,0.2")
    found = read_history(tmp_path)
    assert found == {"train/loss": [(1, 0.75)], "val/pixel_f1": [(1, 0.2)]}


def test_earlier_part_of_a_run_that_went_on_is_put_before(tmp_path: Path) -> None:
    write(tmp_path / "metrics_before_0.csv", "0,,1,9,")  # another training
    write(tmp_path / "metrics_before_1.csv", "0,,1,1.0,", "1,,2,0.8,", "2,,3,0.7,")
    write(tmp_path / "metrics.csv", "2,,3,0.6,", "3,,4,0.5,")
    found = read_history(tmp_path)
    assert found["train/loss"] == [(1, 1.0), (2, 0.8), (3, 0.6), (4, 0.5)]


def test_a_training_from_the_start_has_no_earlier_part(tmp_path: Path) -> None:
    write(tmp_path / "metrics_before_0.csv", "0,,1,9,", "1,,2,9,")
    write(tmp_path / "metrics.csv", "0,,1,1.0,")
    assert read_history(tmp_path)["train/loss"] == [(1, 1.0)]


def test_nothing_logged_is_empty(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    assert best_validation({}) is None


def test_best_is_the_first_of_equals_and_leaves_nan_out() -> None:
    history = {"val/pixel_f1": [(1, float("nan")), (2, 0.4), (3, 0.3), (4, 0.4)]}
    assert best_validation(history) == BestEpoch(epoch=2, score=0.4, validations=3)


def test_damaged_log_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,much\n")
    with pytest.raises(UserError, match=r"metrics\.csv"):
        read_history(tmp_path)


def test_training_images_are_counted_as_fit_chooses_them(tmp_path: Path) -> None:
    run = make_run(tmp_path, [0.9, 0.1, 0.9, 0.1], [0.9, 0.1]).run
    manifest = read_manifest(run.manifests("train")[0])
    boxed = [replace(s, box_origin="human" if s.id < "tset/c" else "cam") for s in manifest.samples]
    unboxed = replace(boxed[0], id="u", boxes=None, pseudo_mask=None, box_origin=None)
    test = replace(boxed[0], id="v", split="test")
    chosen: Any = (*boxed, unboxed, test)
    some = replace(manifest, samples=chosen)

    def trained_on(**data: object) -> TrainingImages:
        return count_images({"data": data}, [some])

    assert trained_on().annotations == {"pseudo": 4}
    assert trained_on().origins == {"human": 2, "cam": 2}
    assert trained_on().authentic == 2
    assert trained_on(include_authentic=False).authentic == 0
    assert trained_on(train_fraction=0.4).annotations == {"pseudo": 2}
    assert trained_on(supervision="mask").origins == {}
    mixed = trained_on(supervision="mixed", weights={"pseudo": 1.0, "cam": 0.0, "label": 0.2})
    assert mixed.annotations == {"pseudo": 2, "label": 3}
    with pytest.raises(UserError, match=r"data\.weights"):
        trained_on(supervision="mixed", weights={"nothing": 1})


def test_damaged_summary_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for text in ("{", "[]", '{"teacher": {}}', '{"teacher": {"name": "x"}, "audit": 3}'):
        path.write_text(text)
        with pytest.raises(UserError, match=r"summary\.json"):
            read_audit(path.with_name("train.jsonl"))


def test_a_configuration_of_another_program_is_described_as_far_as_it_goes() -> None:
    found = describe_training({"model": 3, "data": {}, "trainer": []}, [], {})
    assert (found.task, found.backbone, found.planned, found.epochs) == ("", "", None, 0)
    assert found.audits == ()


@pytest.mark.parametrize(
    "data",
    [
        {"supervision": "guess"},
        {"train_fraction": "half"},
        {"train_fraction": 0},
        {"seed": []},
        {"weights": {"pseudo": "much"}},
        {"include_authentic": 3},
    ],
)
def test_edited_settings_are_named(data: dict[str, object]) -> None:
    (key,) = data
    with pytest.raises(UserError, match=rf"config\.yaml: data\.{key}"):
        count_images({"data": data}, [])


def test_pipes_and_endless_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "summary.json")
    (tmp_path / "metrics.csv").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"summary\.json: .*not a regular file"):
        read_audit(tmp_path / "train.jsonl")
    with pytest.raises(UserError, match=r"metrics\.csv: .*not a regular file"):
        read_history(tmp_path)


@pytest.mark.parametrize("row", ["inf,,1,1,", "nan,,1,1,", "0,,1,\0,", "1e400,,1,1,"])
def test_odd_numbers_in_a_log_are_named(tmp_path: Path, row: str) -> None:
    write(tmp_path / "metrics.csv", row)
    with pytest.raises(UserError, match=r"metrics\.csv"):
        read_history(tmp_path)
