"""benchmarks/degraded_masks.py."""

import numpy as np
import pytest

from benchmarks.degraded_masks import degraded, iou


@pytest.mark.parametrize("shift", [2, 12])
def test_a_degraded_mask_has_area_and_iou_of_the_pseudo_mask(shift: int) -> None:
    truth, pseudo, inside = (np.zeros((96, 128), dtype=bool) for _ in range(3))
    truth[30:60, 40:80] = True
    pseudo[30:62, 40 + shift : 80 + shift] = True
    inside[20:70, 30:100] = True
    mask = degraded(truth, pseudo, inside, np.random.default_rng(0))
    assert mask.sum() == pseudo.sum()
    assert iou(mask, truth) == pytest.approx(iou(pseudo, truth), abs=0.01)
    assert not (mask & ~inside).any()
    assert iou(mask, pseudo) < 0.95
