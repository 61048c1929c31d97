"""Public datasets in miniature, imported.

`PYTHONPATH=. python tests/data_prep/test_importers.py` writes golden/ anew; look at the difference.
"""

import json
import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from data_prep import import_dataset
from data_prep.__main__ import main
from data_prep.importers.layout import connected
from tests.helpers.data import make_folder
from tests.helpers.trees import TREES, mask, nist16, photo, region

GOLDEN = Path(__file__).parent / "golden"


def run(dataset: str, source: Path, out: Path, *more: str) -> int:
    return main(["import", "--dataset", dataset, "--source", str(source), "--out", str(out), *more])


def errors(out: Path) -> dict[str, str]:
    """Reason by path of the file beside a manifest."""
    path = out.with_name(f"{out.stem}.errors.jsonl")
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    assert len({row["path"] for row in rows}) == len(rows)  # each once
    return {row["path"]: row["reason"] for row in rows}


def imported(root: Path, dataset: str, *more: str) -> tuple[Manifest, dict[str, str]]:
    """The dataset of trees.py, imported; rejections by path below the source."""
    source, out = root / "raw" / dataset, root / "out" / f"{dataset}.jsonl"
    if not source.exists():
        TREES[dataset](source)
    status = run(dataset, source, out, *more)
    rejected = {path.removeprefix(f"{source}/"): why for path, why in errors(out).items()}
    assert status == (3 if rejected else 0)
    return read_manifest(out), rejected


def by_id(manifest: Manifest) -> dict[str, str]:
    return {sample.id.partition("/")[2]: sample for sample in manifest.samples}


def golden_text(root: Path, dataset: str) -> str:
    """Header, samples and rejections, but for hashes, which depend on the encoder's version."""
    manifest, rejected = imported(root, dataset)
    lines = []
    for line in manifest.path.read_text().splitlines():
        row = json.loads(line)
        row.pop("image_sha256", None)
        lines.append(json.dumps(row, ensure_ascii=False))
    lines += [json.dumps({path: reason}, ensure_ascii=False) for path, reason in rejected.items()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("dataset", TREES)
def test_the_manifest_is_the_golden_one(dataset, tmp_path):
    assert golden_text(tmp_path, dataset) == (GOLDEN / f"{dataset}.jsonl").read_text()


@pytest.mark.parametrize("dataset", TREES)
def test_every_mask_lies_on_its_own_image(dataset, tmp_path):
    """Wrong pairs, wrong polarity and wrong thresholds all show here."""
    manifest, _ = imported(tmp_path, dataset)
    seen = 0
    for sample in manifest.samples:
        pixels, info = images.read_image(manifest.image_path(sample))
        assert info.sha256 == sample.image_sha256
        assert (sample.boxes == ()) == (sample.label == 0)
        bright = pixels[..., 0] > 130
        assert bright.any() == bool(sample.label)
        if sample.mask is None:
            assert sample.label == 0
            continue
        truth = images.read_mask(manifest.mask_path(sample), sample.mask_threshold)
        assert (truth != bright).sum() <= 4
        seen += 1
    assert seen == sum(sample.label for sample in manifest.samples) > 1


@pytest.mark.parametrize("dataset", TREES)
def test_verify_finds_nothing_more_in_sound_data(dataset, tmp_path):
    manifest, rejected = imported(tmp_path, dataset)
    verified, again = imported(tmp_path, dataset, "--verify", "true")
    assert (verified.samples, again) == (manifest.samples, rejected)
    assert verified.header.notes["verified"] is True


@pytest.mark.parametrize("dataset", TREES)
def test_a_zip_gives_the_same_samples_as_its_folder(dataset, tmp_path):
    manifest, rejected = imported(tmp_path, dataset)
    source, archive = tmp_path / "raw" / dataset, tmp_path / "raw" / f"{dataset}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("__MACOSX/._x.jpg", b"what a Mac adds")
        for path in sorted(source.rglob("*")):
            stream.write(path, path.relative_to(source))
    out = tmp_path / "zip" / "m.jsonl"
    assert run(dataset, archive, out) == (3 if rejected else 0)
    unzipped = read_manifest(out)
    assert {path.removeprefix(f"{archive}/"): w for path, w in errors(out).items()} == rejected
    for left, right in zip(manifest.samples, unzipped.samples, strict=True):
        assert (left.id, left.group, left.kind, left.label) == (
            right.id, right.group, right.kind, right.label,
        )  # fmt: skip
        assert left.image_sha256 == right.image_sha256
        if left.mask:
            masks = [
                images.read_mask(m.mask_path(s), s.mask_threshold)
                for m, s in ((manifest, left), (unzipped, right))
            ]
            assert np.array_equal(*masks)
    used = {unzipped.image_path(sample).resolve() for sample in unzipped.samples}
    written = set((tmp_path / "zip" / "m.files" / "images").rglob("*.*"))
    assert used <= written
    assert len(written - used) <= len(rejected)  # nothing but what a layout asked for
    assert not list((tmp_path / "zip").rglob("*.tmp"))


def test_the_command_knows_every_dataset():
    names = set(import_dataset.PUBLIC) | {"folder", "pairs"}
    assert set(get_args(import_dataset.DatasetName)) == names
    assert set(TREES) == set(import_dataset.PUBLIC)


# Traps of the single datasets


def test_casia_v1_leaves_out_the_image_without_a_mask_and_says_so(tmp_path):
    manifest, rejected = imported(tmp_path, "casia_v1")
    samples = by_id(manifest)
    assert "Sp_D_NRN_A_cha0011_sec0011_0542" not in samples
    assert "Sp_D_NRN_A_sec0011_cha0011_0542" in samples  # same number, another image
    assert "Sp_D_NRN_A_cha0011_sec0011_0542" in manifest.header.notes["corrections"][0]
    assert list(rejected.values()) == ["size_mismatch"]
    assert samples["Sp_S_NND_A_nat0054_nat0054_0189"].kind == "copymove"
    assert samples["Sp_D_CNN_A_art0024_ani0032_0268"].kind == "splice"
    assert all(sample.mask_threshold == 127 for sample in manifest.samples if sample.mask)


def test_casia_groups_keep_sources_together(tmp_path):
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


def test_casia_v2_repairs_names_and_records_it(tmp_path):
    manifest, rejected = imported(tmp_path, "casia_v2")
    samples = by_id(manifest)
    assert samples["Tp_D_NRD_S_N_cha10002_cha10001_20094"].mask.endswith("20094_gt3.png")
    renamed = samples["Tp_D_NNN_S_N_nat00024_nat00024_11039"]
    assert renamed.mask.endswith("Tp_S_NNN_S_N_nat00024_nat00024_11039_gt.png")
    assert renamed.kind == "copymove"  # what the corrected name says
    corrections = " ".join(manifest.header.notes["corrections"])
    assert "20094_gt3.png" in corrections
    assert "11039" in corrections
    assert sorted(rejected.values()) == ["no_image", "no_mask", "size_mismatch"]


@pytest.mark.parametrize("folder", ["Gt", "groundtruth", "GroundTruth"])
def test_casia_v2_masks_lie_in_folders_of_several_names(tmp_path, folder):
    source = tmp_path / "raw" / "casia_v2"
    TREES["casia_v2"](source)
    (source / "CASIA 2 Groundtruth").rename(source / folder)
    assert sum(sample.label for sample in imported(tmp_path, "casia_v2")[0].samples) == 7


def test_casia_v2_does_not_join_by_a_number_that_is_there_twice(tmp_path):
    tp, gt = tmp_path / "raw" / "casia_v2" / "Tp", tmp_path / "raw" / "casia_v2" / "Gt"
    for stem in ("Tp_D_NNN_S_N_a00001_b00002_00007", "Tp_S_NNN_S_N_c00001_c00001_00007"):
        photo(tp / f"{stem}.jpg", region(stem))
    mask(gt / "Tp_S_NNN_S_N_x00001_x00001_00007_gt.png", region("x"))
    photo(tp.parent / "Au" / "Au_ani_00001.jpg")
    manifest, rejected = imported(tmp_path, "casia_v2")
    assert [sample.label for sample in manifest.samples] == [0]
    assert sorted(rejected.values()) == ["no_image", "no_mask", "no_mask"]


def test_casia_v2_joins_by_number_only_with_a_shared_source(tmp_path):
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


def test_a_missing_mask_shifts_nothing(tmp_path):
    """Pairing by sorted order would give every later image its neighbour's mask."""
    before, _ = imported(tmp_path, "coverage")
    (tmp_path / "raw" / "coverage" / "mask" / "1forged.tif").unlink()
    after, rejected = imported(tmp_path, "coverage")
    assert rejected["image/1t.tif"] == "no_mask"
    assert set(after.samples) == {s for s in before.samples if s.id != "coverage/1t"}


def test_columbia_reads_green_above_red_through_jpeg_noise(tmp_path):
    manifest, _ = imported(tmp_path, "columbia")
    for sample in manifest.samples:
        if sample.label:
            assert sample.mask_threshold is None
            written = images.read_mask(manifest.mask_path(sample))
            assert np.array_equal(written, region(Path(sample.image).stem))
    edge = next((tmp_path / "raw").rglob("*_edgemask.jpg"))
    red = images.read_image(edge)[0][..., 0]
    assert ((red > 0) & (red < 190)).any()  # the noise is there


def test_known_bad_sizes_say_where_the_right_ones_are(tmp_path):
    for dataset in ("casia_v2", "coverage", "imd2020"):
        imported(tmp_path, dataset)
        text = (tmp_path / "out" / f"{dataset}.errors.jsonl").read_text()
        assert "github.com/SunnyHaze" in text
    assert len(import_dataset.PUBLIC["casia_v2"].known) == 17
    assert len(import_dataset.PUBLIC["coverage"].known) == 9


@pytest.mark.parametrize("delimiter", [",", "|"])
def test_nist16_reads_either_table(tmp_path, delimiter):
    nist16(tmp_path / "raw" / "nist16", delimiter)
    manifest, rejected = imported(tmp_path, "nist16")
    samples = by_id(manifest)
    assert {key: sample.label for key, sample in samples.items()} == {
        "probe/NC2016_0313": 1,
        "probe/NC2016_1111": 0,
        "probe/NC2016_3333": 1,
        "probe/NC2016_7152": 1,
        "probe/NC2016_9415": 1,
    }
    assert list(rejected.items()) == [("NC2016_Test0601/probe/NC2016_2222.jpg", "missing")]
    assert samples["probe/NC2016_7152"].group == samples["probe/NC2016_9415"].group
    kinds = [samples[f"probe/NC2016_{number}"].kind for number in ("0313", "7152", "9415")]
    assert kinds == ["removal", "splice", None]  # both splice and copy-move: neither
    assert "from remove" in manifest.header.notes["corrections"][0]


def test_nist16_says_which_column_is_missing(tmp_path, capsys):
    table = tmp_path / "reference" / "manipulation" / "NC2016-manipulation-ref.csv"
    table.parent.mkdir(parents=True)
    table.write_text("TaskID|ProbeFileName\n")
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert "IsTarget" in capsys.readouterr().err
    table.write_text("x" * 200_000)
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert "is no table" in capsys.readouterr().err
    table.write_text(
        'TaskID,IsTarget,ProbeFileName,ProbeMaskFileName\n"a\0b,Y,../../x,/etc/passwd\n'
    )
    assert run("nist16", tmp_path, tmp_path / "m.jsonl") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_imd2020_takes_neither_masks_nor_originals_for_forgeries(tmp_path):
    manifest, rejected = imported(tmp_path, "imd2020")
    samples = by_id(manifest)
    assert {key for key, sample in samples.items() if sample.label} == {
        "1a1ogs/c8tf5mq_0",
        "1a1ogs/c97qv4m_0",
        "z28/00065_fake",
    }
    assert samples["1a1ogs/1a1ogs_orig"].group == samples["1a1ogs/c8tf5mq_0"].group
    assert list(rejected) == ["z14/00030_fake_mask.png"]


def test_cocoglide_joins_by_id_whatever_the_class_is_called(tmp_path):
    samples = by_id(imported(tmp_path, "cocoglide")[0])
    assert samples["fake/114871"].mask == "mask/dining table_114871_mask.png"
    assert samples["fake/114871"].group == samples["real/114871"].group == "coco/114871"


def test_korus_counts_collateral_and_tells_cameras_apart(tmp_path):
    manifest, _ = imported(tmp_path, "korus")
    samples = by_id(manifest)
    canon, nikon = (
        samples[f"{camera}/tampered-realistic/DPP0012"] for camera in ("Canon_60D", "Nikon_D7000")
    )
    assert canon.group == samples["Canon_60D/pristine/DPP0012"].group != nikon.group
    levels = images.read_image(manifest.mask_path(canon))[0]
    assert set(np.unique(levels)) == {0, 127, 255}
    read = images.read_mask(manifest.mask_path(canon), canon.mask_threshold)
    assert np.array_equal(read, levels[..., 0] > 0)
    strict, _ = imported(tmp_path, "korus", "--mask_threshold", "200")
    assert {sample.mask_threshold for sample in strict.samples if sample.mask} == {200}


@pytest.mark.parametrize("dataset", ["nist16", "dso1"])
def test_black_is_manipulated_and_converted(tmp_path, dataset):
    manifest, _ = imported(tmp_path, dataset)
    for sample in manifest.samples:
        if sample.label:
            mask_path = manifest.mask_path(sample).resolve()
            assert mask_path.is_relative_to(tmp_path / "out" / f"{dataset}.masks")
            assert images.read_mask(mask_path).mean() < 0.5


def test_a_threshold_for_converted_masks_is_refused(tmp_path, capsys):
    TREES["columbia"](tmp_path / "d")
    assert run("columbia", tmp_path / "d", tmp_path / "m.jsonl", "--mask_threshold", "9") == 1
    assert "green" in capsys.readouterr().err


def test_defacto_numbers_every_part_anew(tmp_path):
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


def test_tampcoco_takes_bcmc_masks_from_bcm_and_lists_empty_files(tmp_path):
    manifest, rejected = imported(tmp_path, "tampcoco")
    again = next(sample for sample in manifest.samples if "bcmc" in sample.id)
    assert again.mask == "bcm_masks/81_000000256513.png_000000256513.png_RT4.7_RS0.85.png"
    assert list(rejected.values()) == ["empty"]


def test_autosplice_forgeries_share_the_mask_of_their_photograph(tmp_path):
    samples = by_id(imported(tmp_path, "autosplice")[0])
    shared = {samples[f"Forged_JPEG{q}/1001_{n}"].mask for q in (100, 75) for n in (0, 1)}
    assert shared == {"Mask/1001_mask.png"}
    assert samples["Authentic/1001"].group == samples["Forged_JPEG75/1001_1"].group


# What holds for all


def test_unexpected_counts_are_warnings_with_both_numbers(tmp_path, capsys):
    manifest, _ = imported(tmp_path, "dso1")
    assert "2 manipulated images, 100 expected" in capsys.readouterr().err
    assert "2 authentic images, 100 expected" in manifest.header.notes["warnings"]
    assert manifest.header.notes["counts"] == {"authentic": 2, "manipulated": 2, "splice": 2}


def test_known_errors_are_no_unexpected_counts(tmp_path, monkeypatch):
    real = import_dataset.PUBLIC["coverage"]
    for manipulated, said in ((3, []), (4, ["2 manipulated images, 3 expected"])):
        expected = {"manipulated": manipulated, "authentic": 3, "copymove": 3}
        changed = replace(real, expected=expected)
        monkeypatch.setitem(import_dataset.PUBLIC, "coverage", changed)
        manifest, rejected = imported(tmp_path, "coverage")  # one of its masks is a known error
        assert list(rejected.values()) == ["size_mismatch"]
        assert manifest.header.notes["warnings"] == said


def test_an_entry_that_cannot_be_looked_at_does_not_lose_the_rest(tmp_path):
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    (source / "a").symlink_to(source / "b")
    (source / "b").symlink_to(source / "a")
    manifest, rejected = imported(tmp_path, "dso1")
    assert rejected == {"a": "not_a_file", "b": "not_a_file"}
    assert len(manifest.samples) == 4


def test_a_name_that_a_manifest_cannot_hold_does_not_lose_the_rest(tmp_path):
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    for folder in ("label_in_wild", "c:"):
        stem = f"{folder[0]}\\b"
        photo(source / folder / "images" / f"{stem}.jpg", region(stem))
        mask(source / folder / "masks" / f"{stem}.png", region(stem))
    photo(source / "c:" / "images" / "c.jpg", region("c"))
    mask(source / "c:" / "masks" / "c.png", region("c"))
    manifest, rejected = imported(tmp_path, "in_the_wild")
    assert len(manifest.samples) == 2
    assert rejected == dict.fromkeys(
        ["label_in_wild/images/l\\b.jpg", "c:/images/c\\b.jpg", "c:/images/c.jpg"], "bad_name"
    )


def test_no_image_is_lost_without_a_word(tmp_path):
    source = tmp_path / "raw" / "dso1"
    TREES["dso1"](source)
    photo(source / "DSO-1" / "splicing-03 (copy).png")
    photo(source / "DSI-1" / "normal-1.png")
    (source / "links").mkdir()
    (source / "linked").symlink_to(source / "links", target_is_directory=True)
    (source / "DSO-1" / "normal-09.png").symlink_to(source / "DSO-1" / "normal-01.png")
    _, rejected = imported(tmp_path, "dso1")
    assert rejected == {
        "DSO-1/splicing-03 (copy).png": "unmatched",
        "linked": "not_a_file",
        "DSO-1/normal-09.png": "not_a_file",
    }


def test_importing_again_into_the_source_finds_the_same(tmp_path):
    TREES["dso1"](tmp_path / "d")
    for _ in range(2):
        assert run("dso1", tmp_path / "d", tmp_path / "d" / "m.jsonl") == 0
    manifest = read_manifest(tmp_path / "d" / "m.jsonl")
    assert manifest.header.image_root == "."
    assert len(manifest.samples) == 4


def test_images_are_never_copied(tmp_path):
    for dataset in TREES:
        imported(tmp_path, dataset)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    written = [path for path in files if path.name.count(".jsonl") == 0]
    assert {path.suffix for path in written} == {".png"}
    folders = {path.relative_to(tmp_path / "out").parts[0] for path in written}
    assert folders == {"columbia.masks", "nist16.masks", "dso1.masks"}


def test_two_names_for_one_image_are_told(tmp_path):
    source = tmp_path / "raw" / "casia_v2"
    TREES["casia_v2"](source)
    photo(source / "CASIA2" / "Au" / "Au_ani_00018.tif")
    _, rejected = imported(tmp_path, "casia_v2")
    assert rejected["CASIA2/Au/Au_ani_00018.tif"] == "duplicate"


def test_verify_finds_what_headers_hide(tmp_path):
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    photo(source / "images" / "cut.jpg", region("cut"))
    mask(source / "masks" / "cut.png", region("cut"))
    photo(source / "images" / "black.jpg", region("black"))
    mask(source / "masks" / "black.png", region("black") & False)
    whole = (source / "images" / "cut.jpg").read_bytes()
    (source / "images" / "cut.jpg").write_bytes(whole[:-100])
    assert imported(tmp_path, "in_the_wild")[1] == {}
    assert imported(tmp_path, "in_the_wild", "--verify", "true")[1] == {
        "images/cut.jpg": "truncated_or_corrupt",
        "masks/black.png": "empty_mask",
    }


def test_verify_decodes_a_folder_too(tmp_path):
    source = make_folder(tmp_path / "d", 2, 1)
    photograph = next((source / "authentic").iterdir())
    photograph.write_bytes(photograph.read_bytes()[:-100])
    for more, status in (((), 0), (("--verify", "true"), 3)):
        assert run("folder", source, tmp_path / "m.jsonl", *more) == status
    assert list(errors(tmp_path / "m.jsonl").values()) == ["truncated_or_corrupt"]


def test_verify_suspects_inverted_masks(tmp_path):
    source = tmp_path / "raw" / "in_the_wild"
    photo(source / "images" / "a.jpg", region("a"))
    mask(source / "masks" / "a.png", ~region("a"))
    manifest, _ = imported(tmp_path, "in_the_wild", "--verify", "true")
    assert any("inverted" in warning for warning in manifest.header.notes["warnings"])


def test_names_that_are_no_text_are_rejected(tmp_path):
    source = tmp_path / "raw" / "in_the_wild"
    TREES["in_the_wild"](source)
    folder = os.fsencode(source / "label_in_wild" / "images")
    photograph = (source / "label_in_wild" / "images" / "bull.jpg").read_bytes()
    for name in (b"a\xff.jpg", "b\u2028.jpg".encode(), b"c\nd.jpg"):
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(photograph)  # noqa: PTH118
        stem = os.fsdecode(name)[:-4]
        mask(source / "label_in_wild" / "masks" / f"{stem}.png", region("bull"))
    manifest, rejected = imported(tmp_path, "in_the_wild")
    assert len(manifest.samples) == 2
    assert list(rejected.values()) == ["bad_name"] * 3


def test_wrong_sources_are_one_clear_line(tmp_path, capsys):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "other" / "x.jpg")
    (tmp_path / "other" / "Au.zip").write_bytes(b"")
    for source, said in (
        ("nowhere", "no such folder"),
        ("a.rar", "no zip archive"),
        ("empty", "nothing of casia_v2"),
        ("other", "unpack Au.zip"),
    ):
        assert run("casia_v2", tmp_path / source, tmp_path / "m.jsonl") == 1
        message = capsys.readouterr().err
        assert said in message
        assert message.count("\n") == 1
    assert not (tmp_path / "m.jsonl").exists()
    assert run("casia_v3", tmp_path, tmp_path / "m.jsonl") == 2


def test_a_giant_group_is_said(tmp_path):
    source = tmp_path / "raw" / "imd2020"
    for number in range(30):
        photo(source / "z1" / f"{number}_orig.jpg")
    manifest, _ = imported(tmp_path, "imd2020")
    assert any("30 of 30" in warning for warning in manifest.header.notes["warnings"])


def test_chains_that_meet_late_are_one_component():
    chains = [["a", "b"], ["c", "d"], ["e"], ["d", "b"]]
    assert connected(chains) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in TREES:
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / f"{name}.jsonl").write_text(golden_text(Path(folder), name))
