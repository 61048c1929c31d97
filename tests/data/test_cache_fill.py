"""The cache of resized training images changes nothing but the time that a batch takes."""

import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxpromptiml.data import cache_fill, dataset
from boxpromptiml.data.cache import PixelStore
from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.supervision import Supervision
from boxpromptiml.data.transforms import Augmentation
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.manifests import sources
from boxpromptiml.manifests.manifest import Manifest, read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Batch, ImageArray
from tests.helpers.training import (
    copy_of,
    make_data,
    mask_file,
    training_batches,
    with_pseudo_masks,
)

SIZE = (48, 64)


SLOT = 48 * 64 * 4


FLIPS = Augmentation(horizontal_flip=0.5, vertical_flip=0.5)


SQUARE = NetworkInput("resize", (64, 64))


def _cached(root: Path, cache: Path | None, **settings: Any) -> LocalizationData:
    settings = {"input": NetworkInput("resize", SIZE), "augmentation": FLIPS} | settings
    return make_data(root, cache=cache, **settings)


def _same(ours: list[Batch], theirs: list[Batch]) -> bool:
    assert len(ours) == len(theirs) > 0
    return all(
        a["id"] == b["id"]
        and a["size"] == b["size"]
        and all(
            torch.equal(a[key].nan_to_num(9), b[key].nan_to_num(9))
            for key in ("image", "target", "valid", "weight", "label")
        )
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.fixture
def root(data_root: Path, tmp_path: Path) -> Path:
    return with_pseudo_masks(copy_of(data_root, tmp_path))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the training images that are decoded, in this process."""
    seen: list[str] = []

    def spy(source: Source) -> ImageArray:
        seen.append(source.sample.id)
        return original(source)

    original = sources.stored_image
    for module in (dataset, cache_fill):
        monkeypatch.setattr(module, "stored_image", spy)
    return seen


def _rewrite(manifest: Manifest, **first: Any) -> None:
    """Change the first row."""
    changed = [replace(manifest.samples[0], **first), *manifest.samples[1:]]
    write_manifest(manifest.path, manifest.header, changed)


@pytest.mark.parametrize("supervision", ["mask", "pseudo", "box", "label", "mixed"])
def test_batches_are_those_without_a_cache_bit_for_bit(
    root: Path, tmp_path: Path, reads: list[str], supervision: Supervision
) -> None:
    if supervision == "label":
        _rewrite(read_manifest(root / "train.jsonl"), mask=None)
    for epoch in (0, 1):
        plain = training_batches(_cached(root, None, supervision=supervision), epoch)
        reads.clear()
        fresh = training_batches(_cached(root, tmp_path / "cache", supervision=supervision), epoch)
        assert len(reads) == (9 if epoch == 0 else 0)
        assert _same(plain, fresh)


@pytest.mark.parametrize(
    "settings",
    [
        {"augmentation": Augmentation(0.5, 0.5, 0.5), "input": SQUARE},
        {"soft_unsure": True, "supervision": "pseudo"},
        {"num_workers": 2},
        {"include_authentic": False, "train_fraction": 0.5},
        {"input": NetworkInput("resize", (160, 160))},  # larger than the images
    ],
)
def test_other_settings_give_the_same_batches_too(
    root: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    plain = training_batches(_cached(root, None, **settings))
    for _ in range(2):
        assert _same(plain, training_batches(_cached(root, tmp_path / "cache", **settings)))


def test_one_folder_serves_other_sizes_and_supervisions(
    root: Path, tmp_path: Path, reads: list[str]
) -> None:
    wanted: list[dict[str, Any]] = [
        {},
        {"supervision": "box"},
        {"input": SQUARE},
        {"train_fraction": 0.5},
    ]
    for expected in (
        9,
        6,
        9,
        0,
    ):  # authentic images have the same supervision with masks and with boxes
        settings = wanted.pop(0)
        plain = training_batches(_cached(root, None, **settings))
        reads.clear()
        assert _same(plain, training_batches(_cached(root, tmp_path / "cache", **settings)))
        assert len(reads) == expected
    files = {path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"}
    assert files == {"48x64.pixels", "48x64.index", "64x64.pixels", "64x64.index"}


def test_the_pixels_are_a_memory_map_of_uint8(root: Path, tmp_path: Path) -> None:
    data = _cached(root, tmp_path / "cache")
    data.setup("fit")
    slots = np.memmap(tmp_path / "cache" / "48x64.pixels", np.uint8, mode="r").reshape(-1, SLOT)
    assert len(slots) == 9
    assert {0, 255} == set(np.unique(slots[:, 48 * 64 * 3 :]))


def _other_image(manifest: Manifest) -> None:
    path = manifest.image_path(manifest.samples[0])
    path.unlink()
    images.write_jpeg(path, np.full((64, 96, 3), 200, np.uint8), 90)


def _other_mask(manifest: Manifest) -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:9, :9] = 255
    images.write_png(mask_file(manifest, manifest.samples[0]), mask)


@pytest.mark.parametrize("change", [_other_image, _other_mask])
def test_what_changed_is_made_again_and_nothing_else(
    root: Path, tmp_path: Path, reads: list[str], change: Callable[[Manifest], None]
) -> None:
    manifest = read_manifest(root / "train.jsonl")
    assert manifest.samples[0].label == 1
    _rewrite(manifest, image_sha256=None)
    before = training_batches(_cached(root, tmp_path / "cache"))
    change(read_manifest(root / "train.jsonl"))
    plain = training_batches(_cached(root, None))
    assert not _same(before, plain)
    reads.clear()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache")))
    assert reads == [manifest.samples[0].id]


def test_an_image_that_was_imported_again_is_made_again(
    root: Path, tmp_path: Path, reads: list[str]
) -> None:
    training_batches(_cached(root, tmp_path / "cache"))
    manifest = read_manifest(root / "train.jsonl")
    _other_image(manifest)
    _rewrite(manifest, image_sha256=images.probe(manifest.image_path(manifest.samples[0])).sha256)
    plain = training_batches(_cached(root, None))
    reads.clear()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache")))
    assert reads == [manifest.samples[0].id]


def test_a_rotten_image_counts_for_nothing_here_too(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = read_manifest(root / "train.jsonl")
    path = manifest.image_path(manifest.samples[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    settings = {"batch_size": 9}
    plain = training_batches(_cached(root, None, **settings))
    for _ in range(2):
        caplog.clear()
        (batch,) = fresh = training_batches(_cached(root, tmp_path / "cache", **settings))
        assert _same(plain, fresh)
        assert batch["label"].isnan().sum() == 1
        assert "left out of training" in caplog.text
    path.write_bytes(whole)
    plain = training_batches(_cached(root, None, **settings))
    assert not plain[0]["label"].isnan().any()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache", **settings)))


@pytest.mark.parametrize("name", ["48x64.pixels", "48x64.index"])
@pytest.mark.parametrize("kept", [0, 1, 2.5])
def test_a_file_cut_short_is_made_whole(
    root: Path, tmp_path: Path, reads: list[str], name: str, kept: float
) -> None:
    plain = training_batches(_cached(root, None))
    training_batches(_cached(root, tmp_path / "cache"))
    path = tmp_path / "cache" / name
    os.truncate(path, int(path.stat().st_size / 9 * kept))
    reads.clear()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache")))
    assert len(reads) == 9 - int(kept)
    assert (tmp_path / "cache" / "48x64.pixels").stat().st_size == 9 * SLOT


def test_damage_while_training_costs_time_and_no_pixel(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = training_batches(_cached(root, None))
    data = _cached(root, tmp_path / "cache")
    data.setup("fit")
    with (tmp_path / "cache" / "48x64.pixels").open("r+b") as stream:
        stream.write(b"rot")
        stream.truncate(6 * SLOT + 5)
    assert _same(plain, list(data.train_dataloader()))
    assert "is damaged" in caplog.text


def test_a_killed_fill_is_taken_up(
    root: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(source: Source) -> ImageArray:
        if len(reads) == 5:
            raise KeyboardInterrupt
        return spy(source)

    spy: Callable[[Source], ImageArray] = vars(cache_fill)["stored_image"]
    monkeypatch.setattr(cache_fill, "stored_image", deadly)
    with pytest.raises(KeyboardInterrupt):
        _cached(root, tmp_path / "cache").setup("fit")
    with (tmp_path / "cache" / "48x64.pixels").open("ab") as stream:
        stream.write(b"half of a slot")
    monkeypatch.setattr(cache_fill, "stored_image", spy)
    reads.clear()
    plain = training_batches(_cached(root, None))
    reads.clear()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache")))
    assert len(reads) == 4


def _fill(root: Path, cache: Path) -> None:
    _cached(root, cache).setup("fit")


def test_two_processes_fill_a_folder_once(root: Path, tmp_path: Path, reads: list[str]) -> None:
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_fill, args=(root, tmp_path / "cache")) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    plain = training_batches(_cached(root, None))
    reads.clear()
    assert _same(plain, training_batches(_cached(root, tmp_path / "cache")))
    assert not reads
    assert (tmp_path / "cache" / "48x64.pixels").stat().st_size == 9 * SLOT


def test_a_folder_that_cannot_be_written_is_an_error_only_if_something_is_missing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache=.*cannot be written"):
        _cached(root, tmp_path / "file").setup("fit")
    _cached(root, tmp_path / "cache").setup("fit")
    monkeypatch.setattr(PixelStore, "appending", None)
    _cached(root, tmp_path / "cache").setup("fit")


def test_a_full_disk_is_told_before_anything_is_decoded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=8 * SLOT)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="9 images need"):
        _cached(root, tmp_path / "cache").setup("fit")
    assert not reads


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"input": NetworkInput("native", SIZE)}, "input.mode=native"),
        ({"input": NetworkInput("resize", SIZE, (90,))}, "input.error_levels"),
        ({"augmentation": Augmentation(min_scale=0.5)}, "augmentation.min_scale"),
        ({"augmentation": Augmentation(jpeg=0.1)}, "augmentation.jpeg"),
        ({"augmentation": Augmentation(blur=0.1)}, "augmentation.blur"),
        ({"augmentation": Augmentation(noise=0.1)}, "augmentation.noise"),
    ],
)
def test_what_needs_stored_pixels_is_refused_by_name(
    data_root: Path, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    with pytest.raises(UserError, match=name):
        _cached(data_root, tmp_path / "cache", **settings).setup("fit")
    assert not (tmp_path / "cache").exists()
