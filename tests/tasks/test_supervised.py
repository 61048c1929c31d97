"""A training that lost what it was to learn from stops and says so."""

import shutil
from pathlib import Path

import pytest

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.tasks.supervised import SupervisionCount
from tests.helpers.fit import fit
from tests.helpers.training import copy_of, make_data, training_batches


def _delete(root: Path, count: int, folder: str = "tampered") -> None:
    for path in sorted((root / "train" / folder).glob("*"))[:count]:
        path.unlink()


@pytest.mark.parametrize("folder", ["tampered", "masks"])
def test_without_the_manipulated_images_or_their_masks_it_stops(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    root = copy_of(data_root, tmp_path)
    shutil.rmtree(root / "train" / folder)
    assert fit(root, tmp_path / "run", "--trainer.max_epochs=2") == 1
    said = capsys.readouterr().err
    assert "manipulated training images could not be read" in said
    assert "6 are listed" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_the_end_says_what_was_read_and_what_was_not(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copy_of(data_root, tmp_path)
    _delete(root, 2)
    assert fit(root, tmp_path / "run", "--trainer.max_epochs=1", "--data.batch_size=3") == 0
    said = capsys.readouterr().out
    assert "last epoch: 4 manipulated (4 mask), 3 authentic, 2 could not be read" in said


def test_counts_are_those_of_the_batches(data_root: Path, tmp_path: Path) -> None:
    root = copy_of(data_root, tmp_path)
    _delete(root, 1, "masks")
    count = SupervisionCount()
    for batch in training_batches(make_data(root, batch_size=3)):
        count.add(batch)
    assert count.manipulated == (5, 1)
    labels = [sample.label for sample in read_manifest(root / "train.jsonl").samples]
    assert int(count.counts.sum()) == len(labels)


@pytest.mark.parametrize(
    ("read", "lost", "listed", "finished", "stops"),
    [
        (0, 5, 10, False, False),
        (0, 6, 10, False, True),
        (0, 5, 10, True, True),
        (5, 5, 10, True, False),
        (4, 5, 100, True, True),  # an epoch that was cut short
        (0, 0, 10, True, False),
    ],
)
def test_it_stops_when_fewer_than_half_could_be_read(
    read: int, lost: int, listed: int, finished: bool, stops: bool
) -> None:
    count = SupervisionCount()
    count.counts[0, 0], count.counts[1, 0], count.counts[1, 4] = read, lost, 99
    if stops:
        with pytest.raises(UserError, match=f"{lost} manipulated"):
            count.refuse_loss(listed, finished)
    else:
        count.refuse_loss(listed, finished)
