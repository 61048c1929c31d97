"""Checkpoints of strangers: nothing is built that the file itself does not fill."""

import resource
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.export import export
from boxpromptiml.inference.formats import read_safetensors, write_safetensors
from boxpromptiml.inference.onnx_networks import OnnxNetwork
from boxpromptiml.inference.spec import to_json
from tests.helpers.models import SPECS, FileMaker, make_network

LAST = "student.head.4.bias"


@pytest.fixture
def content(checkpoint: Path) -> dict[str, Any]:
    """What is in the file of a student, to be changed and saved."""
    found: dict[str, Any] = torch.load(checkpoint, weights_only=True)  # noqa: TID251
    return found


def refused(path: Path, content: dict[str, Any], message: str) -> None:
    torch.save(content, path)
    started = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message) as caught:
        load_localizer(path)
    assert str(path) in str(caught.value)
    assert time.process_time() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card["student"]["fusion"].update(width=4096), "of another shape"),
        (lambda card: card["student"]["fusion"].update(prototypes=65_536), "of another shape"),
        (lambda card: card["student"].update(backbone="vit_giant_patch14_224"), "missing"),
        (lambda card: card["student"].update(backbone="hf-hub:evil/net"), "timm has no model"),
        (lambda card: card["student"].update(stages=[0, 1, 30]), "stages"),
        (lambda card: card["student"]["fusion"].update(width=60_000), "width"),
        (lambda card: card["input"].update(size=[60_000, 60_000]), "size"),
        (lambda card: card["input"].update(error_levels=[75] * 16), "of another shape"),
        (lambda card: card.update(threshold=float("nan")), "metadata"),
        (lambda card: card.update(student=[1]), "student"),
    ],
)
def test_a_small_file_costs_little_whatever_it_claims(
    content: dict[str, Any],
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    change(content["boxpromptiml"])
    refused(tmp_path / "evil.ckpt", content, message)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([torch.inf]), "NaN or infinity"),
        (torch.tensor([torch.nan]), "NaN or infinity"),
        (torch.zeros(2), "of another shape"),
        (torch.zeros(1).to_sparse(), "sparse"),
        (torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.qint8), "qint8"),
        (torch.zeros(1, device="meta"), "meta"),
        ([0.0], "list"),
    ],
)
def test_a_tensor_that_is_none_of_ours(
    content: dict[str, Any], tmp_path: Path, tensor: object, message: str
) -> None:
    content["state_dict"][LAST] = tensor
    refused(tmp_path / "evil.ckpt", content, message)


def test_a_tensor_larger_than_what_is_stored_of_it(content: dict[str, Any], tmp_path: Path) -> None:
    """Four bytes can say that they are gigabytes, by strides of 0."""
    key = max(content["state_dict"], key=lambda name: content["state_dict"][name].numel())
    shape = content["state_dict"][key].shape
    content["state_dict"][key] = torch.zeros(1).expand(shape)
    refused(tmp_path / "evil.ckpt", content, "most is not in the file")


@pytest.mark.parametrize("state", [[], {1: torch.zeros(1)}, "text", None])
def test_a_state_dict_that_is_none(content: dict[str, Any], tmp_path: Path, state: object) -> None:
    refused(tmp_path / "evil.ckpt", content | {"state_dict": state}, "no named tensors")


def flipped(path: Path, copy: Path, place: int) -> Path:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    copy.write_bytes(data)
    return copy


def test_a_changed_bit_is_noticed(exported: FileMaker, checkpoint: Path, tmp_path: Path) -> None:
    _, safetensors, onnx = exported("student")
    rng = np.random.default_rng(0)
    for file, load in (
        (safetensors, load_localizer),
        (onnx, lambda path: OnnxNetwork(path, "cpu", "fp32")),
    ):
        load(file)
        size = file.stat().st_size
        for place in rng.integers(size // 4, size * 3 // 4, 9).tolist():
            with pytest.raises(UserError, match="damaged"):
                load(flipped(file, tmp_path / file.name, place))
    with zipfile.ZipFile(checkpoint) as archive:
        largest = max(archive.infolist(), key=lambda one: one.file_size)
    middle = largest.header_offset + 200 + largest.file_size // 2
    with pytest.raises(UserError, match="is damaged"):
        load_localizer(flipped(checkpoint, tmp_path / "flipped.ckpt", middle))


def test_a_member_that_unpacks_without_bound_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(checkpoint, tmp_path / "bomb.ckpt"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/bomb", bytes(2**20), zipfile.ZIP_BZIP2)
    with pytest.raises(UserError, match="is compressed, unlike"):
        load_localizer(path)


def test_files_of_before_there_was_a_hash(exported: FileMaker, tmp_path: Path) -> None:
    state, description = read_safetensors(exported("student").safetensors)
    assert len(description.pop("file_sha256")) == 64
    save_file(state, tmp_path / "old.safetensors", {"boxpromptiml": to_json(description)})
    assert load_localizer(tmp_path / "old.safetensors")[1] == SPECS["student"]


def test_exporting_again_seals_again(tmp_path: Path) -> None:
    spec = replace(SPECS["student"], threshold=0.25)
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write_safetensors(first, make_network(spec), spec.to_dict())
    export(first, second)
    load_localizer(second)
    hashes = [read_safetensors(path)[1]["file_sha256"] for path in (first, second)]
    assert len(set(hashes)) == 2  # the second says how it was exported


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "complex64", "int16"])
def test_weights_of_odd_types_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.safetensors"
    write_safetensors(path, make_network(SPECS["resized"]), SPECS["resized"].to_dict())
    state, values = read_safetensors(path)
    values.pop("file_sha256")
    state["head.4.bias"] = state["head.4.bias"].to(getattr(torch, kind))
    save_file(state, path, {"boxpromptiml": to_json(values)})
    with pytest.raises(UserError, match=rf"of another shape \(head.4.bias torch.{kind}"):
        load_localizer(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state["head.4.bias"].fill_(torch.inf), "hold NaN or infinity"),
        (lambda state: state["head.4.bias"].fill_(torch.nan), "hold NaN or infinity"),
        (lambda state: state.update({"head.4.bias": torch.zeros(2).half()}), "of another shape"),
        (lambda state: state.pop("head.4.bias"), "1 missing"),
    ],
)
def test_half_precision_is_held_to_the_same_limits(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    path = tmp_path / "half.safetensors"
    network, spec = make_network(SPECS["resized"]), SPECS["resized"]
    write_safetensors(path, network, spec.to_dict(), half=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"):
        load_localizer(path)
    path.write_bytes(whole)
    state, values = read_safetensors(path)
    assert state["head.4.bias"].dtype == torch.float16
    values.pop("file_sha256")
    change(state)
    save_file(state, path, {"boxpromptiml": to_json(values)})
    with pytest.raises(UserError, match=message):
        load_localizer(path)
