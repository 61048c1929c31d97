"""The only loader of tensors: local files, data only, helpful errors.

A pickle runs code when it is read; `weights_only=True` is what stops it. It is passed explicitly
because PyTorch's default yields to the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from pickletools import genops
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import atomic_writer, require_local_file

_CODE = re.compile(r"GLOBAL (\S+)")  # how PyTorch names the object that it refused to build
_SHOWN = 3
_MAX_HEADER = 2**21  # bytes of a .safetensors header: some 20,000 tensors; SAM ViT-H has 594
_ZIP = b"PK\x03\x04"  # by which PyTorch tells the two formats apart, whatever else the file is
_MAX_PICKLE = 2**22  # bytes that name the tensors: some 100 kB of SAM ViT-H or of a training
_OLD_PICKLES = 5  # of a file of PyTorch before 1.6: magic number, version, system, content, keys
_DTYPES = {  # that can be compared, copied and converted; float8 and complex cannot
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
}


def load_weights(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running any code in it.

    Args:
        path: A local regular file: `.safetensors`, or anything that `torch.save` wrote.

    Returns:
        The dictionary in the file: name to tensor for plain weights, nested for training
        checkpoints.

    Raises:
        UserError: If the path is an address, missing or not a regular file, or the file is not a
            checkpoint, damaged, or contains objects other than tensors and plain values.
    """
    require_local_file(path)
    try:
        state = _read(path)
    except UserError:
        raise
    except Exception as error:  # damaged files raise anything from EOFError to IndexError
        raise UserError(_explain(path, error)) from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UserError(
            f"{path}: holds a {type(state).__name__}, not named tensors; "
            "save it with torch.save(model.state_dict(), ...) or as .safetensors"
        )
    return state


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write tensors and plain values for `load_weights`, atomically.

    Raises:
        OSError: If the disk is full or not writable; an existing file is kept.
    """
    try:
        with atomic_writer(path) as stream:
            torch.save(checkpoint, stream)
    except RuntimeError as error:
        if isinstance(cause := error.__context__, OSError):  # PyTorch's writer hides it
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def found_device(device: str) -> str:
    """The device that `auto` means, a GPU if PyTorch finds one; others as they are."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def require_device(device: str) -> None:
    """Require a device on which PyTorch can put weights.

    Raises:
        UserError: If its name is unknown, or it is a GPU that is not there.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UserError(f"device {device!r} is unknown; use cpu, cuda or cuda:0") from error
    if kind not in ("cpu", "cuda"):
        raise UserError(f"device {device!r} is not supported; use cpu, cuda or cuda:0")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device}: PyTorch finds no GPU here; use cpu")


def load_into(module: nn.Module, state: Mapping[str, Any], source: Path | str) -> None:
    """Copy named tensors into a module, all or nothing.

    Args:
        module: Takes the values in place; keeps its own dtype and device. Unchanged on error.
        state: Exactly the module's names and shapes, all values finite.
        source: Where `state` comes from, for the message.

    Raises:
        UserError: As `check_fit`, and for values that are NaN or infinite.
    """
    check_fit(module, state, source)
    broken = [key for key in state if not bool(torch.isfinite(state[key]).all())]
    if broken:
        raise UserError(
            f"{source}: {len(broken)} tensors of {type(module).__name__} hold NaN or infinity "
            f"({_first(broken)}): the file is damaged, or its training diverged"
        )
    module.load_state_dict(state, strict=True)


def check_fit(module: nn.Module, state: Mapping[str, Any], source: Path | str) -> None:
    """Compare names and shapes; the module may be on the device `meta`, where it has no memory.

    Args:
        module: The module that the weights are for.
        state: Content of a file.
        source: The file, for the message.

    Raises:
        UserError: With the first few names that are missing, unexpected, of another shape or not
            plain tensors.
    """
    own = module.state_dict()
    shared = [key for key in own if key in state]
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {_stored_shape(state[key])} for {tuple(own[key].shape)}"
            for key in shared
            if _stored_shape(state[key]) != tuple(own[key].shape)
        ],
    }
    found = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in problems.items() if keys]
    if found:
        raise UserError(
            f"{source}: does not fit {type(module).__name__}: {'; '.join(found)}. "
            "Give the weights of this very model, saved as a plain state dict"
        )


def _read(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        if _MAX_HEADER < header < path.stat().st_size:  # parsing costs 50 times as much memory
            raise UserError(f"{path}: its header is larger than that of any network")
        return load_file(path, device="cpu")
    _refuse_greedy(path)
    # The one permitted call: explicit weights_only, a checked local file.
    return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251


def _refuse_greedy(path: Path) -> None:
    """Refuse what PyTorch never writes and what takes memory out of proportion to the file.

    Raises:
        UserError: If a part is compressed, a pickle is larger than that of any network, or makes
            bytes of a length that it declares, of which `weights_only` has no limit.
        Exception: Of many types, if the file is damaged.
    """
    with path.open("rb") as stream:
        start = BytesIO(stream.read(_MAX_PICKLE))
    if start.getvalue().startswith(_ZIP):
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if min((part.header_offset for part in parts), default=0):  # read otherwise by PyTorch
                raise UserError(f"{path}: does not begin with its first part, as PyTorch's do")
            for part in parts:
                if part.compress_type != zipfile.ZIP_STORED:
                    raise UserError(f"{path}: {part.filename} is compressed, unlike PyTorch's own")
                if part.filename.lower().endswith(".pkl"):  # PyTorch ignores case
                    with archive.open(part) as pickled:
                        _refuse_greedy_pickle(path, BytesIO(pickled.read(_MAX_PICKLE)))
        return
    for _ in range(_OLD_PICKLES):
        if start.tell() < len(start.getvalue()):  # of a bare pickle PyTorch says what is wrong
            _refuse_greedy_pickle(path, start)


def _refuse_greedy_pickle(path: Path, stream: BytesIO) -> None:
    try:
        for opcode, argument, _ in genops(stream):
            if opcode.name == "GLOBAL" and str(argument).endswith(" bytearray"):
                raise UserError(f"{path}: refused, since it holds a bytearray of any length")
    except ValueError:
        if stream.tell() >= _MAX_PICKLE:
            raise UserError(f"{path}: its pickle is larger than that of any network") from None
        raise


def _explain(path: Path, error: Exception) -> str:
    """A message in place of PyTorch's own, which recommends weights_only=False."""
    if isinstance(error, OSError):
        return f"{path}: cannot be read: {error.strerror}"
    if found := _CODE.search(str(error)):
        return (
            f"{path}: refused, since it holds objects that could run code ({found[1]}); "
            "ask its author for .safetensors or a plain state dict"
        )
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith((b"PK", b"\x80")) or head[8:9] == b"{":
        return (
            f"{path}: is damaged or incomplete, or its ending does not tell its format; "
            "copy or download it again (.safetensors, or .pth with a plain state dict)"
        )
    return f"{path}: is not a checkpoint (it begins with {head!r}); give a .safetensors or .pth"


def _stored_shape(value: Any) -> tuple[int, ...] | str:
    """Shape of a tensor that is stored completely; a description of anything else."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_nested:
        return "nested tensor"
    if value.layout is not torch.strided or value.dtype not in _DTYPES or value.is_meta:
        return f"{value.dtype} {value.layout} on {value.device}"
    shape = tuple(value.shape)
    expanded = value.nbytes > value.untyped_storage().nbytes()
    return f"{shape}, of which most is not in the file" if expanded else shape


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")
