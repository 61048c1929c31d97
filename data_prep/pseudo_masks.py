"""`python -m data_prep pseudo-masks`: boxes to pseudo-masks by a teacher."""

import sys
from pathlib import Path
from typing import Literal

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.manifest import read_manifest
from boxpromptiml.records import Teacher
from boxpromptiml.sam_weights import ModelType
from boxpromptiml.teacher.fuse import Consensus
from boxpromptiml.teacher.grabcut import GrabCutTeacher
from boxpromptiml.teacher.job import run_job

_MIN_SCORE = {"grabcut": 0.0, "sam": 0.5}


def pseudo_masks(
    manifest: Path,
    out: Path,
    teacher: Literal["grabcut", "sam"] = "grabcut",
    checkpoint: Path | None = None,
    model_type: ModelType = "vit_h",
    device: str = "cpu",
    multimask: bool = True,
    margin: float = 0.1,
    copies: int = 1,
    jitter: float = 0.05,
    min_score: float | None = None,
    num_workers: int = 0,
) -> int:
    """Answer every box of a manifest with a pseudo-mask; run it again to go on after a stop.

    Writes into `out`: masks/ (PNG 0 authentic, 127 unsure, 255 manipulated, each with a sidecar),
    manifest.jsonl (to train on), errors.jsonl and summary.json (counts, teacher's signature, audit
    against ground truth where there is one). Exit status 3 if an image was rejected.

    Args:
        manifest: Images and boxes.
        out: Folder to write.
        teacher: grabcut needs no weights; sam needs a checkpoint.
        checkpoint: SAM's weights (.pth or .safetensors), a local file.
        model_type: Which SAM the checkpoint is.
        device: Where SAM runs (cpu, cuda).
        multimask: SAM gives three answers a box and the best by its own score is kept.
        margin: SAM's answers are cut to the box grown by this fraction.
        copies: Jittered copies of every box that are asked; 1 is the paper.
        jitter: How far a side of a copy moves, as a fraction of the box.
        min_score: A box is unsure where the teacher scores itself lower; 0.5 for SAM (its predicted
            IoU), 0 for GrabCut by default.
        num_workers: Processes beside this one; 0 for SAM on a GPU.
    """
    summary = run_job(
        read_manifest(manifest),
        out,
        _teacher(teacher, checkpoint, model_type, device, multimask, margin),
        Consensus(
            copies, jitter, min_score=_MIN_SCORE[teacher] if min_score is None else min_score
        ),
        num_workers,
    )
    status = ", ".join(f"{count} {name}" for name, count in summary["status"].items())
    sys.stdout.write(f"{out}/manifest.jsonl: {summary['made']} made now; {status}\n")
    if summary["audit"]["images"]:
        sys.stdout.write(
            f"audit of {summary['audit']['images']}: IoU {summary['audit']['iou']:.3f}, "
            f"F1 {summary['audit']['f1']:.3f}, unsure {summary['audit']['unsure']:.2%}\n"
        )
    return EXIT_REJECTED if summary["status"].get("rejected") else EXIT_OK


def _teacher(
    name: str,
    checkpoint: Path | None,
    model_type: ModelType,
    device: str,
    multimask: bool,
    margin: float,
) -> Teacher:
    if name == "grabcut":
        if checkpoint is not None:
            raise UserError("--checkpoint belongs to --teacher sam; grabcut has no weights")
        return GrabCutTeacher()
    if checkpoint is None:
        raise UserError("--teacher sam needs --checkpoint FILE (.pth or .safetensors)")
    from boxpromptiml.teacher.sam import SamTeacher  # noqa: PLC0415

    return SamTeacher.from_checkpoint(checkpoint, model_type, device, multimask, margin)
