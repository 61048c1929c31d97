from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_fill_holes, label

from boxpromptiml.records import Box, MaskArray
from data_prep.annotations.parts import edge_polygon, full_rle, split_parts
from data_prep.forgery.outlines import _fill

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def _placed(box: Box, part: MaskArray, size: tuple[int, ...]) -> MaskArray:
    x0, y0, x1, y1 = (int(side) for side in box)
    full = np.zeros(size, np.bool_)
    full[y0:y1, x0:x1] = part
    return full


@settings(max_examples=60)
@given(mask=masks)
def test_parts_make_up_the_mask_and_touch_their_boxes(mask: Any) -> None:
    parts = split_parts(mask)
    union = np.zeros(mask.shape, np.int64)
    for box, part in parts:
        union += _placed(box, part, mask.shape)
        assert all(side.any() for side in (part[0], part[-1], part[:, 0], part[:, -1]))
    assert (union == mask).all()
    assert len(parts) == label(mask, np.ones((3, 3)))[1]


@settings(max_examples=60)
@given(mask=masks)
def test_pycocotools_reads_every_part_at_its_place(mask: Any) -> None:
    for box, part in split_parts(mask):
        rle = {"size": list(mask.shape), "counts": full_rle(box, part, mask.shape)}
        assert (coco_mask.decode(rle) == _placed(box, part, mask.shape)).all()
        assert coco_mask.toBbox(rle).tolist() == [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]


@settings(max_examples=120)
@given(mask=masks)
def test_polygons_enclose_the_pixels_of_a_part_and_its_gaps(mask: Any) -> None:
    for box, part in split_parts(mask):
        polygon = edge_polygon(box, part)
        drawn = np.zeros(mask.shape, np.bool_)
        _fill(drawn, polygon)
        assert (drawn == binary_fill_holes(_placed(box, part, mask.shape))).all()
        assert (*polygon.min(axis=0), *polygon.max(axis=0)) == tuple(box)


def test_a_straight_edge_has_no_corner_between() -> None:
    ((box, part),) = split_parts(np.ones((30, 40), np.bool_))
    assert sorted(edge_polygon(box, part).tolist()) == [[0, 0], [0, 30], [40, 0], [40, 30]]


@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
def test_an_empty_mask_has_no_parts(size: tuple[int, int]) -> None:
    assert split_parts(np.zeros(size, np.bool_)) == []
