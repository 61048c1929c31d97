import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boxpromptiml import geometry
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.dataset import Key
from boxpromptiml.data.samplers import EpochSampler, ShardSampler
from boxpromptiml.data.supervision import SourceWeights, supervision_trimap, training_target
from boxpromptiml.data.transforms import Augmentation
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_file, write_bytes
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.sidecars import (
    SIDECAR_VERSION,
    Sidecar,
    expected_fingerprint,
    write_sidecar,
)
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch, Box, Sample
from boxpromptiml.segmenters.config import SegmenterConfig, build_segmenter

SMALL = NetworkInput("native", (64, 64))


def _copy(data_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data_root, tmp_path / "data"))


def _data(root: Path, **settings) -> LocalizationData:
    settings = {"supervision": "mask", "input": SMALL, "batch_size": 4} | settings
    return LocalizationData(
        train=[root / "train.jsonl"],
        val=[root / "val.jsonl"],
        test=[root / "test.jsonl"],
        predict=[root / "test.jsonl"],
        **settings,
    )


def _batches(data: LocalizationData, epoch: int = 0) -> list[Batch]:
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def _with_pseudo_masks(root: Path, made_by: str = "teacher-1", level: int = 255) -> Path:
    """Adds filled boxes as pseudo-masks to train.jsonl."""
    manifest = read_manifest(root / "train.jsonl")
    samples: list[Sample] = []
    for sample in manifest.samples:
        if sample.label == 0:
            samples.append(sample)
            continue
        mask = geometry.union_mask(geometry.as_array(sample.boxes), sample.size)
        path = root / "pseudo" / f"{sample.group}.png"
        write_bytes(path, images.encode_png(mask.astype(np.uint8) * level))
        signature = expected_fingerprint(sample, sample.image_sha256, made_by)
        write_sidecar(
            path,
            Sidecar(SIDECAR_VERSION, signature, sample.image_sha256, sha256_file(path),
                    sample.boxes, {}, (), (), "ok", 0.0),
        )  # fmt: skip
        samples.append(replace(sample, pseudo_mask=f"pseudo/{sample.group}.png"))
    write_manifest(
        root / "train.jsonl", replace(manifest.header, teacher_signature=made_by), samples
    )
    return root


def test_weak_modes_never_open_ground_truth(data_root, tmp_path):
    """Invariant 1: the training masks are deleted and every weak mode still trains."""
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    shutil.rmtree(root / "train" / "masks")
    for supervision in ("pseudo", "box", "label"):
        assert len(_batches(_data(root, supervision=supervision))) == 2
    manifest = read_manifest(root / "train.jsonl")
    with pytest.raises(RejectedInput, match="masks"):
        supervision_trimap(Source(manifest, manifest.samples[0]), "mask")


@pytest.mark.parametrize("supervision", ["mask", "pseudo", "box", "label"])
def test_targets_say_what_the_supervision_says(data_root, tmp_path, supervision):
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    manifest = read_manifest(root / "train.jsonl")
    for sample in manifest.samples:
        levels = supervision_trimap(Source(manifest, sample), supervision)
        assert levels.shape == sample.size
        if sample.label == 0:
            assert not levels.any()
        elif supervision == "label":
            assert (levels == 127).all()
        elif supervision == "mask":
            np.testing.assert_array_equal(levels == 255, ground_truth(Source(manifest, sample)))
        else:
            inside = geometry.union_mask(geometry.as_array(sample.boxes), sample.size)
            np.testing.assert_array_equal(levels == 255, inside)


def test_unsure_and_padding_do_not_count(data_root, tmp_path):
    root = _with_pseudo_masks(_copy(data_root, tmp_path), level=127)
    wide = NetworkInput("native", (64, 128))
    (batch, *_) = _batches(_data(root, supervision="pseudo", input=wide))
    assert batch["valid"].sum() < batch["valid"].numel() * 96 / 128
    manipulated = batch["label"] == 1
    assert manipulated.any()
    inside = batch["valid"][manipulated].float().mean()
    assert 0 < inside < 0.75
    assert not batch["target"][manipulated].masked_select(batch["valid"][manipulated]).any()
    (soft, *_) = _batches(_data(root, supervision="pseudo", input=wide, soft_unsure=True))
    assert (soft["target"][soft["valid"]] == 0.5).any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"boxes": (Box(1.0, 1.0, 9.0, 9.0),)}, "stale"),
        ({"image_sha256": "0" * 64}, "stale"),
    ],
)
def test_stale_pseudo_masks_are_refused(data_root, tmp_path, change, match):
    """Invariant 3: other boxes, another image, another teacher."""
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    manifest = read_manifest(root / "train.jsonl")
    write_manifest(
        root / "train.jsonl",
        manifest.header,
        [replace(manifest.samples[0], **change), *manifest.samples[1:]],
    )
    with pytest.raises(UserError, match=match):
        _data(root, supervision="pseudo").setup("fit")


def test_a_pseudo_mask_changed_by_hand_is_refused(data_root, tmp_path):
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    path = next((root / "pseudo").rglob("*.png"))
    images.write_png(path, np.zeros((64, 96), np.uint8))
    with pytest.raises(UserError, match="stale"):
        _data(root, supervision="pseudo").setup("fit")


def test_another_teachers_pseudo_masks_are_refused(data_root, tmp_path):
    root = _with_pseudo_masks(_copy(data_root, tmp_path), made_by="teacher-1")
    _data(root, supervision="pseudo", teacher_signature="teacher-1").setup("fit")
    with pytest.raises(UserError, match="teacher-1, expected teacher-2"):
        _data(root, supervision="pseudo", teacher_signature="teacher-2").setup("fit")
    manifest = read_manifest(root / "train.jsonl")
    header = replace(manifest.header, teacher_signature="teacher-2")
    write_manifest(root / "train.jsonl", header, manifest.samples)
    with pytest.raises(UserError, match="stale"):
        _data(root, supervision="pseudo").setup("fit")


def test_number_of_workers_does_not_change_a_batch(data_root):
    augmentation = Augmentation(0.5, 0.5, 0.5, jpeg=0.5, blur=0.5, noise=0.5)
    alone, one, two = (
        _batches(_data(data_root, augmentation=augmentation, num_workers=n)) for n in (0, 1, 2)
    )
    other_epoch = _batches(_data(data_root, augmentation=augmentation), epoch=1)
    for a, b, c in zip(alone, one, two, strict=True):
        assert a["id"] == b["id"] == c["id"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["image"], c["image"])
    assert [b["id"] for b in alone] != [b["id"] for b in other_epoch]


def test_no_row_is_lost_silently(data_root, tmp_path, caplog):
    """Invariant 2: what is left out of training is counted with its reason."""
    root = _copy(data_root, tmp_path)
    manifest = read_manifest(root / "train.jsonl")
    samples = [replace(manifest.samples[0], boxes=None), *manifest.samples[1:]]
    write_manifest(root / "train.jsonl", manifest.header, samples)
    data = _data(root, supervision="box", include_authentic=False)
    data.setup("fit")
    assert len(data.train_dataloader().dataset) == 5
    assert "3 training images left out: authentic" in caplog.text
    assert "1 training images left out: without" in caplog.text


def test_a_rotten_training_image_is_named_and_counts_for_nothing(data_root, tmp_path, caplog):
    root = _copy(data_root, tmp_path)
    manifest = read_manifest(root / "train.jsonl")
    bad = manifest.image_path(manifest.samples[0])
    bad.write_bytes(bad.read_bytes()[:-40])
    batches = _batches(_data(root))
    rows = {id_: i for b, batch in enumerate(batches) for i, id_ in enumerate(batch["id"], 10 * b)}
    place = rows.get(manifest.samples[0].id)
    assert place is not None or len(rows) == 8  # the last incomplete batch is dropped
    if place is not None:
        assert batches[place // 10]["label"][place % 10].isnan()
        assert not batches[place // 10]["valid"][place % 10].any()
        assert bad.name in caplog.text


def test_evaluation_refuses_rotten_or_unlabelled_images(data_root, tmp_path):
    root = _copy(data_root, tmp_path)
    manifest = read_manifest(root / "val.jsonl")
    bad = manifest.image_path(manifest.samples[0])
    bad.write_bytes(bad.read_bytes()[:-40])
    data = _data(root)
    data.setup("validate")
    with pytest.raises(RejectedInput, match=bad.name):
        list(data.val_dataloader())
    empty = Source(manifest, manifest.samples[1])
    images.write_png(manifest.mask_path(empty.sample), np.zeros((64, 96), np.uint8))
    with pytest.raises(RejectedInput, match="empty"):
        ground_truth(empty)
    samples = [replace(manifest.samples[0], mask=None), *manifest.samples[1:]]
    write_manifest(root / "val.jsonl", manifest.header, samples)
    with pytest.raises(UserError, match="can not be scored"):
        data.setup("validate")


def test_evaluation_yields_whole_images_and_truth_at_the_stored_size(data_root):
    data = _data(data_root, input=NetworkInput("resize", (32, 48)))
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (6, 3, 32, 48)
    assert batch["size"] == [(64, 96)] * 6
    truth = [int(t.sum()) for t in batch["truth"]]
    assert [t > 0 for t in truth] == [bool(label) for label in batch["label"]]
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["truth"] == [None] * 6


def test_shared_groups_and_missing_splits_are_errors(data_root, tmp_path):
    data = _data(data_root)
    data.paths["val"] = [data_root / "train.jsonl"]
    with pytest.raises(UserError, match='"split": "val"'):
        data.setup("fit")
    manifest = read_manifest(data_root / "train.jsonl")
    header = replace(manifest.header, image_root=str(data_root / "train"))
    leak = write_manifest(
        tmp_path / "leak.jsonl", header, [replace(s, split="val") for s in manifest.samples]
    )
    data.paths["val"] = [leak.path]
    with pytest.raises(UserError, match="leak"):
        data.setup("fit")
    renamed = [replace(s, split="val", group=f"x{s.group}") for s in manifest.samples]
    write_manifest(leak.path, header, renamed)
    with pytest.raises(UserError, match="leak"):  # the same files under another group
        data.setup("fit")
    data.paths["train"] = [data_root / "train.jsonl"] * 2
    with pytest.raises(UserError, match="--name"):
        data.setup("fit")
    data.paths["train"] = None
    with pytest.raises(UserError, match=r"--data\.train"):
        data.setup("fit")


def test_samplers_share_out_without_loss():
    dataset = list(range(7))
    shards = [list(ShardSampler(dataset, rank, 3)) for rank in range(3)]
    assert sorted(index for shard in shards for index in shard) == dataset
    assert [len(ShardSampler(dataset, rank, 3)) for rank in range(3)] == [3, 2, 2]
    samplers = [EpochSampler(dataset, 5, rank, 2) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(3)
    keys = [list(sampler) for sampler in samplers]
    assert len(keys[0]) == len(keys[1]) == 4
    assert {key.position for part in keys for key in part} == set(dataset)
    assert all(isinstance(key, Key) and key.epoch == 3 for part in keys for key in part)


def _sample(**changes) -> Sample:
    sample = Sample("a", "made", "train", "a", "a.jpg", (64, 96), 1, (Box(1, 2, 30, 40),), mask="m")
    return replace(sample, **changes)


ALL_WEIGHTS = SourceWeights(mask=0.9, pseudo=0.8, cam=0.7, box=0.6, label=0.5, authentic=0.4)


@pytest.mark.parametrize(
    ("changes", "closed", "expected"),
    [
        ({}, ("mask",), ("box", 0.6)),
        ({}, (), ("mask", 0.9)),
        ({"pseudo_mask": "p"}, ("mask",), ("pseudo", 0.8)),
        ({"pseudo_mask": "p", "box_origin": "cam"}, ("mask",), ("pseudo", 0.7)),
        ({"pseudo_mask": "p"}, ("mask", "pseudo", "box"), ("label", 0.5)),
        ({"box_origin": "cam"}, ("mask",), ("label", 0.5)),
        ({"boxes": None}, ("mask",), ("label", 0.5)),
        ({"boxes": None}, ("mask", "label"), None),
        ({"label": 0}, (), ("label", 0.4)),
        ({"label": 0}, ("authentic",), None),
        ({"label": None}, (), None),
    ],
)
def test_mixed_takes_the_best_annotation_that_counts(changes, closed, expected):
    weights = replace(ALL_WEIGHTS, **dict.fromkeys(closed, 0.0))
    assert training_target(_sample(**changes), "mixed", weights) == expected


def test_by_default_mixed_keeps_masks_closed(data_root, tmp_path):
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    shutil.rmtree(root / "train" / "masks")
    manifest = read_manifest(root / "train.jsonl")
    boxed, cam, label, *rest = (s for s in manifest.samples if s.label)
    changed = [boxed, replace(cam, box_origin="cam"), replace(label, pseudo_mask=None), *rest[:0]]
    authentic = [s for s in manifest.samples if s.label == 0][:1]
    write_manifest(root / "train.jsonl", manifest.header, [*changed, *authentic])
    weights = SourceWeights(pseudo=1.0, cam=0.25, label=0.5, authentic=2.0)
    (batch,) = _batches(_data(root, supervision="mixed", weights=weights))
    found = {
        name: (weight, known)
        for name, weight, known in zip(
            batch["id"], batch["weight"].tolist(), batch["valid"].flatten(1).any(1), strict=True
        )
    }
    assert found == {
        boxed.id: (1.0, True), cam.id: (0.25, True), label.id: (0.5, False),
        authentic[0].id: (2.0, True),
    }  # fmt: skip


def test_stale_pseudo_masks_are_refused_in_mixed_too(data_root, tmp_path):
    root = _with_pseudo_masks(_copy(data_root, tmp_path))
    next((root / "pseudo").rglob("*.png")).write_bytes(images.encode_png(np.zeros((64, 96), "u1")))
    with pytest.raises(UserError, match="stale"):
        _data(root, supervision="mixed").setup("fit")


def test_weights_are_checked():
    with pytest.raises(UserError, match=r"weights\.cam"):
        SourceWeights(cam=-1)


def test_regions_come_with_evaluation_only(data_root):
    data = _data(data_root, segmenter=SegmenterConfig(name="slic", segments=20))
    (batch, *_) = _batches(data)
    assert "regions" not in batch
    (batch, *_) = list(data.val_dataloader())
    image, _ = images.read_image(data_root / "val" / f"{batch['id'][0].split('/', 1)[1]}.jpg")
    expected = build_segmenter(data.segmenter).regions(image)
    np.testing.assert_array_equal(batch["regions"][0], expected)


def test_a_share_of_the_training_images_keeps_the_classes_and_is_nested(data_root):
    def ids(share: float) -> dict[str, int]:
        data = _data(data_root, train_fraction=share)
        data.setup("fit")
        return {s.sample.id: s.sample.label for s in data.train_dataloader().dataset.sources}

    third, most, everything = ids(1 / 3), ids(2 / 3), ids(1.0)
    assert sorted(third.values()) == [0, 1, 1]
    assert sorted(most.values()) == [0, 0, 1, 1, 1, 1]
    assert third.keys() < most.keys() < everything.keys()
    with pytest.raises(UserError, match="train_fraction"):
        _data(data_root, train_fraction=0)
