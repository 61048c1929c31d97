from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from boxpromptiml.errors import RejectedInput
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.records import ImageArray
from boxpromptiml.synth.forge import KINDS, ForgeryKind
from boxpromptiml.synth.variety import DEFAULT_VARIETY
from data_prep.forgery.outlines import encode_outline
from data_prep.forgery.photographs import Photo, PhotoInspector
from data_prep.forgery.varied import RegionSpec, VariedSpec
from tests.helpers.pictures import picture

SIZE = (180, 260)
LOSSLESS = replace(
    DEFAULT_VARIETY, host_saves=(1, 0, 0), crop=(0, 0.5, 1), rescale=(0, 1, 1), sides=(128, 1100),
    resize=(0, 1, 1), blur=(0, 1, 1), gamma=(0, 1, 1), sharpen=(0, 1, 1),
)  # fmt: skip


def photo(folder: Path, name: str, image: ImageArray) -> Photo:
    """A written and inspected photograph, as if a manifest listed it."""
    path = folder / f"{name}.png"
    images.write_png(path, image)
    found = PhotoInspector({}, None, 48)((path.name, path)).photo
    assert found is not None
    return replace(found, ids=(f"set/{name}",))


def noisy(seed: int) -> ImageArray:
    image = picture(SIZE, seed) + np.random.default_rng(seed).normal(0, 9, (*SIZE, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def spec(tmp_path: Path) -> VariedSpec:
    """A splice of two regions, one of them an object of a forged image."""
    mask = np.zeros(SIZE, bool)
    mask[40:100, 60:120] = True
    donor, forged = photo(tmp_path, "donor", noisy(1)), photo(tmp_path, "forged", noisy(2))
    forged = replace(forged, outlines=(encode_outline(mask),))
    return VariedSpec(
        id="toy_train_000000",
        seed=(0, 0, 1),
        kind="splice",
        host=photo(tmp_path, "host", noisy(0)),
        regions=(RegionSpec("superpixels", donor, None), RegionSpec("object", forged, forged)),
        saves=1,
        variety=DEFAULT_VARIETY,
        authentic=True,
    )


def test_the_record_says_what_it_is_made_from(spec: VariedSpec) -> None:
    record, content = spec.make()
    assert spec.made_from == ("set/host", "set/donor", "set/forged")
    assert [region["from"] for region in record.regions] == ["superpixels", "object"]
    assert [region["donor"]["photo"] for region in record.regions] == ["donor.png", "forged.png"]
    assert record.regions[1]["outline"]["photo"] == "forged.png"
    assert record.image_sha256 == sha256_bytes(content.image)
    assert record.mask_sha256 == sha256_bytes(content.mask)
    assert content.authentic is not None
    assert record.authentic_sha256 == sha256_bytes(content.authentic)


def test_the_same_specification_gives_the_same_bytes(spec: VariedSpec) -> None:
    assert spec.make() == spec.make()
    assert replace(spec, seed=(0, 1, 1)).make()[1].image != spec.make()[1].image


@pytest.mark.parametrize("saves", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_the_authentic_sibling_went_through_the_same_chain(
    spec: VariedSpec, saves: int, seed: int
) -> None:
    spec = replace(spec, saves=saves, seed=(seed, 0, 1))
    _, content = spec.make()
    assert content.authentic is not None
    forged, info = images.decode_image(content.image, "")
    authentic, own = images.decode_image(content.authentic, "")
    assert (info.format, info.size) == (own.format, own.size)
    assert (info.format == "PNG") == (saves == 0) == (spec.ending == ".png")
    mask = images.decode_levels(content.mask, "")[0] > 0
    assert mask.shape == forged.shape[:2]
    reach = cv2.dilate(mask.astype(np.uint8), np.ones((81, 81), np.uint8)) > 0
    np.testing.assert_array_equal(forged[~reach], authentic[~reach])


@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_marks_what_changed(spec: VariedSpec, kind: ForgeryKind) -> None:
    regions = (RegionSpec("shape", spec.regions[0].donor if kind == "splice" else None, None),)
    for seed in range(4):
        one = replace(
            spec, kind=kind, regions=regions, saves=0, variety=LOSSLESS, seed=(seed, 0, 1)
        )
        record, content = one.make()
        assert content.authentic is not None
        forged, host = (images.decode_image(d, "")[0] for d in (content.image, content.authentic))
        mask = images.decode_levels(content.mask, "")[0] > 0
        np.testing.assert_array_equal(host, images.read_image(spec.host.path)[0])
        change = np.abs(forged.astype(int) - host).max(axis=2)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
        assert not change[~near].any()
        assert (change[mask] >= 4).mean() >= 0.4
        assert 0.005 <= mask.mean() <= 0.5
        assert record.kind == kind


def test_what_cannot_be_seen_is_no_forgery(spec: VariedSpec, tmp_path: Path) -> None:
    ramp = np.linspace(100, 140, SIZE[1])[None, :, None]
    image = np.broadcast_to(ramp, (*SIZE, 3)).astype(np.uint8)
    regions = (RegionSpec("shape", None, None),)
    host = photo(tmp_path, "ramp", image)
    variety = replace(DEFAULT_VARIETY, removal_by=(1, 0, 0, 0))
    hidden = replace(spec, kind="removal", regions=regions, host=host, variety=variety)
    with pytest.raises(RejectedInput, match="no removal of it that can be seen"):
        hidden.make()


def test_a_grey_host_stays_grey(spec: VariedSpec, tmp_path: Path) -> None:
    grey = np.repeat(noisy(3)[..., :1], 3, axis=2)
    _, content = replace(spec, host=photo(tmp_path, "grey", grey), saves=0).make()
    image = images.decode_image(content.image, "")[0]
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("field", ["seed", "kind", "saves", "variety", "authentic", "regions"])
def test_another_specification_has_another_fingerprint(spec: VariedSpec, field: str) -> None:
    other = {
        "seed": replace(spec, seed=(1, 0, 1)),
        "kind": replace(spec, kind="copymove"),
        "saves": replace(spec, saves=2),
        "variety": replace(spec, variety=LOSSLESS),
        "authentic": replace(spec, authentic=False),
        "regions": replace(spec, regions=spec.regions[:1]),
    }[field]
    assert other.fingerprint != spec.fingerprint
    assert replace(spec).fingerprint == spec.fingerprint
