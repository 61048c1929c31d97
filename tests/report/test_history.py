"""The course of a training is read whole, also of one that went on, and never of another one."""

from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.report.training import Best, best_validation, last_epoch, read_history

HEAD = "epoch,lr,step,train/loss,val/pixel_f1\n"


def write(path: Path, *rows: str) -> None:
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))


def test_losses_are_means_and_scores_the_last_of_an_epoch(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", ",0.1,1,,", "0,,1,1.0,", "0,,2,0.5,", "0,,2,,0.1", "0,,2,,0.2")
    found = read_history(tmp_path)
    assert found == {"train/loss": [(1, 0.75)], "val/pixel_f1": [(1, 0.2)]}
    assert last_epoch(found) == 1


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
    assert last_epoch({}) == 0


def test_best_is_the_first_of_equals_and_leaves_nan_out() -> None:
    history = {"val/pixel_f1": [(1, float("nan")), (2, 0.4), (3, 0.3), (4, 0.4)]}
    assert best_validation(history) == Best(epoch=2, score=0.4, of=3)


def test_damaged_log_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,much\n")
    with pytest.raises(UserError, match=r"metrics\.csv"):
        read_history(tmp_path)
