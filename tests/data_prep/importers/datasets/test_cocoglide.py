from pathlib import Path

from tests.helpers.imports import by_id, imported


def test_cocoglide_joins_by_id_whatever_the_class_is_called(tmp_path: Path) -> None:
    samples = by_id(imported(tmp_path, "cocoglide")[0])
    assert samples["fake/114871"].mask == "mask/dining table_114871_mask.png"
    assert samples["fake/114871"].group == samples["real/114871"].group == "coco/114871"
