"""The data module's loaders."""

from pathlib import Path

import torch

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.transforms import Augmentation
from tests.helpers.training import make_data, training_batches


def test_one_manifest_needs_no_list(data_root: Path) -> None:
    path = data_root / "train.jsonl"
    for given in (path, str(path), [path], [str(path)]):
        assert LocalizationData(train=given).paths["train"] == [path]  # type: ignore[arg-type]


def test_number_of_workers_does_not_change_a_batch(data_root: Path) -> None:
    augmentation = Augmentation(0.5, 0.5, 0.5, jpeg=0.5, blur=0.5, noise=0.5)
    alone, one, two = (
        training_batches(make_data(data_root, augmentation=augmentation, num_workers=n))
        for n in (0, 1, 2)
    )
    other_epoch = training_batches(make_data(data_root, augmentation=augmentation), epoch=1)
    for a, b, c in zip(alone, one, two, strict=True):
        assert a["id"] == b["id"] == c["id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["image"], c["image"])
    assert [b["id"] for b in alone] != [b["id"] for b in other_epoch]
