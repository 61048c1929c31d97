from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from tests.helpers.imports import by_id, imported
from tests.helpers.trees import region

TWO, ONE = "Sp_D_ani_00010_cha_00065_nat_00093_146", "Sp_D_ani_00010_art_00002_147"


def test_masks_of_the_objects_are_united(tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, "misd")
    samples = by_id(manifest)
    path = manifest.mask_path(samples[TWO])
    assert path is not None
    assert path.resolve().is_relative_to(tmp_path / "out" / "misd.masks")
    united = region(f"{TWO}0") | region(f"{TWO}1")
    assert np.array_equal(images.read_mask(path, samples[TWO].mask_threshold), united)
    assert str(samples[ONE].mask).endswith(f"{ONE}/masks/{ONE}_0.png")  # as it lies
    assert list(rejected.values()) == ["size_mismatch"]
    assert next(iter(rejected)).endswith("148/masks/Sp_D_sec_00001_sec_00002_148_1.png")


def test_images_of_one_photograph_are_one_group(tmp_path: Path) -> None:
    samples = by_id(imported(tmp_path, "misd")[0])
    assert samples[TWO].group == samples[ONE].group == samples["Au_ani_00010"].group
    assert samples["Au_pla_00001"].group != samples[ONE].group
