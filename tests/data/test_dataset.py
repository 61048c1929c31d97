"""Items and batches of training and evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter
from tests.helpers.training import (
    copy_of,
    make_data,
    mask_file,
    training_batches,
    with_pseudo_masks,
)


def test_unsure_and_padding_do_not_count(data_root: Path, tmp_path: Path) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path), value=127)
    wide = NetworkInput("native", (64, 128))
    (batch, *_) = training_batches(make_data(root, supervision="pseudo", input=wide))
    assert batch["valid"].sum() < batch["valid"].numel() * 96 / 128
    manipulated = batch["label"] == 1
    assert manipulated.any()
    inside = batch["valid"][manipulated].float().mean()
    assert 0 < inside < 0.75
    assert not batch["target"][manipulated].masked_select(batch["valid"][manipulated]).any()
    (soft, *_) = training_batches(
        make_data(root, supervision="pseudo", input=wide, soft_unsure=True)
    )
    assert (soft["target"][soft["valid"]] == 0.5).any()


def test_a_crop_that_misses_the_manipulation_has_no_label(data_root: Path) -> None:
    crops = make_data(data_root, supervision="mask", input=NetworkInput("native", (32, 32)))
    batches = [batch for epoch in range(3) for batch in training_batches(crops, epoch)]
    shown = torch.cat([batch["target"].flatten(1).any(dim=1) for batch in batches])
    label = torch.cat([batch["label"] for batch in batches])
    forged = torch.tensor([s != "authentic" for batch in batches for s in batch["supervision"]])
    assert (label[forged & shown] == 1).all()
    assert label[forged & ~shown].isnan().all()
    assert (label[~forged] == 0).all()
    assert (forged & shown).any()
    assert (forged & ~shown).any()


def test_a_rotten_training_image_is_named_and_counts_for_nothing(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = copy_of(data_root, tmp_path)
    manifest = read_manifest(root / "train.jsonl")
    bad = manifest.image_path(manifest.samples[0])
    bad.write_bytes(bad.read_bytes()[:-40])
    batches = training_batches(make_data(root))
    rows = {id_: i for b, batch in enumerate(batches) for i, id_ in enumerate(batch["id"], 10 * b)}
    place = rows.get(manifest.samples[0].id)
    assert place is not None or len(rows) == 8  # the last incomplete batch is dropped
    if place is not None:
        assert batches[place // 10]["label"][place % 10].isnan()
        assert not batches[place // 10]["valid"][place % 10].any()
        assert bad.name in caplog.text


def test_evaluation_refuses_rotten_or_unlabelled_images(data_root: Path, tmp_path: Path) -> None:
    root = copy_of(data_root, tmp_path)
    manifest = read_manifest(root / "val.jsonl")
    bad = manifest.image_path(manifest.samples[0])
    bad.write_bytes(bad.read_bytes()[:-40])
    data = make_data(root)
    data.setup("validate")
    with pytest.raises(RejectedInput, match=bad.name):
        list(data.val_dataloader())
    empty = Source(manifest, manifest.samples[1])
    images.write_png(mask_file(manifest, empty.sample), np.zeros((64, 96), np.uint8))
    with pytest.raises(RejectedInput, match="empty"):
        ground_truth(empty)
    samples = [replace(manifest.samples[0], mask=None), *manifest.samples[1:]]
    write_manifest(root / "val.jsonl", manifest.header, samples)
    with pytest.raises(UserError, match="can not be scored"):
        data.setup("validate")


def test_evaluation_yields_whole_images_and_truth_at_the_stored_size(data_root: Path) -> None:
    data = make_data(data_root, input=NetworkInput("resize", (32, 48)))
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (6, 3, 32, 48)
    assert batch["size"] == [(64, 96)] * 6
    truth = [int(t.sum()) for t in batch["truth"]]
    assert [t > 0 for t in truth] == [bool(label) for label in batch["label"]]
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["truth"] == [None] * 6


def test_regions_come_with_evaluation_only(data_root: Path) -> None:
    data = make_data(data_root, segmenter=SegmenterConfig(name="slic", segments=20))
    (batch, *_) = training_batches(data)
    assert "regions" not in batch
    (batch, *_) = list(data.val_dataloader())
    image, _ = images.read_image(data_root / "val" / f"{batch['id'][0].split('/', 1)[1]}.jpg")
    segmenter = build_segmenter(data.segmenter)
    assert segmenter is not None
    expected = segmenter.regions(image)
    np.testing.assert_array_equal(batch["regions"][0], expected)
