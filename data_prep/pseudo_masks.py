"""`python -m data_prep pseudo-masks`: boxes to pseudo-masks by a teacher."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.io.images import write_jpeg
from boxpromptiml.io.options import ProcessCount, needs
from boxpromptiml.io.ray_engine import EngineName, chosen_engine
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import ModelType, Teacher
from boxpromptiml.teachers.config import (
    EncoderPrecision,
    TeacherName,
    TeacherOnDemand,
    make_teacher,
)
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.pseudo_masks import run_job
from boxpromptiml.teachers.shards import Shard
from data_prep.contact_sheet import MAX_SHOWN, contact_sheet, pseudo_mask_cell

_MIN_SCORE = {"grabcut": 0.0, "sam": 0.5}


@needs("jitter", "copies")
@needs("num_shards", "shard")
@needs("show", "shard", None)
@needs("address gpus_per_worker", "engine", "ray")
@needs("teacher_checkpoint model_type device multimask margin precision", "teacher", "sam")
def pseudo_masks(
    manifest: Path,
    out: Path,
    teacher: TeacherName = "grabcut",
    teacher_checkpoint: Path | None = None,
    model_type: ModelType | None = None,
    device: str = "auto",
    multimask: bool | None = None,
    margin: float | None = None,
    copies: int = 1,
    jitter: float = 0.05,
    min_score: float | None = None,
    precision: EncoderPrecision | None = None,
    show: Annotated[int, Ge(0), Le(MAX_SHOWN)] = 0,
    num_workers: ProcessCount = 0,
    shard: int | None = None,
    num_shards: int = 1,
    engine: EngineName = "processes",
    address: str | None = None,
    gpus_per_worker: float = 0.0,
    allow_remote: bool = False,
) -> int:
    """Generate a pseudo-mask for every box (resumable).

    Writes into `out`: masks/ (PNG 0 authentic, 127 unsure, 255 manipulated, each with a sidecar),
    manifest.jsonl (to train on), errors.jsonl and summary.json (counts, the teacher's fingerprint,
    audit against ground truth where there is one). Exit status 3 if an image was rejected.

    With --shard only the masks of one part are made, and the exit status is 0 even if images were
    rejected; parts may run at once, on any machines that see the folder. Run the same command
    without --shard afterwards: it makes what is still missing and writes the other files
    (docs/scale.md).

    Args:
        manifest: Images and boxes.
        out: Folder to write.
        teacher: grabcut needs no weights; sam needs --teacher_checkpoint; or your own, such as
            mylab.Teacher (with --trust mylab).
        teacher_checkpoint: SAM's weights (.pth or .safetensors), a local file.
        model_type: SAM's architecture (default: vit_h); vit_t is MobileSAM.
        device: Where SAM runs: cpu or cuda; auto: a GPU if there is one, except for workers to
            which --gpus_per_worker gives none.
        multimask: Let SAM propose three masks a box and keep the one it scores highest (default:
            true).
        margin: SAM's masks are cut to the box grown by this fraction (default: 0.1).
        copies: Number of prompts a box: the box itself and jittered copies; 1 is the paper.
        jitter: How far a side of a copy moves, as a fraction of the box.
        min_score: A box is unsure where the teacher scores itself lower (default: 0.5 for SAM, its
            predicted IoU; 0 for others).
        precision: Of SAM's image encoder (default: fp32). bf16 is about twice as fast where the
            processor supports it and gives slightly different masks, with another fingerprint.
        show: Number of pseudo-masks to draw beside their photographs in contact_sheet.jpg, chosen
            at random. First come those of which the smallest fraction of the boxes is sure.
        num_workers: Worker processes; 0 for SAM on a GPU, unless Ray gives each worker one.
        shard: Part of a job array, from 0.
        num_shards: How many parts there are.
        engine: ray runs the workers with Ray (extra `ray`), and as many as there is room for if
            --num_workers is 0.
        address: Of a running Ray cluster, such as auto; every node must see the same files. By
            default Ray is started on this machine for the job.
        gpus_per_worker: GPUs that Ray gives to each worker, such as 1 or 0.5, for SAM.
        allow_remote: Fetch images of a manifest whose image_root is in an object store;
            docs/scale.md.

    Raises:
        UserError: If the manifest cannot be read, the teacher's weights do not fit, an option is
            out of range, or another job writes to the folder.
    """
    part = None if shard is None else Shard(shard, num_shards)
    ray = chosen_engine(engine, address, gpus_per_worker)
    if num_workers and not ray and device.startswith("cuda"):
        raise UserError(f"--device {device} runs in one process; leave --num_workers out")
    if device == "auto" and (not gpus_per_worker if ray else num_workers):
        device = "cpu"  # as many processes would compete for one GPU

    def made_on(device: str) -> partial[Teacher]:
        return partial(
            make_teacher,
            teacher,
            teacher_checkpoint,
            model_type,
            device,
            multimask,
            margin,
            precision,
        )

    summary = run_job(
        read_manifest(manifest, allow_remote),
        out,
        # This process of a Ray job may have no GPU, and needs the settings alone.
        TeacherOnDemand(made_on(device), made_on("cpu")().settings) if ray else made_on(device)(),
        Consensus(
            copies,
            jitter,
            min_score=_MIN_SCORE.get(teacher, 0.0) if min_score is None else min_score,
        ),
        num_workers,
        part,
        ray,
    )
    _print_summary(out, summary, part)
    if show:
        _draw_sheet(read_manifest(out / "manifest.jsonl", allow_remote), show)
    rejected = part is None and summary["status"].get("rejected")
    return EXIT_REJECTED if rejected else EXIT_OK


def _print_summary(out: Path, summary: dict[str, Any], part: Shard | None) -> None:
    """Print what was made, and how good it is where the ground truth is known."""
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


def _draw_sheet(manifest: Manifest, count: int) -> None:
    """Write contact_sheet.jpg beside a manifest, of up to `count` pseudo-masks drawn by seed 0."""
    masked = [at for at, one in enumerate(manifest.samples) if one.pseudo_mask]
    cells = []
    for at in np.random.default_rng(0).permutation(masked)[:count]:
        try:
            cells.append(pseudo_mask_cell(Source(manifest, manifest.samples[int(at)])))
        except UserError as error:
            sys.stderr.write(f"not shown: {error}\n")
    if cells:
        sheet = contact_sheet(sorted(cells, key=lambda cell: cell.order))
        write_jpeg(manifest.path.parent / "contact_sheet.jpg", sheet, quality=90)
