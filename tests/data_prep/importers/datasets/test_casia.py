from pathlib import Path

import pytest

from data_prep.importers.datasets.casia import names_of_masks
from tests.helpers.imports import by_id, imported
from tests.helpers.trees import TREES, mask, photo, region


def test_casia_v1_leaves_out_the_image_without_a_mask_and_says_so(tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, "casia_v1")
    samples = by_id(manifest)
    assert "Sp_D_NRN_A_cha0011_sec0011_0542" not in samples
    assert "Sp_D_NRN_A_sec0011_cha0011_0542" in samples  # same number, another image
    assert "Sp_D_NRN_A_cha0011_sec0011_0542" in manifest.header.notes["corrections"][0]
    assert list(rejected.values()) == ["size_mismatch"]
    assert samples["Sp_S_NND_A_nat0054_nat0054_0189"].kind == "copymove"
    assert samples["Sp_D_CNN_A_art0024_ani0032_0268"].kind == "splice"
    assert all(sample.mask_threshold == 127 for sample in manifest.samples if sample.mask)


def test_casia_groups_keep_sources_together(tmp_path: Path) -> None:
    samples = by_id(imported(tmp_path, "casia_v2")[0])
    group = {key: sample.group for key, sample in samples.items()}
    splice, second = (
        "Tp_D_CND_M_N_ani00018_sec00096_00138",
        "Tp_D_NRN_S_N_sec00096_cha00003_00472",
    )
    assert group[splice] == group["Au_ani_00018"]
    assert group[splice] == group[second] == group["Tp_S_CNN_S_N_cha0003_cha00003_00323"]
    assert group["Au_pla_30029"] != group[splice]
    strangers = {group[key] for key in group if "xxx00000" in key}  # no photograph of that name
    assert len(strangers) == 2


def test_casia_v2_repairs_names_and_records_it(tmp_path: Path) -> None:
    manifest, rejected = imported(tmp_path, "casia_v2")
    samples = by_id(manifest)
    assert str(samples["Tp_D_NRD_S_N_cha10002_cha10001_20094"].mask).endswith("20094_gt3.png")
    renamed = samples["Tp_D_NNN_S_N_nat00024_nat00024_11039"]
    assert str(renamed.mask).endswith("Tp_S_NNN_S_N_nat00024_nat00024_11039_gt.png")
    assert renamed.kind == "copymove"  # what the corrected name says
    corrections = " ".join(manifest.header.notes["corrections"])
    assert "20094_gt3.png" in corrections
    assert "11039" in corrections
    assert sorted(rejected.values()) == ["no_image", "no_mask", "size_mismatch"]


@pytest.mark.parametrize("folder", ["Gt", "groundtruth", "GroundTruth"])
def test_casia_v2_masks_lie_in_folders_of_several_names(tmp_path: Path, folder: str) -> None:
    source = tmp_path / "raw" / "casia_v2"
    TREES["casia_v2"](source)
    (source / "CASIA 2 Groundtruth").rename(source / folder)
    assert sum(sample.label == 1 for sample in imported(tmp_path, "casia_v2")[0].samples) == 7


def test_casia_v2_does_not_join_by_a_number_that_is_there_twice(tmp_path: Path) -> None:
    tp, gt = tmp_path / "raw" / "casia_v2" / "Tp", tmp_path / "raw" / "casia_v2" / "Gt"
    for stem in ("Tp_D_NNN_S_N_a00001_b00002_00007", "Tp_S_NNN_S_N_c00001_c00001_00007"):
        photo(tp / f"{stem}.jpg", region(stem))
    mask(gt / "Tp_S_NNN_S_N_x00001_x00001_00007_gt.png", region("x"))
    photo(tp.parent / "Au" / "Au_ani_00001.jpg")
    manifest, rejected = imported(tmp_path, "casia_v2")
    assert [sample.label for sample in manifest.samples] == [0]
    assert sorted(rejected.values()) == ["no_image", "no_mask", "no_mask"]


def test_casia_v2_joins_by_number_only_with_a_shared_source(tmp_path: Path) -> None:
    tp, gt = tmp_path / "raw" / "casia_v2" / "Tp", tmp_path / "raw" / "casia_v2" / "Gt"
    stranger, joined = (
        "Tp_D_NNN_S_N_ani00001_ani00002_00007",
        "Tp_D_NNN_S_N_ind00001_art00002_00008",
    )
    for stem in (stranger, joined):
        photo(tp / f"{stem}.jpg", region(stem))
    mask(gt / "Tp_D_NNN_S_N_xxx00000_arc00006_00007_gt.png", region("x"))
    mask(gt / "Tp_D_NNN_S_N_ind00001_nat00003_00008_gt.png", region(joined))
    for name in ("Au_art_00002", "Au_nat_00003", "Au_ani_00001"):
        photo(tp.parent / "Au" / f"{name}.jpg")
    manifest, rejected = imported(tmp_path, "casia_v2")
    samples = by_id(manifest)
    assert sorted(rejected.values()) == ["no_image", "no_mask"]
    assert stranger not in samples
    assert samples[joined].group == samples["Au_art_00002"].group == samples["Au_nat_00003"].group
    assert samples[joined].group != samples["Au_ani_00001"].group


def test_casia_v1_as_its_archive_lies(tmp_path: Path) -> None:
    """Flat `Sp/` and old names; one number four times, and a name that says the wrong kind."""
    root = tmp_path / "raw" / "casia_v1"
    masks = {  # image: folder and name of its mask
        "Sp_S_NNN_A_nat0001_nat0001_0007": ("CM", "Sp_S_NNN_A_nat0001_nat0001_0007"),
        "Sp_S_NNN_C_txt0002_txt0002_0007": ("CM", "Sp_S_NNN_C_txt0002_txt0002_0007"),
        "Sp_S_NNN_R_txt0003_txt0003_0007": ("CM", "Sp_S_NNN_R_txt0003_txt0003_0007"),
        "Sp_D_NNN_A_cha0052_cha0052_0007": ("CM", "Sp_S_NNN_A_cha0052_cha0052_0007"),
        "Sp_D_NRN_A_ani0010_sec0042_0408": ("Sp", "Sp_D_NRN_A_sec0042_ani0010_0408"),
        "Sp_S_NRD_A_ani0040_ani0054.0257": ("Sp", "Sp_D_NRD_A_ani0040_ani0054_0257"),
    }
    for image, (folder, name) in masks.items():
        photo(root / "Sp" / f"{image}.jpg", region(image))
        mask(root / "CASIA 1.0 groundtruth" / folder / f"{name}_gt.png", region(image))
    photo(root / "Sp" / "Sp_D_NRN_A_sce0011_cha0011_0542.jpg", region("x"))  # never had a mask
    photo(root / "Au" / "Au_sec_0042.jpg")
    manifest, rejected = imported(tmp_path, "casia_v1")
    samples = by_id(manifest)
    assert rejected == {}
    assert len(samples) == len(masks) + 1
    for image, (folder, name) in masks.items():
        assert samples[image].mask == f"CASIA 1.0 groundtruth/{folder}/{name}_gt.png"
        assert samples[image].kind == {"CM": "copymove", "Sp": "splice"}[folder]
    assert samples["Sp_D_NRN_A_ani0010_sec0042_0408"].group == samples["Au_sec_0042"].group
    assert len(manifest.header.notes["corrections"]) == 4


def test_a_number_alone_joins_nothing() -> None:
    """Neither where it is left over twice nor where no photograph is shared."""
    images = ["Sp_D_NNN_A_ani0001_ani0002_0001", "Sp_D_NNN_A_ani0003_ani0004_0001"]
    assert names_of_masks(images, ["Sp_D_NNN_A_ani0001_ani0009_0001"]) == {}
    assert names_of_masks(images[:1], ["Sp_D_NNN_A_pla0001_pla0002_0001"]) == {}
    assert names_of_masks(images[:1], ["Sp_D_NNN_A_ani0002_pla0002_0001"]) == {
        images[0]: "Sp_D_NNN_A_ani0002_pla0002_0001"
    }
