"""`boxpromptiml info`: what a checkpoint, a manifest or a folder of results is."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from boxpromptiml.errors import UserError
from boxpromptiml.evaluation.matching import find_predictions
from boxpromptiml.evaluation.runs import Run
from boxpromptiml.inference.checkpoint import TorchNetwork
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.predictions import read_rows
from boxpromptiml.io.files import require_local_file, sha256_file
from boxpromptiml.io.strict_json import read_json
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.metrics.results import read_evaluation

Facts = dict[str, Any]  # plain values, for YAML


def info(path: Path) -> None:
    """Print what a file or folder is, as YAML: a localizer, a manifest, or a folder of results.

    Of a localizer: its network, input, threshold, calibration, training data, the run's scores and
    its hash. Of a manifest: its images by split and label, and what is known about them. Of a
    folder: the run, the predictions, the pseudo-masks or the evaluation in it. Files are read as
    untrusted ones: no code in them is run.

    Args:
        path: A .ckpt, .safetensors or .onnx file, a manifest (.jsonl), or a folder written by
            `fit`, `localize`, `predict`, `evaluate` or `pseudo-masks`.

    Raises:
        UserError: If it is none of these, or damaged.
    """
    # Characters that a terminal would act on are written as escapes.
    sys.stdout.write(yaml.safe_dump(facts(path), sort_keys=False, default_flow_style=None))


def facts(path: Path) -> Facts:
    """The facts about a file or folder that `info` prints, by name.

    Raises:
        UserError: If it is no localizer, manifest or folder of results, or damaged.
    """
    if path.is_dir():
        return _folder(path)
    require_local_file(path)
    return _manifest(path) if path.suffix.lower() == ".jsonl" else _localizer(path)


def _file(path: Path) -> Facts:
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _localizer(path: Path) -> Facts:
    localizer = Localizer.load(path, isolate=True)
    network, found = localizer.network, localizer.spec.to_dict()
    if isinstance(network, TorchNetwork):
        found["parameters"] = sum(values.numel() for values in network.module.parameters())
    found.setdefault("trained_on", "not recorded")
    found.setdefault("calibration", "none: measure it with `boxpromptiml calibrate`")
    return {"kind": "localizer"} | _file(path) | found | _scores(path.parent.parent)


def _scores(run: Path) -> Facts:
    """Validation and test scores of a run's folder, as far as they are there; no curves."""
    found: Facts = {}
    for split in ("val", "test"):
        if (path := run / f"metrics_{split}.json").is_file():
            scores = read_json(path)
            if isinstance(scores, dict):
                scores.pop("f1_curve", None)
            found[f"{split}_scores"] = scores
    return found


def _manifest(path: Path) -> Facts:
    manifest = read_manifest(path)
    images: Counter[str] = Counter()
    known: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    datasets: Counter[str] = Counter()
    groups = set()
    labels = {0: "authentic", 1: "manipulated", None: "label unknown"}
    for sample in manifest.samples:
        images[f"{sample.split}, {labels[sample.label]}"] += 1
        datasets[sample.dataset] += 1
        groups.add(sample.group)
        if sample.kind is not None:
            kinds[sample.kind] += 1
        for name in ("boxes", "mask", "pseudo_mask", "image_sha256"):
            known[name] += getattr(sample, name) is not None
    header = manifest.header
    return {
        "kind": "manifest",
        **_file(path),
        "images": dict(sorted(images.items())),
        "groups": len(groups),
        "datasets": dict(datasets),
        "forgery_kinds": dict(kinds),
        "images_with": dict(known),
        "image_root": header.image_root,
        "teacher_signature": header.teacher_signature,
        "notes": header.notes,
    }


def _folder(path: Path) -> Facts:
    if (path / "config.yaml").is_file():
        return _run(path)
    if (path / "metrics.json").is_file():
        metrics = read_evaluation(path).metrics
        kept = {name: value for name, value in metrics.items() if name not in ("curves", "groups")}
        return {"kind": "evaluation", "folder": str(path)} | kept
    if (path / "summary.json").is_file():
        summary = read_json(path / "summary.json")
        return {"kind": "pseudo-masks", "folder": str(path), "summary": summary}
    if (path / "predictions.jsonl").is_file():
        return _predictions(path)
    if (path / "model.safetensors").is_file():
        return _localizer(path / "model.safetensors")
    raise UserError(
        f"{path}: no folder of `fit`, `localize`, `predict`, `evaluate`, `pseudo-masks` or "
        "`save_pretrained`"
    )


def _run(path: Path) -> Facts:
    run = Run.open(path)
    checkpoints = [
        file for file in (run.checkpoint("best"), run.checkpoint("last")) if file.is_file()
    ]
    return {
        "kind": "run",
        "folder": str(path),
        "model": run.config.get("model"),
        "data": run.config["data"],
        "checkpoints": [_file(file) for file in checkpoints],
    } | _scores(path)


def _predictions(path: Path) -> Facts:
    rows = read_rows(path)
    files, _ = find_predictions(path)
    found: Facts = {"kind": "predictions", "folder": str(path), "maps": len(files)}
    if not rows:  # of `predict`, which gives the run's own threshold no column
        return found
    for name in ("threshold", "fpr", "image_threshold", "calibrated", "made_by"):
        found[name] = sorted({getattr(row, name) for row in rows.values()}, key=str)
    found["flagged_images"] = sum(row.area > 0 for row in rows.values())
    return found
