from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.records import ImageArray
from boxpromptiml.synth.forge import DEFAULT_STYLE
from data_prep.forgery.make import ForgerySpec, JpegHistory
from data_prep.forgery.output import ForgeryFiles, bring_up_to_date
from data_prep.forgery.photographs import Photo, PhotoInspector
from tests.helpers.pictures import picture


def photo(path: Path, image: ImageArray) -> Photo:
    """A written and inspected photograph."""
    images.write_png(path, image)
    found = PhotoInspector({}, None, 48)((path.name, path)).photo
    assert found is not None
    return found


@pytest.fixture
def spec(tmp_path: Path) -> ForgerySpec:
    """A splice of two pictures."""
    return ForgerySpec(
        id="toy_train_000000",
        seed=(0, 0, 1),
        kind="splice",
        host=photo(tmp_path / "host.png", picture((90, 120), 0)),
        donor=photo(tmp_path / "donor.png", picture((90, 120), 1)),
        jpeg=JpegHistory(host=None, region=None, final=90),
        style=DEFAULT_STYLE,
        max_side=None,
        authentic=False,
    )


def test_the_record_names_both_photographs_and_the_files(spec: ForgerySpec, tmp_path: Path) -> None:
    made, now = bring_up_to_date(spec, tmp_path)
    files = ForgeryFiles.of(spec.id)
    assert now
    assert (made.host["photo"], (made.donor or {})["photo"]) == ("host.png", "donor.png")
    assert made.image_sha256 == images.probe(tmp_path / files.image).sha256
    assert images.read_mask(tmp_path / files.mask).any()
    assert not (tmp_path / files.authentic).exists()
    again, now = bring_up_to_date(spec, tmp_path)
    assert not now
    assert (again.fingerprint, again.boxes) == (made.fingerprint, made.boxes)


@pytest.mark.parametrize("field", ["seed", "jpeg", "kind", "authentic", "donor"])
def test_another_specification_makes_it_anew(spec: ForgerySpec, tmp_path: Path, field: str) -> None:
    other = {
        "seed": replace(spec, seed=(1, 0, 1)),
        "jpeg": replace(spec, jpeg=JpegHistory(None, None, 80)),
        "kind": replace(spec, kind="removal", donor=None),
        "authentic": replace(spec, authentic=True),
        "donor": replace(spec, donor=photo(tmp_path / "third.png", picture((90, 120), 2))),
    }[field]
    bring_up_to_date(spec, tmp_path)
    made, now = bring_up_to_date(other, tmp_path)
    assert now
    assert made.fingerprint == other.fingerprint != spec.fingerprint


def test_a_grey_host_stays_grey(spec: ForgerySpec, tmp_path: Path) -> None:
    grey = np.repeat(picture((90, 120), 3)[..., :1], 3, axis=2)
    spec = replace(spec, host=photo(tmp_path / "grey.png", grey))
    bring_up_to_date(spec, tmp_path)
    image = images.read_image(tmp_path / ForgeryFiles.of(spec.id).image)[0]
    assert (image == image[..., :1]).all()


def test_what_changes_nothing_is_no_forgery(spec: ForgerySpec, tmp_path: Path) -> None:
    """Removing a part of a smooth ramp gives the ramp again."""
    ramp = np.linspace(100, 140, 120)[None, :, None]
    image = np.broadcast_to(ramp, (90, 120, 3)).astype(np.uint8)
    host = photo(tmp_path / "ramp.png", image)
    with pytest.raises(RejectedInput, match="no removal of it that can be seen"):
        bring_up_to_date(replace(spec, kind="removal", donor=None, host=host), tmp_path / "out")
    assert not (tmp_path / "out").exists()
