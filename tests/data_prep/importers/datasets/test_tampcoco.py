from pathlib import Path

from tests.helpers.imports import imported


def test_tampcoco_takes_bcmc_masks_from_bcm_and_lists_empty_files(tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, "tampcoco")
    again = next(sample for sample in manifest.samples if "bcmc" in sample.id)
    assert again.mask == "bcm_masks/81_000000256513.png_000000256513.png_RT4.7_RS0.85.png"
    assert list(rejected.values()) == ["empty"]
