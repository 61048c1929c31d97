"""One image in a worker; a whole job of workers is in tests/io/test_ray_engine.py."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml import Localizer
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.inference.image_work import ImageWork
from boxpromptiml.inference.predictions import Prediction, Thresholds, write_prediction
from boxpromptiml.io.map_files import read_map
from boxpromptiml.io.sandbox import DirectDecoder


def test_an_image_is_localized_or_rejected_and_another_network_is_refused(
    checkpoint: Path, photo: Path, tmp_path: Path
) -> None:
    write = partial(
        write_prediction, tmp_path, limits=Thresholds(0.5), overlays=False, made_by="job"
    )
    load = partial(Localizer.load, checkpoint)
    work = ImageWork(
        load, lambda: nullcontext(DirectDecoder()), write, lambda _: "job", "job", False
    )
    row = work(("a", photo))
    assert isinstance(row, Prediction)
    assert row.path == str(photo)
    stored = read_map(tmp_path / "prob" / "a.png").prob
    np.testing.assert_allclose(stored, load()(photo), atol=1e-4)

    gone = work(("gone", tmp_path / "gone.jpg"))
    assert isinstance(gone, RejectedInput)
    assert gone.reason == "missing"
    with pytest.raises(UserError, match="install the same version on every node"):
        replace(work, made_by="another")(("a", photo))
