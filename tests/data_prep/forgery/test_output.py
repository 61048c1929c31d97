from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxpromptiml.io import images
from boxpromptiml.synth.forge import DEFAULT_STYLE
from boxpromptiml.synth.variety import DEFAULT_VARIETY
from data_prep.forgery.output import ForgeryFiles, ForgeryMaker, Spec, bring_up_to_date
from data_prep.forgery.photographs import Photo, PhotoInspector
from data_prep.forgery.plain import ForgerySpec, JpegHistory
from data_prep.forgery.varied import RegionSpec, VariedSpec
from tests.helpers.pictures import picture

RECIPES = ("plain", "varied")


def photo(folder: Path, number: int) -> Photo:
    """A written and inspected photograph."""
    path = folder / "trip" / f"p{number}.png"
    noise = np.random.default_rng(number).integers(0, 30, (120, 160, 3))
    images.write_png(path, (picture((120, 160), number) // 2 + noise).astype(np.uint8))
    found = PhotoInspector({}, None, 48)((f"trip/{path.name}", path)).photo
    assert found is not None
    return found


def spec_of(recipe: str, folder: Path) -> Spec:
    """A splice of two photographs, saved with its host."""
    host, donor = photo(folder, 0), photo(folder, 1)
    if recipe == "varied":
        regions = (RegionSpec("shape", donor, None),)
        return VariedSpec("a_0", (0, 1), "splice", host, regions, 0, DEFAULT_VARIETY, True)
    history = JpegHistory(None, None, 90)
    return ForgerySpec("a_0", (0, 1), "splice", host, donor, history, DEFAULT_STYLE, None, True)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("file", ["image", "mask", "authentic", "provenance"])
def test_a_file_that_is_missing_or_damaged_is_made_anew(
    recipe: str, file: str, tmp_path: Path
) -> None:
    spec, out = spec_of(recipe, tmp_path), tmp_path / "out"
    made, now = bring_up_to_date(spec, out)
    assert now
    again, now = bring_up_to_date(spec, out)
    assert not now
    assert (again.fingerprint, again.size, again.boxes) == (spec.fingerprint, made.size, made.boxes)
    path = out / getattr(ForgeryFiles.of(spec.id, spec.ending), file)
    before = path.read_bytes()
    for damage in (before[:-7], None):
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage)
        assert bring_up_to_date(spec, out)[1]
        assert path.read_bytes() == before


def test_the_other_recipe_is_another_forgery(tmp_path: Path) -> None:
    specs = [spec_of(recipe, tmp_path) for recipe in RECIPES]
    made = [bring_up_to_date(spec, tmp_path / "out") for spec in specs]
    assert all(now for _, now in made)
    assert made[0][0].fingerprint != made[1][0].fingerprint


@pytest.mark.parametrize("recipe", RECIPES)
def test_samples_tell_group_and_origin(recipe: str, tmp_path: Path) -> None:
    spec = spec_of(recipe, tmp_path)
    of_folder = ForgeryMaker(tmp_path / "out", "set", "val", "folder")(spec)
    assert [(one.group, one.made_from, one.label) for one in of_folder.samples] == [
        ("trip", None, 1),
        ("trip", None, 0),
    ]
    listed = replace(spec.host, ids=("set/host", "other/host"), group="scene")
    result = ForgeryMaker(tmp_path / "out", "set", "val", "folder")(replace(spec, host=listed))
    assert not result.made  # the same photographs, so the same forgery
    assert {one.group for one in result.samples} == {"scene"}
    assert {one.made_from for one in result.samples} == {("set/host", "other/host")}
