from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, read_manifest, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Box, Sample
from boxpromptiml.visualization.overlays import BOX
from data_prep.__main__ import main
from data_prep.contact_sheet import contact_sheet, forgery_cell, pseudo_mask_cell
from tests.helpers.data import make_manifest
from tests.helpers.pictures import picture


def test_every_forgery_is_shown_plain_and_with_its_mask(tmp_path: Path) -> None:
    image, mask = picture((120, 200), 0), np.zeros((120, 200), np.uint8)
    mask[40:80, 60:120] = 255
    images.write_png(tmp_path / "i.png", image)
    images.write_png(tmp_path / "m.png", mask)
    samples = [
        Sample(f"s{n}", "set", "train", "g", "i.png", (120, 200), 1, (Box(50, 30, 130, 90),),
               kind="splice", mask="m.png")
        for n in range(4)
    ]  # fmt: skip
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), samples)
    sheet = contact_sheet([forgery_cell(Source(manifest, one)) for one in manifest.samples])
    assert sheet.shape == (2 * (20 + 120 + 6), 3 * 2 * (288 + 6), 3)
    shown = sheet[20 : 20 + 120, :200]
    np.testing.assert_array_equal(shown, image)
    marked = sheet[20 : 20 + 120, 294 : 294 + 200]
    changed = (marked != image).any(axis=2)
    assert changed[45:75, 65:115].mean() > 0.95
    assert not changed[:28].any()
    assert (sheet[146:, 588:] == 255).all()  # no fifth and sixth


def test_pseudo_masks_are_drawn_beside_their_boxes_the_least_sure_first(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = [
        "pseudo-masks", f"--manifest={data_root}/train.jsonl", f"--out={tmp_path}",
        "--show=5", "--copies=3",
    ]  # fmt: skip
    assert main(job) == 0
    sheet = images.read_image(tmp_path / "contact_sheet.jpg")[0]
    assert sheet.shape[1] == 3 * 2 * (288 + 6)
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    cells = [pseudo_mask_cell(Source(manifest, s)) for s in manifest.samples if s.pseudo_mask]
    for cell in cells:
        assert (cell.right == 255).all(axis=2).any()  # sure
        assert 0 < cell.order <= 1
        assert f"sure {cell.order:.0%}" in cell.caption
    capsys.readouterr()
    assert main([*job, "--shard=0", "--num_shards=2"]) == 1
    assert "--show has no effect with --shard 0" in capsys.readouterr().err


def test_a_turned_photograph_is_shown_upright(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path, "train", 1, 0, seed=1)
    (sample,) = manifest.samples
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(manifest.image_path(sample)) as stored:
        stored.load()
    pixels = Image.fromarray(np.asarray(stored)[:, : stored.width // 2])  # not square
    pixels.save(tmp_path / "turned.png", exif=exif)
    height, width = pixels.height, pixels.width
    box = Box(0, 0, width / 2, height / 2)
    turned = Sample("t", "set", "train", "g", "turned.png", (height, width), 1, (box,))
    write_manifest(tmp_path / "t.jsonl", Header(), [turned])
    assert main(["pseudo-masks", f"--manifest={tmp_path}/t.jsonl", f"--out={tmp_path}/out"]) == 0
    made = read_manifest(tmp_path / "out" / "manifest.jsonl")
    cell = pseudo_mask_cell(Source(made, made.samples[0]))
    assert cell.left.shape == cell.right.shape == (width, height, 3)
    assert (cell.left[0, -1] == BOX).all()  # the stored corner at the left is now at the right


def test_an_image_that_has_gone_leaves_the_other_pseudo_masks_on_the_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_manifest(tmp_path, "train", 4, 0, seed=1)
    job = ["pseudo-masks", f"--manifest={manifest.path}", f"--out={tmp_path}/out"]
    assert main(job) == 0
    manifest.image_path(manifest.samples[0]).unlink()
    assert main([*job, "--show=4"]) == 0
    assert "not shown" in capsys.readouterr().err
    assert (tmp_path / "out" / "contact_sheet.jpg").is_file()
