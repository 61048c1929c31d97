"""Trained networks in PyTorch, from a checkpoint or a `.safetensors` file, plain or compiled."""

import shutil
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from boxpromptiml.errors import UserError
from boxpromptiml.inference.formats import read_safetensors
from boxpromptiml.inference.maps import NetworkOutput
from boxpromptiml.inference.spec import DESCRIPTION_KEY, ModelSpec
from boxpromptiml.io.trust import trusted_object
from boxpromptiml.io.weights import check_fit, load_into, load_weights, require_device
from boxpromptiml.models.configs import OwnConfig, StudentConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.inputs import FloatArray
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet


def build_network(spec: ModelSpec, pretrained: Pretrained | None = None) -> Student | WCBNet:
    """Build the network of a spec; its backbone gets pre-trained or random weights.

    For an `OwnConfig` it is a module that maps its input as these two do, and has nothing else of
    theirs.

    Raises:
        UserError: As `Backbone` and `WCBNet`; or if the code of another network is not trusted, or
            does not take its options or `pretrained`.
    """
    if isinstance(spec.network, OwnConfig):
        if pretrained is not None:
            raise UserError("--model.pretrained is for timm's backbones: give network.options")
        return cast(Student, _own_network(spec.network))
    qualities = len(spec.input.error_levels)
    if isinstance(spec.network, StudentConfig):
        return Student(spec.network, qualities, pretrained)
    return WCBNet(spec.network, qualities, pretrained, spec.cam)


def _own_network(config: OwnConfig) -> nn.Module:
    try:
        network = trusted_object(config.path, "the network")(**config.options)
    except TypeError as error:
        raise UserError(f"network {config.path}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UserError(f"network {config.path}: is not a class of torch.nn.Module")
    return network


def load_localizer(path: Path) -> tuple[Student | WCBNet, ModelSpec]:
    """Load a trained network in evaluation mode, and its spec.

    Args:
        path: A checkpoint of `boxpromptiml fit`, or a `.safetensors` file of `boxpromptiml export`.

    Raises:
        UserError: If the file is neither, or is damaged.
    """
    if path.suffix.lower() == ".safetensors":
        state, values = read_safetensors(path)
        spec = ModelSpec.from_dict(values, str(path))
    else:
        checkpoint = load_weights(path)
        _check_sums(path)
        if DESCRIPTION_KEY not in checkpoint or "state_dict" not in checkpoint:
            raise UserError(f"{path}: not a checkpoint of `boxpromptiml fit`")
        spec = ModelSpec.from_dict(checkpoint[DESCRIPTION_KEY], str(path))
        state = _named(checkpoint["state_dict"], f"{spec.kind}.", path)
    try:
        with torch.device("meta"):  # costs no memory, whatever the file asks for
            outline = build_network(spec)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(spec.network, OwnConfig):
        outline.backbone.forget_cut(state, "backbone.")
    check_fit(outline, state, path)
    network = build_network(spec)
    load_into(network, state, path)
    return network.eval(), spec


def _check_sums(path: Path) -> None:
    """UserError if a bit has changed since `torch.save` wrote the archive: it does not look."""
    if not zipfile.is_zipfile(path):
        return  # the format of before PyTorch 1.6 has no sums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: is damaged: {error}; copy it again") from error
    if damaged is not None:
        raise UserError(f"{path}: is damaged: the sum of {damaged} is wrong; copy it again")


def _named(state: object, prefix: str, path: Path) -> dict[str, Any]:
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: its state_dict holds no named tensors")
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


class TorchNetwork:
    """A module as a `Network` with NumPy inputs and outputs, channels last like its weights.

    Args:
        module: Student or WCBnet in evaluation mode, compiled or not.
        bf16: Use bfloat16 by autocast; the residuals of the student stay in fp32.

    Attributes:
        module: The module.
    """

    def __init__(self, module: torch.nn.Module, bf16: bool = False) -> None:
        self.module = module
        self._like = next(module.parameters())
        self._bf16 = bf16

    @torch.inference_mode()
    def __call__(self, image: FloatArray) -> NetworkOutput:
        """Logits of inputs (B, C, h, w)."""
        fed = torch.from_numpy(image).to(self._like).contiguous(memory_format=torch.channels_last)
        kind = self._like.device.type
        # Without bf16 of our own, Lightning's precision stays in force.
        with torch.autocast(kind, torch.bfloat16) if self._bf16 else nullcontext():
            logits, image_logit = self.module(fed)
        return NetworkOutput(logits.float().cpu().numpy(), image_logit.float().cpu().numpy())


def open_torch(
    path: Path, compiled: bool, device: str, bf16: bool, threads: int | None = None
) -> tuple[TorchNetwork, ModelSpec]:
    """Load a checkpoint of `boxpromptiml fit`, or `.safetensors` of `boxpromptiml export`.

    Args:
        path: The file.
        compiled: Use torch.compile, which spends a minute on every new size.
        device: Where it runs, such as cpu or cuda:0.
        bf16: As in `TorchNetwork`.
        threads: Of the whole process; None: as they are.

    Raises:
        UserError: If the file is neither or damaged, or there is no such device or no compiler.
    """
    require_device(device)
    if compiled and torch.device(device).type == "cpu" and not _has_compiler():
        raise UserError("--runtime compile needs a C++ compiler (g++): use --runtime torch")
    if threads is not None:
        torch.set_num_threads(threads)
    network, spec = load_localizer(path)
    module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        module = torch.compile(module, dynamic=False, options={"freezing": True})
    return TorchNetwork(module, bf16), spec


def _has_compiler() -> bool:
    return any(map(shutil.which, ("c++", "g++")))
