from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.records import ImageArray
from boxpromptiml.synth.forge import DEFAULT_STYLE
from data_prep.forgery.photographs import Photo, PhotoInspector
from data_prep.forgery.plain import ForgerySpec, JpegHistory
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


def test_the_record_names_both_photographs_and_the_files(spec: ForgerySpec) -> None:
    record, content = spec.make()
    assert (record.host["photo"], (record.donor or {})["photo"]) == ("host.png", "donor.png")
    assert record.image_sha256 == sha256_bytes(content.image)
    assert record.mask_sha256 == sha256_bytes(content.mask)
    assert content.authentic is None
    assert spec.make() == (record, content)


@pytest.mark.parametrize("field", ["seed", "jpeg", "kind", "authentic", "donor"])
def test_another_specification_has_another_fingerprint(
    spec: ForgerySpec, tmp_path: Path, field: str
) -> None:
    other = {
        "seed": replace(spec, seed=(1, 0, 1)),
        "jpeg": replace(spec, jpeg=JpegHistory(None, None, 80)),
        "kind": replace(spec, kind="removal", donor=None),
        "authentic": replace(spec, authentic=True),
        "donor": replace(spec, donor=photo(tmp_path / "third.png", picture((90, 120), 2))),
    }[field]
    assert other.fingerprint != spec.fingerprint
    assert other.make()[0].fingerprint == other.fingerprint


def test_a_grey_host_stays_grey(spec: ForgerySpec, tmp_path: Path) -> None:
    grey = np.repeat(picture((90, 120), 3)[..., :1], 3, axis=2)
    spec = replace(spec, host=photo(tmp_path / "grey.png", grey))
    image = images.decode_image(spec.make()[1].image, "")[0]
    assert (image == image[..., :1]).all()


def test_what_changes_nothing_is_no_forgery(spec: ForgerySpec, tmp_path: Path) -> None:
    """Removing a part of a smooth ramp gives the ramp again."""
    ramp = np.linspace(100, 140, 120)[None, :, None]
    image = np.broadcast_to(ramp, (90, 120, 3)).astype(np.uint8)
    host = photo(tmp_path / "ramp.png", image)
    with pytest.raises(RejectedInput, match="no removal of it that can be seen"):
        replace(spec, kind="removal", donor=None, host=host).make()
