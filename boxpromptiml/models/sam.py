"""Loads Segment Anything from a local weights file and checks the file's identity.

The network itself (Kirillov et al., ICCV 2023, https://arxiv.org/abs/2304.02643) comes from the
package segment-anything; `vit_t` is MobileSAM.
"""

from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import require_local_file, sha256_file
from boxpromptiml.io.weights import load_into, load_weights
from boxpromptiml.models.mobile_sam import FIRST_WEIGHT, build_mobile_sam, renamed
from boxpromptiml.records import ModelType

# SHA-256 of the files at dl.fbaipublicfiles.com/segment_anything. The digits in their names are
# the start of the MD5, not of the SHA-256.
OFFICIAL_SHA256 = {
    "sam_vit_h_4b8939.pth": "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    "sam_vit_l_0b3195.pth": "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    "sam_vit_b_01ec64.pth": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
}
_WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which tools save weights
_POSITION = "image_encoder.pos_embed"
_WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}  # channels of the image encoder


def load_sam(checkpoint: Path, model_type: ModelType) -> tuple[Sam, str]:
    """Build SAM with the weights of a local file.

    Returns:
        The network on the CPU, and the SHA-256 of the file.

    Raises:
        UserError: If the file has an official name but not the official content, holds another
            architecture than `model_type`, or cannot be loaded.
    """
    require_local_file(checkpoint)
    sha256 = sha256_file(checkpoint)
    official = OFFICIAL_SHA256.get(checkpoint.name, sha256)
    if sha256 != official:
        raise UserError(
            f"{checkpoint}: is a damaged download: its SHA-256 is {sha256}, Meta's is {official}; "
            "download it again, or rename it if these weights are your own"
        )
    state = _unwrapped(load_weights(checkpoint))
    found = _architecture(state)
    if found is None:
        raise UserError(
            f"{checkpoint}: holds no weights of Segment Anything in the layout of Meta's files; "
            "SAM 2 and transformers files do not fit"
        )
    if found != model_type:
        raise UserError(
            f"{checkpoint}: holds {found} weights, not {model_type}; set model_type to {found}"
        )
    if model_type == "vit_t":
        sam, state = build_mobile_sam(), renamed(state)
    else:
        sam = sam_model_registry[model_type](checkpoint=None)
    load_into(sam, state, checkpoint)
    return sam, sha256


def _unwrapped(state: dict[str, Any]) -> dict[str, Any]:
    """The weights in Meta's names, out of what fine-tuning tools put around them.

    That is a dictionary such as `{"model": ...}`, and a prefix of all names such as `module.`.
    """
    for wrapper in _WRAPPERS:
        inner = state.get(wrapper)
        if isinstance(inner, dict) and all(isinstance(key, str) for key in inner):
            return _unwrapped(inner)
    prefix = ""
    for known in (_POSITION, FIRST_WEIGHT):
        prefix = next((key.removesuffix(known) for key in state if key.endswith(known)), prefix)
    if not all(key.startswith(prefix) for key in state):
        return state
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _architecture(state: dict[str, Any]) -> str | None:
    """The model type that a state dict most likely belongs to, from the encoder's width."""
    if FIRST_WEIGHT in state:
        return "vit_t"
    position = state.get(_POSITION)
    return _WIDTHS.get(position.shape[-1]) if isinstance(position, torch.Tensor) else None
