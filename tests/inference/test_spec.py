"""A description inside a model's file is a stranger's word: believed only within its schema."""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boxpromptiml.errors import UserError
from boxpromptiml.inference.calibration import Threshold
from boxpromptiml.inference.spec import (
    OTHER_FILE,
    ModelSpec,
    Refinement,
    from_json,
    to_json,
)
from boxpromptiml.models.configs import CamConfig, FusionConfig, StudentConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.segmenters.config import SegmenterConfig
from tests.helpers.models import CALIBRATION

STUDENT = ModelSpec(StudentConfig("resnet10t", "srm", 2.5, (1, 3)), NetworkInput(), 0.4)
WCBNET = ModelSpec(
    WCBConfig("resnet10t", "sel", (1, 2), weighting=False, pooling="mean"),
    NetworkInput("native", (64, 96), (60, 90)),
    0.5,
    CamConfig("layercam", 1),
    Refinement(SegmenterConfig("slic", segments=30), "pixel"),
    ("CASIA v2",),
)
CALIBRATED = replace(STUDENT, calibration=CALIBRATION)
COPIES = replace(STUDENT, calibration=replace(CALIBRATION, copy_weight=-0.5), copy_move=True)
FLIPS = replace(COPIES, flips=True)
specs = st.builds(
    ModelSpec,
    st.one_of(
        st.builds(StudentConfig, fusion=st.builds(FusionConfig)),
        st.builds(WCBConfig),
    ),
    st.builds(NetworkInput),
    st.from_type(Threshold),
    refinement=st.none()
    | st.builds(Refinement, st.builds(SegmenterConfig, weights=st.none(), cache=st.none())),
)


@settings(max_examples=50)
@given(specs)
@example(STUDENT)
@example(WCBNET)
@example(CALIBRATED)
@example(COPIES)
@example(FLIPS)
def test_what_is_written_is_read_back(spec: ModelSpec) -> None:
    if isinstance(spec.network, StudentConfig):  # its cam is not written
        assert spec.cam == CamConfig()
    text = to_json(spec.to_dict())
    assert OTHER_FILE not in text
    assert ModelSpec.from_dict(from_json(text, Path("m.onnx"))) == spec


def test_a_calibration_holds_for_the_maps_that_it_was_measured_on() -> None:
    assert FLIPS.with_maps() == FLIPS.with_maps(True, True) == FLIPS
    assert FLIPS.with_maps(flips=False) == replace(FLIPS, flips=False, calibration=None)
    assert FLIPS.with_maps(False) == replace(FLIPS, copy_move=False, calibration=None)
    assert CALIBRATED.with_maps(True) == replace(CALIBRATED, copy_move=True)


def test_earlier_versions_knew_no_copies_or_flips() -> None:
    values = CALIBRATED.to_dict()
    del values["copy_move"], values["flips"]
    assert "copy_weight" not in values["calibration"]
    assert ModelSpec.from_dict(values) == CALIBRATED


def test_paths_of_this_machine_are_not_written() -> None:
    segmenter = SegmenterConfig("sam", Path("/home/me/sam.pth"), cache=Path("/home/me/cache"))
    spec = ModelSpec(WCBConfig(), NetworkInput(), 0.5, refinement=Refinement(segmenter))
    assert "/home/me" not in json.dumps(spec.to_dict())


def test_names_of_earlier_versions() -> None:
    values = WCBNET.to_dict()
    values["input"]["fit"] = values["input"].pop("mode")
    segmenter = values["refinement"]["segmenter"]
    segmenter["min_share"] = segmenter.pop("min_fraction")
    assert ModelSpec.from_dict(values) == WCBNET


def test_earlier_versions_normalised_every_backbone_alike() -> None:
    values = ModelSpec(StudentConfig("tf_efficientnet_lite0"), NetworkInput(), 0.5).to_dict()
    del values["student"]["rgb_mean"], values["student"]["rgb_std"]
    network = ModelSpec.from_dict(values).network
    assert network.rgb_mean == (0.485, 0.456, 0.406)
    assert network.rgb_std == (0.229, 0.224, 0.225)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside."""
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from places(part, (*path, key))


def replaced(values: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    changed = copy.copy(values)
    changed[path[0]] = replaced(values[path[0]], path[1:], new)
    return changed


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.just(10**4000)
    | st.builds(object),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), parts, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=400)
@given(st.data())
def test_any_other_value_anywhere_is_refused_or_harmless(data: st.DataObject) -> None:
    values = data.draw(st.sampled_from([STUDENT, WCBNET, CALIBRATED])).to_dict()
    path = data.draw(st.sampled_from(list(places(values))))
    changed = replaced(values, path, data.draw(plain))
    spec, said = None, "evil.ckpt: its boxpromptiml metadata"
    try:
        spec = ModelSpec.from_dict(changed, "evil.ckpt")
    except UserError as error:
        said = str(error)
    assert said.startswith("evil.ckpt: its boxpromptiml metadata")
    assert len(said) < 1000
    if spec is not None:
        assert ModelSpec.from_dict(spec.to_dict()) == spec
        assert 0 <= spec.threshold <= 1
        assert max(spec.input.size) <= 2048


def unfolding(depth: int) -> object:
    """2^depth values in memory for `depth`, as a pickle can hold them."""
    value: object = ()
    for _ in range(depth):
        value = (value, value)
    return value


def circle() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    "value", [unfolding(60), circle(), json.loads("[" * 900 + "]" * 900), ["x" * 2**21]]
)
@pytest.mark.parametrize("key", ["exported", "student", "trained_on"])
def test_no_value_takes_time_or_memory(key: str, value: object) -> None:
    started = time.process_time()
    with pytest.raises(UserError):
        ModelSpec.from_dict(STUDENT.to_dict() | {key: value})
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema_version": 2}, "schema 2, this version reads 1"),
        ({"schema_version": None}, "schema None"),
        ({"threshold": float("nan")}, "not plain values"),
        ({"threshold": 1.5}, "threshold"),
        ({"wcbnet": {}}, "either a student or a wcbnet"),
        ({"student": None}, "either a student or a wcbnet"),
        ({"student": {"width": 3}}, r"student\.width"),
        ({"input": {"mode": "resize", "size": [60_000, 60_000]}}, r"input\.size"),
        ({"input": {"error_levels": [75] * 10_000}}, "error_levels"),
        ({"refinement": {"segmenter": {"weights": "/etc/passwd"}}}, "may not come from a file"),
        ({"refinement": {"segmenter": {"cache": "/etc"}}}, "may not come from a file"),
    ],
)
def test_the_message_names_the_value(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelSpec.from_dict(STUDENT.to_dict() | changed)


@pytest.mark.parametrize("values", [None, [], "x", 3, object()])
def test_no_object_is_no_description(values: object) -> None:
    with pytest.raises(UserError, match="metadata"):
        ModelSpec.from_dict(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no boxpromptiml metadata; create it with `boxpromptiml export`"),
        ("{", "not valid JSON"),
        ("[" * 60_000, "not valid JSON"),
        ('{"a": 1, "a": 2}', "same key twice"),
        ('{"a": NaN}', "NaN"),
        ("[1]", "not a JSON object"),
        (json.dumps({"a": "x" * 2**20}), "longer than"),
    ],
)
def test_text_that_is_no_description(text: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_json(text, Path("m.onnx"))
