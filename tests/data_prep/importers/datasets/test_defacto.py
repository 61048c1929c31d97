from pathlib import Path

from tests.helpers.imports import by_id, imported


def test_defacto_numbers_every_part_anew(tmp_path: Path) -> None:
    samples = by_id(imported(tmp_path, "defacto")[0])
    first, second = (samples[f"splicing_{part}/0_000000195755"] for part in (1, 2))
    assert (first.mask, second.mask) == tuple(
        f"splicing_{part}_annotations/probe_mask/0_000000195755.jpg" for part in (1, 2)
    )
    authentic = samples["authentic/COCO_train2014_000000195755"]
    assert first.group == second.group == authentic.group == "coco/195755"
    kinds = [samples[key].kind for key in ("copymove/9_000000581177", "inpainting/0_000000000260")]
    assert kinds == ["copymove", "removal"]
    assert first.mask_threshold == 127
