from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from tests.helpers.data import mask_file
from tests.helpers.imports import by_id, imported


def test_korus_counts_collateral_and_tells_cameras_apart(tmp_path: Path) -> None:
    manifest, _ = imported(tmp_path, "korus")
    samples = by_id(manifest)
    canon, nikon = (
        samples[f"{camera}/tampered-realistic/DPP0012"] for camera in ("Canon_60D", "Nikon_D7000")
    )
    assert canon.group == samples["Canon_60D/pristine/DPP0012"].group != nikon.group
    levels = images.read_image(mask_file(manifest, canon))[0]
    assert set(np.unique(levels)) == {0, 127, 255}
    read = images.read_mask(mask_file(manifest, canon), canon.mask_threshold)
    assert np.array_equal(read, levels[..., 0] > 0)
    strict, _ = imported(tmp_path, "korus", "--mask_threshold", "200")
    assert {sample.mask_threshold for sample in strict.samples if sample.mask} == {200}
