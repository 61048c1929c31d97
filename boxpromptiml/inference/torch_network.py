"""A trained network in PyTorch, plain or compiled."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import load_localizer
from boxpromptiml.inference.maps import NetworkOutput
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.weights import require_device
from boxpromptiml.models.inputs import FloatArray


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
