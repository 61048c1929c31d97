"""Which annotation supervises an image, and what its trimap says."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxpromptiml import geometry
from boxpromptiml.data.supervision import (
    Annotation,
    SourceWeights,
    supervision_trimap,
    training_target,
)
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.manifests.manifest import read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.records import Box, Sample
from tests.helpers.training import (
    copy_of,
    make_data,
    training_batches,
    training_samples,
    with_pseudo_masks,
)


def test_weak_modes_never_open_ground_truth(data_root: Path, tmp_path: Path) -> None:
    """The training masks are deleted and every weak mode still trains."""
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    shutil.rmtree(root / "train" / "masks")
    for supervision in ("pseudo", "box", "label"):
        assert len(training_batches(make_data(root, supervision=supervision))) == 2
    manifest = read_manifest(root / "train.jsonl")
    with pytest.raises(RejectedInput, match="masks"):
        supervision_trimap(Source(manifest, manifest.samples[0]), "mask")


@pytest.mark.parametrize("supervision", ["mask", "pseudo", "box", "label"])
def test_targets_say_what_the_supervision_says(
    data_root: Path, tmp_path: Path, supervision: Annotation
) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    manifest = read_manifest(root / "train.jsonl")
    for sample in manifest.samples:
        trimap = supervision_trimap(Source(manifest, sample), supervision)
        assert trimap.shape == sample.size
        if sample.label == 0:
            assert not trimap.any()
        elif supervision == "label":
            assert (trimap == 127).all()
        elif supervision == "mask":
            np.testing.assert_array_equal(trimap == 255, ground_truth(Source(manifest, sample)))
        else:
            inside = geometry.union_mask(geometry.as_array(sample.boxes or ()), sample.size)
            np.testing.assert_array_equal(trimap == 255, inside)


def test_no_row_is_lost_silently(
    data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Images left out of training are counted by reason."""
    root = copy_of(data_root, tmp_path)
    manifest = read_manifest(root / "train.jsonl")
    samples = [replace(manifest.samples[0], boxes=None), *manifest.samples[1:]]
    write_manifest(root / "train.jsonl", manifest.header, samples)
    data = make_data(root, supervision="box", include_authentic=False)
    assert len(training_samples(data)) == 5
    assert "3 training images left out: authentic" in caplog.text
    assert "1 training images left out: without" in caplog.text


def _sample(**changes: Any) -> Sample:
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
def test_mixed_takes_the_best_annotation_that_counts(
    changes: dict[str, Any], closed: tuple[str, ...], expected: tuple[str, float] | None
) -> None:
    weights = replace(ALL_WEIGHTS, **dict.fromkeys(closed, 0.0))
    assert training_target(_sample(**changes), "mixed", weights) == expected


def test_by_default_mixed_keeps_masks_closed(data_root: Path, tmp_path: Path) -> None:
    root = with_pseudo_masks(copy_of(data_root, tmp_path))
    shutil.rmtree(root / "train" / "masks")
    manifest = read_manifest(root / "train.jsonl")
    boxed, cam, label, *rest = (s for s in manifest.samples if s.label)
    changed = [boxed, replace(cam, box_origin="cam"), replace(label, pseudo_mask=None), *rest[:0]]
    authentic = [s for s in manifest.samples if s.label == 0][:1]
    write_manifest(root / "train.jsonl", manifest.header, [*changed, *authentic])
    weights = SourceWeights(pseudo=1.0, cam=0.25, label=0.5, authentic=2.0)
    (batch,) = training_batches(make_data(root, supervision="mixed", weights=weights))
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


def test_weights_are_checked() -> None:
    with pytest.raises(UserError, match=r"weights\.cam"):
        SourceWeights(cam=-1)


def test_a_fraction_of_the_training_images_keeps_the_classes_and_is_nested(data_root: Path) -> None:
    def labels(fraction: float) -> dict[str, int]:
        samples = training_samples(make_data(data_root, train_fraction=fraction))
        return {s.id: s.label for s in samples if s.label is not None}

    third, most, everything = labels(1 / 3), labels(2 / 3), labels(1.0)
    assert sorted(third.values()) == [0, 1, 1]
    assert sorted(most.values()) == [0, 0, 1, 1, 1, 1]
    assert third.keys() < most.keys() < everything.keys()
    with pytest.raises(UserError, match="train_fraction"):
        make_data(data_root, train_fraction=0)
