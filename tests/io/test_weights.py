import json
import os
import pickle
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from boxpromptiml.errors import UserError
from boxpromptiml.io.weights import found_device, load_into, load_weights

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, -1.0])}


# The pickles that begin a file of PyTorch before 1.6: magic number, version, system, content, keys.
EMPTY: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}, {}, []]
OLD = [pickle.dumps(part, 2) for part in EMPTY]


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


class Plain:
    pass


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "weights_only" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.SafeTensors", "w.ckpt", "w"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.lower().endswith(".safetensors"):
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    loaded = load_weights(path)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[key], STATE[key]) for key in STATE)


def test_nested_training_checkpoint_and_old_format(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"epoch": 3, "state_dict": STATE}, path, _use_new_zipfile_serialization=False)
    loaded = load_weights(path)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["state_dict"]["bias"], STATE["bias"])


def test_a_header_of_more_tensors_than_any_network_has_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    entries = {
        f"{n:07d}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(40000)
    }
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    assert "larger than that of any network" in message(path)


@pytest.mark.parametrize(
    ("method", "size", "said"),
    [
        (zipfile.ZIP_DEFLATED, 1000, "data.pkl is compressed"),
        (zipfile.ZIP_STORED, 2**22 + 1, "its pickle is larger than that of any network"),
    ],
)
def test_a_pickle_that_takes_all_memory_is_not_read(
    tmp_path: Path, method: int, size: int, said: str
) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", method) as bomb,
    ):
        for name in whole.namelist():
            lists = b"(" * size  # each of which opens a list
            bomb.writestr(name, lists if name.endswith("data.pkl") else whole.read(name))
    assert said in message(tmp_path / "bomb.pth")


@pytest.mark.parametrize("old", [False, True])
def test_bytes_of_a_declared_length_are_not_made(tmp_path: Path, old: bool) -> None:
    path, length = tmp_path / "w.pth", 2**36
    torch.save({"a": bytearray(1)}, path, _use_new_zipfile_serialization=not old)
    make = b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + length.to_bytes(5, "little") + b"\x85R."
    if old:
        head = b"".join(OLD[:3])
        path.write_bytes(head + make + pickle.dumps([], 2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/Data.PKL", make)  # PyTorch ignores case
            archive.writestr("archive/version", "3\n")
    assert "refused, since it holds a bytearray" in message(path)
    if old:
        with zipfile.ZipFile(path, "a") as archive:  # an archive too, for other readers
            archive.writestr("a", "b")
        assert "refused, since it holds a bytearray" in message(path)


@pytest.mark.parametrize("place", range(5))
def test_an_old_file_of_endless_lists_is_not_read(tmp_path: Path, place: int) -> None:
    (tmp_path / "w.pth").write_bytes(b"".join(OLD[:place]) + b"\x80\x02" + b"(" * 2**23)
    assert "its pickle is larger than that of any network" in message(tmp_path / "w.pth")


def test_a_second_table_of_contents_that_pytorch_would_read_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        archive.writestr("archive/notes", "x")
    whole = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(b"PK\x03\x04" + whole)
    assert "does not begin with its first part" in message(tmp_path / "w.pth")


def test_follows_links(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "blob")
    (tmp_path / "link.pth").symlink_to(tmp_path / "blob")
    assert load_weights(tmp_path / "link.pth").keys() == STATE.keys()


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("forced", [False, True], ids=["plain", "forced-unsafe"])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", ["evil.pth", "evil.ckpt", "evil.safetensors"])
def test_no_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str, forced: bool
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, mark = tmp_path / name, tmp_path / "executed"
    content = {"state_dict": STATE, "extra": Canary(mark)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"extra": Canary(mark)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    text = message(path)
    assert not mark.exists()
    if not name.endswith(".safetensors"):
        assert "posix.mkdir" in text
        assert "could run code" in text
        # The control: PyTorch's unsafe way, and its default under the variable, do run it.
        control: dict[str, Any] = {} if forced else {"weights_only": False}
        with suppress(RuntimeError):  # a bare pickle runs first and is found to be none of its own
            torch.load(path, **control)  # noqa: TID251 -- shows that the canary is alive
        assert mark.exists()


def test_foreign_class_is_named(tmp_path: Path) -> None:
    torch.save({"model": Plain()}, tmp_path / "whole.pth")
    assert "Plain" in message(tmp_path / "whole.pth")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [3, 20, 0.5, -1])
def test_truncated(tmp_path: Path, kept: float, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if kept == 0.5 else int(kept)])
    assert "damaged or incomplete" in message(path)


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-3])
    assert "damaged or incomplete" in message(path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_text_is_not_a_checkpoint(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(content)
    text = message(path)
    assert "is not a checkpoint" in text
    assert repr(content[:16]) in text


@pytest.mark.parametrize(
    ("content", "kind"), [([1, 2], "list"), (torch.zeros(3), "Tensor"), ({1: 2}, "dict")]
)
def test_other_values_are_refused(tmp_path: Path, content: object, kind: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert f"holds a {kind}" in message(tmp_path / "w.pth")


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pth")
    assert "not a regular file" in message(tmp_path / "fifo.pth")  # opening it would hang
    assert "is a folder" in message(tmp_path)
    assert "no such weights file" in message(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    "address", ["http://host/w.pth", "https://host/w.pth", "s3://b/w", "FILE:///tmp/w"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(UserError, match="download it"):
        load_weights(Path(address))


def test_unreadable_file_keeps_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    torch.save(STATE, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", refuse)
    assert "cannot be read: Permission denied" in message(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(deadline=None)
@given(data=st.data(), ending=st.sampled_from(["pth", "legacy", "safetensors"]))
def test_damage_raises_nothing_but_user_errors(
    data: st.DataObject, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"w.{ending}"
    if ending == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=ending == "pth")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(UserError):
        assert isinstance(load_weights(path), dict)


def linear() -> torch.nn.Linear:
    return torch.nn.Linear(3, 2)


def test_load_into_copies() -> None:
    module = linear()
    load_into(module, STATE, "w.pth")
    assert torch.equal(module.weight, STATE["weight"])
    assert torch.equal(module.bias, STATE["bias"])


def test_load_into_keeps_the_dtype_of_the_module() -> None:
    module = linear()
    load_into(module, {key: value.half() for key, value in STATE.items()}, "w.pth")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, STATE["weight"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weight": None}, "1 missing (weight)"),
        ({"head": torch.zeros(1)}, "1 unexpected (head)"),
        ({"bias": torch.zeros(5)}, "1 of another shape (bias (5,) for (2,))"),
        (
            {"bias": torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])},
            "1 of another shape (bias nested tensor for (2,))",
        ),
        ({"bias": "text"}, "1 of another shape (bias str for (2,))"),
        (
            {"bias": torch.tensor([0.0, torch.nan])},
            "1 tensors of Linear hold NaN or infinity (bias)",
        ),
        ({f"k{i}": torch.zeros(1) for i in range(9)}, "9 unexpected (k0, k1, k2, ...)"),
    ],
)
def test_load_into_is_all_or_nothing(change: dict[str, object], expected: str) -> None:
    module = linear()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: value for key, value in (STATE | change).items() if value is not None}
    with pytest.raises(UserError) as caught:
        load_into(module, state, "w.pth")
    assert expected in str(caught.value)
    assert "w.pth" in str(caught.value)
    assert "Linear" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_raw_torch_load_is_banned(tmp_path: Path) -> None:
    source = tmp_path / "reader.py"
    source.write_text('"""Reader."""\n\nimport torch\n\ntorch.load("w.pth")\n')
    config = Path(__file__).parents[2] / "pyproject.toml"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--config", config, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "TID251" in done.stdout


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_a_gpu_where_there_is_one(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert found_device("auto") == ("cuda" if there else "cpu")
    assert found_device("cuda:1") == "cuda:1"
