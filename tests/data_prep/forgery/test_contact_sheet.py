from pathlib import Path

import numpy as np

from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import Header, write_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import Box, Sample
from data_prep.forgery.contact_sheet import contact_sheet
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
    sheet = contact_sheet(Source(manifest, sample) for sample in manifest.samples)
    assert sheet.shape[0] == 2 * (20 + 288 + 6)
    assert sheet.shape[1] == 3 * 2 * (288 + 6)
    shown = sheet[20 : 20 + 120, :200]
    np.testing.assert_array_equal(shown, image)
    marked = sheet[20 : 20 + 120, 294 : 294 + 200]
    changed = (marked != image).any(axis=2)
    assert changed[45:75, 65:115].mean() > 0.95
    assert not changed[:28].any()
    assert (sheet[340:, 600:] == 255).all()  # no fifth and sixth
