"""`boxpromptiml annotate` and `boxpromptiml page`: draw boxes in the browser."""

import getpass
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from boxpromptiml.annotate.desk import Desk
from boxpromptiml.annotate.layers import Layers
from boxpromptiml.annotate.order import Order, most_useful_first, shuffled
from boxpromptiml.annotate.photographs import Album, Photograph, find_photographs
from boxpromptiml.annotate.server import serve
from boxpromptiml.annotate.storage import (
    Storage,
    errors_path,
    in_same_folder,
    manifest_path,
    open_out,
    write_errors,
)
from boxpromptiml.annotate.summary import summary_text
from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, RejectedInput, UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.inference.shipped import weights_file
from boxpromptiml.io.files import locked_file, require_local_file, sha256_file
from boxpromptiml.io.options import needs
from boxpromptiml.io.progress import note
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.io.weights import found_device, require_device
from boxpromptiml.records import ModelType, Split, Teacher
from boxpromptiml.teachers.config import TeacherName, make_teacher
from boxpromptiml.teachers.consensus import Consensus

_MAX_PHOTOGRAPHS = 50_000  # all of them are written at every step, and read at the start


@needs("jitter", "copies")
@needs("teacher_checkpoint model_type", "teacher", "sam")
@needs(
    "images out checkpoint teacher copies annotator name split port device order",
    "summary",
    None,
)
def annotate(
    images: Path | None = None,
    out: Path | None = None,
    summary: Path | None = None,
    checkpoint: Path | None = None,
    teacher: TeacherName = "grabcut",
    teacher_checkpoint: Path | None = None,
    model_type: ModelType | None = None,
    copies: int = 1,
    jitter: float = 0.05,
    order: Order = "name",
    annotator: str | None = None,
    name: str | None = None,
    split: Split = "train",
    port: int = 0,
    device: str = "auto",
) -> int:
    """Draw boxes around what looks manipulated, in the browser; Ctrl-C ends it.

    Serves a page on this machine and prints its address. Everything is saved at once, in `out`
    (COCO, in stored pixels; `import-boxes --format coco --view stored` reads it) and in a manifest
    beside it, `.jsonl`, for `pseudo-masks` and `fit`. The same command goes on where it was. Files
    that are no image are listed in `.errors.jsonl`, and the exit status is 3.

    Args:
        images: Folder of photographs, with all below.
        out: COCO file to write (.json).
        summary: Only print counts and seconds per photograph of this file of an earlier run.
        checkpoint: Student whose map can be shown: a checkpoint of `boxpromptiml fit`, a
            .safetensors or .onnx file of `export`, or a folder of `save_pretrained`. Default: the
            student that ships with the package.
        teacher: Proposes the pseudo-mask that is shown: grabcut needs no weights; sam needs a
            checkpoint.
        teacher_checkpoint: SAM's weights (.pth or .safetensors), a local file.
        model_type: SAM's architecture; vit_h by default.
        copies: Number of prompts per box, as in `pseudo-masks`.
        jitter: How far a side of a copy moves, as a fraction of the box.
        order: Which photographs come first: by name, shuffled (random), or those on which student
            and teacher disagree most (useful), which looks at each before the start and did not
            beat a random order in a simulation (docs/results.md).
        annotator: Who draws; the name of the account by default.
        name: Name of the dataset in the manifest; the folder's by default.
        split: Split of all images in the manifest.
        port: Port to listen on; any free one by default.
        device: Where the networks run: cpu or cuda; auto: a GPU if there is one.

    Raises:
        UserError: If an option cannot be used, or somebody else is annotating into `out`.
    """
    if summary is not None:
        sys.stdout.write(summary_text(summary))
        return EXIT_OK
    if images is None or out is None:
        raise UserError("annotate needs --images FOLDER and --out boxes.json (or --summary FILE)")
    layers = _layers(checkpoint, teacher, teacher_checkpoint, model_type, copies, jitter, device)
    with locked_file(out, *_beside(out)), IsolatedDecoder() as decode:
        storage, photographs, rejected = _opened(images, out, name, split)
        album = Album(images, photographs, decode)
        if order == "random":
            album = Album(images, shuffled(photographs), decode)
        elif order == "useful":
            weights = sha256_file(weights_file(checkpoint))
            found = most_useful_first(
                album, layers.student, weights, layers.teacher, _scores_path(out)
            )
            album = Album(images, found, decode)
        serve(Desk(album, layers, storage, annotator or _account(), _settings(teacher)), port)
    sys.stdout.write(summary_text(out))
    sys.stdout.write(
        f"next: python -m data_prep pseudo-masks --manifest {manifest_path(out)} --out PSEUDO\n"
    )
    return EXIT_REJECTED if rejected else EXIT_OK


def _beside(out: Path) -> list[Path]:
    """What `annotate` writes beside its COCO file."""
    return [manifest_path(out), errors_path(out), _scores_path(out)]


def _opened(
    images: Path, out: Path, name: str | None, split: Split
) -> tuple[Storage, list[Photograph], list[RejectedInput]]:
    """The annotations of an earlier run or none, the folder's photographs, and its other files."""
    saved = open_out(out)
    ours = [out, *_beside(out)]
    photographs, rejected = find_photographs(images, saved.photographs, ours)
    if not in_same_folder(saved, {one.name: one for one in photographs}):
        raise UserError(f"{out}: is of other photographs than {images}; choose another --out")
    if len(photographs) > _MAX_PHOTOGRAPHS:
        raise UserError(f"{images}: more than {_MAX_PHOTOGRAPHS} photographs; divide the folder")
    dataset = name or images.resolve().name or "photographs"
    storage = Storage(out, images, photographs, saved, dataset, split)
    write_errors(out, rejected)
    if rejected:
        note(f"{len(rejected)} other files, listed in {errors_path(out)}")
    return storage, photographs, rejected


@needs("jitter", "copies")
@needs("teacher_checkpoint model_type", "teacher", "sam")
def page(
    checkpoint: Path | None = None,
    images: Path | None = None,
    teacher: TeacherName = "grabcut",
    teacher_checkpoint: Path | None = None,
    model_type: ModelType | None = None,
    copies: int = 1,
    jitter: float = 0.05,
    port: int = 0,
    device: str = "auto",
) -> None:
    """Try a teacher and a student in the browser, without saving anything; Ctrl-C ends it.

    Upload photographs, or choose those of a folder; draw a box, see its pseudo-mask and the
    student's map. Uploads stay in memory and are decoded in a separate process.

    Args:
        checkpoint: Student, as for `annotate`: by default the one that ships with the package.
        images: Folder of photographs to choose from.
        teacher: grabcut needs no weights; sam needs a checkpoint.
        teacher_checkpoint: SAM's weights (.pth or .safetensors), a local file.
        model_type: SAM's architecture; vit_h by default.
        copies: Number of prompts per box; more than 1 show where the teacher is unsure.
        jitter: How far a side of a copy moves, as a fraction of the box.
        port: Port to listen on; any free one by default.
        device: Where the networks run: cpu or cuda; auto: a GPU if there is one.

    Raises:
        UserError: If an option cannot be used.
    """
    layers = _layers(checkpoint, teacher, teacher_checkpoint, model_type, copies, jitter, device)
    photographs: Sequence[Photograph] = find_photographs(images, {})[0] if images else []
    with IsolatedDecoder() as decode:
        desk = Desk(Album(images, photographs, decode), layers, None, "", _settings(teacher))
        serve(desk, port)


def _layers(
    checkpoint: Path | None,
    teacher: TeacherName,
    teacher_checkpoint: Path | None,
    model_type: ModelType | None,
    copies: int,
    jitter: float,
    device: str,
) -> Layers:
    require_device(found_device(device))
    consensus = Consensus(copies, jitter)
    asked: Teacher = make_teacher(teacher, teacher_checkpoint, model_type, device)
    if checkpoint is not None:
        require_local_file(weights_file(checkpoint))
    return Layers(asked, consensus, partial(Localizer.load, checkpoint, device, isolate=True))


def _scores_path(out: Path) -> Path:
    """The disagreements that `--order useful` keeps beside a COCO file."""
    return out.parent / f"{out.stem}.order.json"


def _settings(teacher: TeacherName) -> dict[str, Any]:
    return {"teacher": teacher, "live": teacher == "grabcut"}


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in containers
        return "unknown"
