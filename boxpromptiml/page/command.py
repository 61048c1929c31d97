"""`boxpromptiml page`: try a student and a teacher on single images, in the browser."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from boxpromptiml.errors import UserError
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.page.service import Desk
from boxpromptiml.records import ModelType
from boxpromptiml.teachers.config import TeacherName, make_teacher
from boxpromptiml.teachers.consensus import Consensus


def page(
    checkpoint: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
    teacher: TeacherName = "grabcut",
    teacher_checkpoint: Path | None = None,
    model_type: ModelType | None = None,
    copies: int = 5,
    jitter: float = 0.05,
    device: str = "cpu",
) -> None:
    """A page in the browser: upload an image, draw a box, see pseudo-mask and map; ends on Ctrl-C.

    Needs the extra `demo`. By default it listens on this machine only. It has no password and
    contacts no other machine; uploads are decoded in a separate process and deleted at the end, at
    the latest after two hours.

    Args:
        checkpoint: A checkpoint of `boxpromptiml fit`, a .safetensors or .onnx file of `export`, or
            a folder of `save_pretrained`. Default: the student that ships with the package.
        host: Address to listen on; 0.0.0.0 admits everybody who can reach this machine.
        port: Port to listen on.
        teacher: grabcut needs no weights; sam needs a checkpoint.
        teacher_checkpoint: SAM's weights (.pth or .safetensors), a local file.
        model_type: SAM's architecture; vit_h by default.
        copies: Number of prompts per box: the box itself and jittered copies, to show where the
            teacher is unsure; `pseudo-masks` uses 1 by default.
        jitter: How far a side of a copy moves, as a fraction of the box.
        device: Where the networks run (cpu, cuda).

    Raises:
        UserError: If an option cannot be used, or the extra `demo` is not installed.
    """
    consensus = Consensus(copies, jitter)
    is_sam = teacher == "sam"
    asked = make_teacher(
        teacher,
        teacher_checkpoint,
        model_type,
        device if is_sam else None,  # the student's device too
        checkpoint_option="--teacher_checkpoint",
    )
    with TemporaryDirectory() as uploads, IsolatedDecoder() as decode:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            from boxpromptiml.page.app import build, serve  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise UserError(f'{error.name} is not installed: pip install -e ".[demo]"') from error
        localizer = Localizer.load(checkpoint, device)
        blocks = build(Desk(localizer, asked, consensus, decode, Lock()))
        sys.stdout.write(f"{serve(blocks, host, port)} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        blocks.block_thread()
