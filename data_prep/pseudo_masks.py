"""`python -m data_prep pseudo-masks`: boxes to pseudo-masks by a teacher."""

import sys
from pathlib import Path
from typing import Any, Literal

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.records import ModelType, Teacher
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job
from boxpromptiml.teachers.sam_encoder import Precision
from boxpromptiml.teachers.shards import Shard

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
    precision: Precision = "fp32",
    num_workers: int = 0,
    shard: int | None = None,
    num_shards: int = 1,
) -> int:
    """Answer every box of a manifest with a pseudo-mask; run it again to go on after a stop.

    Writes into `out`: masks/ (PNG 0 authentic, 127 unsure, 255 manipulated, each with a sidecar),
    manifest.jsonl (to train on), errors.jsonl and summary.json (counts, teacher's signature, audit
    against ground truth where there is one). Exit status 3 if an image was rejected.

    With --shard only the masks of one part are made, and the exit status is 0 whatever the images
    are like; parts may run at once, on any machines that see the folder. The same command without
    --shard follows: it makes what is still missing and writes the other files (docs/scale.md).

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
        precision: Of SAM's image encoder; bf16 is about twice as fast where the processor knows it,
            gives slightly other masks, and is named in their signature.
        num_workers: Processes beside this one; 0 for SAM on a GPU.
        shard: Part of a job array, from 0.
        num_shards: How many parts there are.
    """
    part = _shard(shard, num_shards)
    summary = run_job(
        read_manifest(manifest),
        out,
        _teacher(teacher, checkpoint, model_type, device, multimask, margin, precision),
        Consensus(
            copies, jitter, min_score=_MIN_SCORE[teacher] if min_score is None else min_score
        ),
        num_workers,
        part,
    )
    _tell(out, summary, part)
    rejected = part is None and summary["status"].get("rejected")
    return EXIT_REJECTED if rejected else EXIT_OK


def _tell(out: Path, summary: dict[str, Any], part: Shard | None) -> None:
    """What was made, and how good it is where the truth is known, on stdout."""
    status = ", ".join(f"{count} {name}" for name, count in summary["status"].items())
    if part:
        made = f"shard {part.index} of {part.count}: {summary['made']} made now"
        sys.stdout.write(f"{out}: {made}; {status or 'nothing to do'}\n")
        return
    sys.stdout.write(f"{out}/manifest.jsonl: {summary['made']} made now; {status}\n")
    if summary["audit"]["images"]:
        sys.stdout.write(
            f"audit of {summary['audit']['images']}: IoU {summary['audit']['iou']:.3f}, "
            f"F1 {summary['audit']['f1']:.3f}, unsure {summary['audit']['unsure']:.2%}\n"
        )


def _shard(shard: int | None, num_shards: int) -> Shard | None:
    if shard is None and num_shards != 1:
        raise UserError(
            "--num_shards needs --shard, 0 to num_shards - 1; a run of the whole neither"
        )
    return None if shard is None else Shard(shard, num_shards)


def _teacher(
    name: str,
    checkpoint: Path | None,
    model_type: ModelType,
    device: str,
    multimask: bool,
    margin: float,
    precision: Precision,
) -> Teacher:
    if name == "grabcut":
        if checkpoint is not None:
            raise UserError("--checkpoint belongs to --teacher sam; grabcut has no weights")
        if precision != "fp32":
            raise UserError("--precision belongs to --teacher sam; grabcut has no network")
        return GrabCutTeacher()
    if checkpoint is None:
        raise UserError("--teacher sam needs --checkpoint FILE (.pth or .safetensors)")
    from boxpromptiml.teachers.sam import SamTeacher  # noqa: PLC0415

    return SamTeacher.from_checkpoint(
        checkpoint, model_type, device, multimask, margin, precision=precision
    )
