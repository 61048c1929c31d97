"""Degraded images in evaluation, and nowhere else."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.dataset import EvalDataset
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.manifests.sources import read_sources
from boxpromptiml.models.inputs import NetworkInput, whole_image
from boxpromptiml.records import Segmenter
from boxpromptiml.segmenters.superpixels import SlicSegmenter
from boxpromptiml.synth.degradation import Degradation, expand

INPUT = NetworkInput("resize", (32, 48), error_levels=(90,))


def dataset(
    root: Path,
    degradation: Degradation,
    seed: int = 0,
    segmenter: Segmenter | None = None,
    network_input: NetworkInput = INPUT,
) -> EvalDataset:
    sources = read_sources([root / "test.jsonl"], "test")
    return EvalDataset(sources, network_input, True, segmenter, degradation, seed)


@pytest.mark.parametrize("degradation", expand(["quick"]), ids=str)
def test_images_are_degraded_before_the_networks_own_resize(
    data_root: Path, degradation: Degradation
) -> None:
    data = dataset(data_root, degradation, seed=3)
    plain = dataset(data_root, Degradation())
    for place, source in enumerate(data.sources):
        item = data[place]
        image, _ = images.read_image(source.manifest.image_path(source.sample))
        expected = whole_image(degradation(image, 3, source.sample.id), INPUT)
        np.testing.assert_array_equal(item.image, expected)
        assert item.size == (64, 96)
        torch.testing.assert_close(item.truth, plain[place].truth, rtol=0, atol=0)


def test_noise_does_not_depend_on_order_workers_or_batch(data_root: Path) -> None:
    def batches(workers: int, size: int) -> dict[str, torch.Tensor]:
        data = LocalizationData(
            test=[data_root / "test.jsonl"],
            input=INPUT,
            degrade=Degradation("noise", 9),
            num_workers=workers,
            eval_batch_size=size,
            seed=1,
        )
        data.setup("test")
        return {
            name: image
            for batch in data.test_dataloader()
            for name, image in zip(batch["id"], batch["image"], strict=True)
        }

    one, other = batches(0, 6), batches(2, 1)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    backwards = dataset(data_root, Degradation("noise", 9), seed=1)
    for place in reversed(range(len(backwards))):
        assert torch.equal(backwards[place].image, one[backwards[place].id])


@pytest.mark.parametrize("factor", [0.5, 1.5, 0.37])
def test_regions_come_back_to_the_stored_size_by_the_nearest_pixel(
    data_root: Path, factor: float
) -> None:
    segmenter = SlicSegmenter(segments=20)
    data = dataset(data_root, Degradation("rescale", factor), segmenter=segmenter)
    item, source = data[0], data.sources[0]
    image, _ = images.read_image(source.manifest.image_path(source.sample))
    found = segmenter.regions(Degradation("rescale", factor)(image, 0, ""))
    assert item.regions is not None
    assert item.regions.shape == (64, 96)
    assert item.regions.dtype == torch.int32
    # OpenCV's exact variant takes the pixel under the centre, but knows no 32-bit integers.
    expected = cv2.resize(found.astype(np.uint8), (96, 64), interpolation=cv2.INTER_NEAREST_EXACT)
    same = (item.regions.numpy() == expected).mean()
    assert same > 0.97  # they differ where a centre lies on an edge
    assert set(np.unique(item.regions)) == set(np.unique(found))


def test_native_maps_have_the_stored_size_though_the_input_is_smaller(data_root: Path) -> None:
    native = NetworkInput("native", (64, 64))
    item = dataset(data_root, Degradation("rescale", 0.5), network_input=native)[0]
    assert item.image.shape == (3, 32, 48)
    assert item.size == (64, 96)


def test_a_changed_file_is_found_before_it_is_degraded(data_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data_root, tmp_path / "data")
    data = dataset(root, Degradation("jpeg", 50))
    path = data.sources[0].manifest.image_path(data.sources[0].sample)
    images.write_jpeg(path, np.zeros((64, 96, 3), np.uint8), 90)
    with pytest.raises(RejectedInput, match="SHA-256"):
        data[0]


def test_training_is_refused_with_degraded_images(data_root: Path) -> None:
    data = LocalizationData(
        train=[data_root / "train.jsonl"],
        val=[data_root / "val.jsonl"],
        supervision="mask",
        degrade=Degradation("blur", 5),
    )
    with pytest.raises(UserError, match=r"data\.degrade=blur:5"):
        data.setup("fit")
    data.setup("validate")
