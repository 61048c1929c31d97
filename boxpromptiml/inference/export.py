"""`boxpromptiml export`: a trained localizer as one file to share or deploy."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.formats import (
    OPSET,
    read_safetensors,
    write_onnx,
    write_safetensors,
    write_state,
)
from boxpromptiml.inference.spec import DESCRIPTION_KEY, ModelSpec
from boxpromptiml.io.outputs import EXPORTED
from boxpromptiml.io.progress import note
from boxpromptiml.io.weights import load_weights, save_checkpoint
from boxpromptiml.models.configs import CamConfig
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet


def export(checkpoint: Path, out: Path, half: bool = False) -> None:
    """Write a trained localizer as .onnx (deployment) or .safetensors (exchange, no code in it).

    The file contains its metadata as JSON under the name `boxpromptiml`: network, input, threshold,
    normalisation, version, training data. The ONNX graph takes photographs in [0, 1] of any size
    and batch, and is compared with PyTorch before it is written (`formats.write_onnx`).
    `boxpromptiml localize --checkpoint` accepts both; examples/localize_onnx.py runs the ONNX file
    without PyTorch.

    Args:
        checkpoint: A checkpoint of `boxpromptiml fit`, or a .safetensors file of this command.
        out: File to write; its suffix selects the format.
        half: Store the weights of a .safetensors file as float16: half the size, and probabilities
            that differ in the third decimal; they are loaded as float32.

    Raises:
        UserError: If the checkpoint cannot be read, or the format does not support it.
    """
    kind = out.suffix.lower()
    EXPORTED.require(out, checkpoint)  # of float16 weights nothing else would be left
    if half and kind != ".safetensors":
        raise UserError("--half is for .safetensors only")
    network, spec = load_localizer(checkpoint)
    if kind == ".safetensors":
        write_safetensors(out, network, describe(network, spec), half)
        sys.stdout.write(f"{out}: {out.stat().st_size / 1e6:.1f} MB\n")
        return
    if spec.cam.method != CamConfig().method:
        raise UserError(
            f"{checkpoint}: cam.method={spec.cam.method} needs gradients, which ONNX lacks; "
            "write .safetensors, or train with --model.cam.method=classifier"
        )
    description = describe(network, spec)
    description["exported"]["opset"] = OPSET
    channels = 3 + spec.input.extra_channels
    note("making the graph and comparing it with PyTorch, which takes minutes")
    difference = write_onnx(out, network, channels, description)
    size = out.stat().st_size / 1e6
    sys.stdout.write(f"{out}: {size:.1f} MB, differs from PyTorch by at most {difference:.1e}\n")


def with_spec(source: Path, spec: ModelSpec, out: Path) -> None:
    """Write a copy of a localizer's file with another spec and the same weights.

    Args:
        source: A checkpoint of `boxpromptiml fit` or a `.safetensors` file, that can be loaded.
        spec: The new spec, of the same network.
        out: File to write, in the same format.

    Raises:
        UserError: If `source` cannot be read.
    """
    if source.suffix.lower() == ".safetensors":
        state, values = read_safetensors(source)
        others = {key: values[key] for key in values if key == "exported"}
        write_state(out, state, spec.to_dict() | others)
        return
    checkpoint = load_weights(source)
    save_checkpoint(out, checkpoint | {DESCRIPTION_KEY: spec.to_dict()})


def describe(network: Student | WCBNet, spec: ModelSpec) -> dict[str, Any]:
    """The spec and, under `exported`, what third-party programs need to know."""
    mean, std = ([round(v, 6) for v in b.flatten().tolist()] for b in (network.mean, network.std))
    return spec.to_dict() | {
        "exported": {
            "version": version("boxpromptiml"),
            "input": "(batch, channels, height, width) float32: RGB in [0, 1], then signed error "
            "levels in [-1, 1]",
            "normalisation": {"mean": mean, "std": std, "done_by": "the network"},
            "outputs": "sigmoid(logits): probability that a pixel is manipulated; "
            "sigmoid(image_logit): that anything in the image is; with a calibration, "
            "sigmoid(image_logit / temperature + bias), where nothing was copied within the image; "
            "with flips, both logits are means over the image and its two mirror images",
        }
    }
