from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.io import images
from tests.helpers.data import mask_file
from tests.helpers.imports import imported, run
from tests.helpers.trees import TREES, region


def test_columbia_reads_green_above_red_through_jpeg_noise(tmp_path: Path) -> None:
    manifest, _ = imported(tmp_path, "columbia")
    for sample in manifest.samples:
        if sample.label:
            assert sample.mask_threshold is None
            written = images.read_mask(mask_file(manifest, sample))
            assert np.array_equal(written, region(Path(sample.image).stem))
    edge = next((tmp_path / "raw").rglob("*_edgemask.jpg"))
    red = images.read_image(edge)[0][..., 0]
    assert ((red > 0) & (red < 190)).any()  # the noise is there


def test_a_threshold_for_converted_masks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TREES["columbia"](tmp_path / "d")
    assert run("columbia", tmp_path / "d", tmp_path / "m.jsonl", "--mask_threshold", "9") == 1
    assert "green" in capsys.readouterr().err
