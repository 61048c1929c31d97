"""metrics.csv of an earlier run is moved aside when a new run writes its first row, not before."""

import warnings
from pathlib import Path

from boxpromptiml.tasks.history import HistoryLogger
from tests.helpers.fit import fit


def _logger(folder: Path) -> HistoryLogger:
    return HistoryLogger(folder, name="", version="")


def test_every_run_keeps_its_rows(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Lightning's logger warns that it deletes files
        for step in range(3):
            logger = _logger(tmp_path)
            logger.log_metrics({"loss": 1.0}, step)
            logger.save()
            logger.log_metrics({"loss": 2.0, "more": 3.0}, step)
            logger.save()
    kept = [tmp_path / f"metrics{end}.csv" for end in ("_before_0", "_before_1", "")]
    for step, path in enumerate(kept):
        assert path.read_text() == f"loss,more,step\n1.0,,{step}\n2.0,3.0,{step}\n"


def test_a_run_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("earlier")
    logger = _logger(tmp_path)
    assert Path(logger.experiment.log_dir) == tmp_path
    logger.save()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_a_fit_that_fails_before_it_starts_leaves_the_folder_alone(
    data_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "metrics.csv").write_text("earlier")
    (tmp_path / "config.yaml").write_text("earlier")
    for wrong in ("--data.train=[missing.jsonl]", "--trainer.check_val_every_n_epoch=9",
                  "--checkpoint.monitor=val/pixel_f1", "--model.lr=x"):  # fmt: skip
        more = ["--trainer.max_epochs=1", wrong]
        if "monitor" in wrong:
            more.append(f"--data.val=[{tmp_path}/none.jsonl]")
        assert fit(data_root, tmp_path, *more) != 0
        files = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
        assert files == ["config.yaml", "metrics.csv"]
        assert all((tmp_path / name).read_text() == "earlier" for name in files)


def test_rows_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to("../elsewhere.csv")
    logger = _logger(tmp_path / "run")
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    assert (tmp_path / "run" / "metrics.csv").read_text() == "loss,step\n1.0,0\n"
    assert not (tmp_path / "elsewhere.csv").exists()
