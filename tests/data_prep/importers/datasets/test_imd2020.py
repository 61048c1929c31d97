from pathlib import Path

from tests.helpers.imports import by_id, imported


def test_imd2020_takes_neither_masks_nor_originals_for_forgeries(tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, "imd2020")
    samples = by_id(manifest)
    assert {key for key, sample in samples.items() if sample.label} == {
        "1a1ogs/c8tf5mq_0",
        "1a1ogs/c97qv4m_0",
        "z28/00065_fake",
    }
    assert samples["1a1ogs/1a1ogs_orig"].group == samples["1a1ogs/c8tf5mq_0"].group
    assert list(rejected) == ["z14/00030_fake_mask.png"]
