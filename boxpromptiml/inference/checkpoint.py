"""Loads a trained network and its spec from a checkpoint or a `.safetensors` file."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.formats import read_safetensors
from boxpromptiml.inference.spec import DESCRIPTION_KEY, ModelSpec
from boxpromptiml.io.weights import check_fit, load_into, load_weights
from boxpromptiml.models.configs import StudentConfig
from boxpromptiml.models.imagenet import Pretrained
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet


def build_network(spec: ModelSpec, pretrained: Pretrained | None = None) -> Student | WCBNet:
    """Build the network of a spec; its backbone gets pre-trained or random weights.

    Raises:
        UserError: As `Backbone` and `WCBNet`.
    """
    qualities = len(spec.input.error_levels)
    if isinstance(spec.network, StudentConfig):
        return Student(spec.network, qualities, pretrained)
    return WCBNet(spec.network, qualities, pretrained, spec.cam)


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
