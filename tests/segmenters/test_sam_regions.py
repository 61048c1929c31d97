import json
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator

from boxpromptiml.errors import UserError
from boxpromptiml.records import ImageArray, Segmenter
from boxpromptiml.segmenters.sam_regions import SamSegmenter
from tests.helpers.tiny_sam import tiny_sam

LENIENT: dict[str, Any] = {
    "points_per_side": 3,
    "min_iou": -10.0,
    "min_stability": 0.0,
}  # random weights


def an_image(size: tuple[int, int], seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def metas_masks(image: ImageArray) -> list[np.ndarray]:
    generator = SamAutomaticMaskGenerator(
        tiny_sam().eval(), points_per_side=3, pred_iou_thresh=-10.0, stability_score_thresh=0.0
    )
    return [answer["segmentation"] for answer in generator.generate(image)]


@pytest.fixture
def overlapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks of random weights all have the box of the image: let none displace another."""
    monkeypatch.setattr(
        "segment_anything.automatic_mask_generator.batched_nms",
        lambda boxes, *_, **__: torch.arange(len(boxes)),
    )


@pytest.mark.usefixtures("overlapping")
@pytest.mark.parametrize("size", [(48, 70), (128, 100)])
def test_equals_metas_generator(size: tuple[int, int]) -> None:
    image = an_image(size)
    masks = metas_masks(image)
    labels = SamSegmenter(tiny_sam(), "tiny", "0" * 64, **LENIENT).regions(image)
    assert labels.dtype == np.int32
    assert labels.shape == size
    np.testing.assert_array_equal(labels > 0, np.logical_or.reduce(masks))
    visible, free = [], np.ones(size, dtype=bool)
    largest_first = sorted(masks, key=np.sum, reverse=True)
    for mask in reversed(largest_first):  # the smallest is on top
        visible.append(mask & free)
        free &= ~mask
    visible = [mask for mask in visible if mask.any()]
    assert labels.max() == len(visible) >= 3
    for mask in visible:
        (number,) = np.unique(labels[mask])
        assert (labels == number).sum() == mask.sum()


def test_near_duplicates_are_dropped_as_by_meta() -> None:
    image = an_image((48, 70))
    (mask,) = metas_masks(image)
    labels = SamSegmenter(tiny_sam(), "tiny", "", **LENIENT).regions(image)
    np.testing.assert_array_equal(labels, mask)


@pytest.mark.usefixtures("overlapping")
def test_large_images_are_made_at_sams_size() -> None:
    image = an_image((64, 128))
    tested: Segmenter = SamSegmenter(tiny_sam(), "tiny", "", **LENIENT)
    large = image.repeat(3, axis=0).repeat(3, axis=1)
    expected = tested.regions(image).repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(tested.regions(large), expected)
    assert expected.max() >= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (300, 1), (3, 500)])
def test_thin_images(size: tuple[int, int]) -> None:
    labels = SamSegmenter(tiny_sam(), "tiny", "", **LENIENT).regions(an_image(size))
    assert labels.shape == size
    assert labels.dtype == np.int32


def test_nothing_found_is_no_region() -> None:
    strict = SamSegmenter(tiny_sam(), "tiny", "", points_per_side=2, min_iou=1e6)
    labels = strict.regions(an_image((40, 50)))
    assert labels.shape == (40, 50)
    assert not labels.any()


def test_frozen_and_repeatable() -> None:
    network = tiny_sam().train()
    tested = SamSegmenter(network, "tiny", "", **LENIENT)
    assert not network.training
    assert not any(values.requires_grad for values in network.parameters())
    image = an_image((40, 50))
    first = tested.regions(image)
    tested.regions(an_image((70, 20), 1))
    np.testing.assert_array_equal(first, tested.regions(image))


def test_settings_tell_what_changes_an_answer() -> None:
    def signed(sha256: str = "ab", **changed: Any) -> str:
        return json.dumps(SamSegmenter(tiny_sam(), "tiny", sha256, **changed).settings)

    variants = [
        signed(),
        signed("cd"),
        signed(points_per_side=5),
        signed(min_iou=0.5),
        signed(min_stability=0.5),
    ]
    assert len(set(variants)) == len(variants)
    assert '"segment-anything": "1.0"' in signed()


def test_an_unknown_device() -> None:
    with pytest.raises(UserError, match="unknown"):
        SamSegmenter(tiny_sam(), "tiny", "", device="gpu")
