"""Localize manipulated pixels with NumPy, Pillow and ONNX Runtime, without boxpromptiml or PyTorch.

    boxpromptiml export --checkpoint last.ckpt --out student.onnx
    python localize_onnx.py student.onnx photo.jpg prob.png

Writes the probability as grey levels, round(255 p), and prints image score and flagged share.
Left out: the refinement of an image-label network's coarse map by regions, mirror images, and
copies within the image; where a score was calibrated with these, the network's own is printed.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, which would ask its maker's server
import onnxruntime

Array = npt.NDArray[Any]


def area_weights(length: int, size: int) -> Array:
    """(size, length): the share of every old pixel in every new one."""
    start, old = np.arange(size)[:, None] * length / size, np.arange(length)
    overlap = np.minimum(start + length / size, old + 1) - np.maximum(start, old)
    return (overlap.clip(0) * size / length).astype(np.float32)


def line_weights(length: int, size: int) -> Array:
    """(size, length) of bilinear resampling, pixels' centres at 0.5."""
    place = ((np.arange(size)[:, None] + 0.5) * length / size - 0.5).clip(0, length - 1)
    return (1 - abs(place - np.arange(length))).clip(0).astype(np.float32)


def resized(array: Array, size: Sequence[int], weights: Callable[[int, int], Array]) -> Array:
    """(h, w, C) of (H, W, C)."""
    rows, columns = weights(array.shape[0], size[0]), weights(array.shape[1], size[1])
    return np.einsum("hH,HWc,wW->hwc", rows, array, columns, optimize=True)


def error_levels(image: Array, quality: int) -> Array:
    """What one more JPEG compression takes from an image (H, W, 3), in [-1, 1]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return (np.subtract(image, np.asarray(Image.open(file)), dtype=np.float32) / 16).clip(-1, 1)


def localize(session: Any, spec: dict[str, Any], image: Array) -> tuple[Array, float]:
    """Probabilities (H, W) and image score of an RGB image (H, W, 3) uint8."""
    levels = [error_levels(image, quality) for quality in spec["input"]["error_levels"]]
    if spec["input"].get("mode", spec["input"].get("fit")) == "resize":
        size = spec["input"]["size"]
        levels = [resized(level, size, area_weights) for level in levels]
        fitted = np.rint(resized(image, size, area_weights))
    else:
        fitted = image
    fed = np.concatenate([fitted / 255, *levels], axis=2).transpose(2, 0, 1)[None]
    logits, image_logit = session.run(None, {"image": fed.astype(np.float32)})
    logits = resized(logits[0].transpose(1, 2, 0), image.shape[:2], line_weights)[..., 0]
    known = {} if spec.get("copy_move") or spec.get("flips") else spec.get("calibration", {})
    image_logit = image_logit[0] / known.get("temperature", 1) + known.get("bias", 0)
    return 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-image_logit))


if __name__ == "__main__":
    model, photo, out = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    spec = json.loads(session.get_modelmeta().custom_metadata_map["boxpromptiml"])
    prob, score = localize(session, spec, np.asarray(Image.open(photo).convert("RGB")))
    Image.fromarray(np.rint(prob * 255).astype(np.uint8)).save(out)
    flagged = (prob > spec["threshold"]).mean()
    sys.stdout.write(f"image score {score:.4f}, flagged {flagged:.4f}\n")
