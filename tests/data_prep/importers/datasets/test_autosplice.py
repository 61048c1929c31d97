from pathlib import Path

from tests.helpers.imports import by_id, imported


def test_autosplice_forgeries_share_the_mask_of_their_photograph(tmp_path: Path) -> None:
    samples = by_id(imported(tmp_path, "autosplice")[0])
    shared = {samples[f"Forged_JPEG{q}/1001_{n}"].mask for q in (100, 75) for n in (0, 1)}
    assert shared == {"Mask/1001_mask.png"}
    assert samples["Authentic/1001"].group == samples["Forged_JPEG75/1001_1"].group
