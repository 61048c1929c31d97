"""Where commands write: over what an earlier run made, and nothing else.

Each kind of output is listed once, below. A file is known by bytes that it holds, a folder by a
hidden file that the command leaves in it first, or by such bytes in one of its files.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import locked, open_regular, refuse_address
from boxpromptiml.io.folders import make_folder

_SEARCHED = 1 << 20  # bytes at either end of a file
_EMPTY = 3  # bytes, such as those of [] and a line break


@dataclass(frozen=True)
class OutputFile:
    """A kind of file that `--out` may name.

    Attributes:
        mark: Bytes that such files, and hardly any others, hold.
        endings: Of which its name has one.
    """

    mark: bytes
    endings: tuple[str, ...]

    def require(self, out: Path, *inputs: Path) -> None:
        """Refuse a path where such a file may not be written.

        Args:
            out: The file to write.
            inputs: Files that the job reads and that it must not replace.

        Raises:
            UserError: If the name has another ending, or something is there that is not of this
                kind, an input, a folder or a device.
        """
        refuse_address(out)
        if out.suffix.lower() not in self.endings:
            wanted = " or ".join(self.endings)
            raise UserError(f"--out {out}: its name must end in {wanted or 'no suffix'}")
        self.require_ours(out, *inputs)

    def is_of(self, path: Path) -> bool:
        """Whether a file is of this kind."""
        return _holds(path, self.mark)

    def require_ours(self, out: Path, *inputs: Path) -> None:
        """The same for a file whose name the command chooses."""
        if not out.exists():
            return
        if any(path.exists() and out.samefile(path) for path in inputs):
            raise UserError(f"--out {out}: is what the job reads; name another file")
        is_empty = out.is_file() and out.stat().st_size <= _EMPTY
        if not is_empty and not self.is_of(out):
            raise UserError(f"{out}: is there, and not of an earlier job; move it, or name another")


def _holds(path: Path, mark: bytes) -> bool:
    """Whether a file holds some bytes, at its start or its end if it is large."""
    try:
        with open_regular(path) as stream:
            start = stream.read(_SEARCHED)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _SEARCHED))
            return mark in start or mark in stream.read(_SEARCHED)
    except OSError:
        return False


@dataclass(frozen=True)
class OutputFolder:
    """What a command writes into a folder.

    Attributes:
        command: Its name.
        parts: Names of the files and folders that it writes there and others might, too.
        signs: Patterns of files, and bytes in the first of them, that tell the same as the hidden
            file, which may not have been copied with the folder; or of folders, and no bytes.
    """

    command: str
    parts: tuple[str, ...]
    signs: Mapping[str, bytes | None] = field(default_factory=dict)

    def require(self, out: Path) -> None:
        """Refuse a folder in which something of somebody else would be replaced.

        Raises:
            UserError: Naming it.
        """
        refuse_address(out)
        if out.exists() and not out.is_dir():
            raise UserError(f"--out {out}: is a file; name a folder")
        links = (out / name for name in self.parts if (out / name).is_symlink())
        if link := next((path for path in links if path.is_dir()), None):
            raise UserError(f"{link}: is a link to a folder; remove it, or name another")
        found = [out / name for name in self.parts if os.path.lexists(out / name)]
        if found and not self._is_ours(out):
            raise UserError(
                f"{found[0]}: is there, and not made by `{self.command}` as far as one can tell: "
                f"move it or name another folder; or, if it was, create {out / self._mark}"
            )

    def mark(self, out: Path) -> None:
        """Make the folder, and tell later runs that what they find there is of this command.

        Raises:
            UserError: As `require`.
        """
        self.require(out)
        make_folder(out)
        if os.path.lexists(out / self._mark):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        os.close(os.open(out / self._mark, flags, 0o666))

    @contextmanager
    def hold(self, out: Path) -> Iterator[None]:
        """Make and mark the folder, and keep all other jobs out of it meanwhile.

        Raises:
            UserError: As `require`, and if another job holds it.
        """
        self.require(out)
        with locked(out):
            self.mark(out)
            yield

    def _is_ours(self, out: Path) -> bool:
        return os.path.lexists(out / self._mark) or any(
            path.is_dir() if mark is None else _holds(path, mark)
            for pattern, mark in self.signs.items()
            for path in islice(out.glob(pattern), 1)
        )

    @property
    def _mark(self) -> str:
        return f".made_by_{self.command}"


EXPORT_BOXES = "data_prep export-boxes"  # said in every file of boxes for other programs

MANIFEST = OutputFile(b'"image_root"', (".jsonl",))
REJECTIONS = OutputFile(b'"reason"', (".jsonl",))
CONFIGURATION = OutputFile(b"# lightning.pytorch==", (".yaml",))
CHECKPOINT = OutputFile(b"GuardedCheckpoint", (".ckpt",))
METRICS = OutputFile(b'"f1_curve"', (".json",))
REPORT = OutputFile(b'content="boxpromptiml report"', (".html", ".htm"))
COMPLEXITY = OutputFile(b'"multiply_adds"', (".json",))
EXPORTED = OutputFile(b"normalisation", (".onnx", ".safetensors"))


def calibrated(ending: str) -> OutputFile:
    """A checkpoint with a calibration; `ending` is that of the checkpoint without."""
    return OutputFile(b"pixel_thresholds", (ending.lower(),))


def boxes_for_others(ending: str) -> OutputFile:
    """Boxes in the format of another program."""
    return OutputFile(EXPORT_BOXES.encode(), (ending,))


def files_of_import(out: Path, rejections: Path) -> OutputFolder:
    """What `import` writes beside the manifest `out`."""
    parts = f"{out.stem}.masks", f"{out.stem}.files"
    signs = {out.name: MANIFEST.mark, rejections.name: REJECTIONS.mark}
    return OutputFolder(f"import_{out.stem}", parts, signs)


_PREDICTED = ("prob", "predictions.jsonl")
_MADE = ("masks", "manifest.jsonl", "errors.jsonl", "contact_sheet.jpg")

LOCALIZED = OutputFolder(
    "localize",
    (*_PREDICTED, "mask", "overlay", "predictions.csv", "errors.jsonl", "case.html"),
    {"predictions.jsonl": b'"made_by"'},
)
PREDICTED = OutputFolder("predict", _PREDICTED, {"predictions.jsonl": b'{"id": '})
PSEUDO_MASKS = OutputFolder(
    "pseudo-masks",
    (*_MADE, "summary.json"),
    {
        "manifest.jsonl": b'"pseudo_root": ".", "teacher_signature": "',
        "masks/**/*.json": b'"mask_sha256"',  # of shards, or of a job that was killed
    },
)
FORGERIES = OutputFolder("forgeries", (*_MADE, "images", "provenance"), {"provenance": None})
CHECKED = OutputFolder(
    "check", ("check.json", "errors.jsonl", "report.html"), {"check.json": b'"verified"'}
)
EVALUATED = OutputFolder(
    "evaluate", ("metrics.json", "per_image.csv"), {"metrics.json": b'"preset"'}
)
ROBUSTNESS = OutputFolder(
    "robustness",
    ("robustness.json", "robustness.csv", "robustness.png", "robustness.svg"),
    {"robustness.json": b'"conditions"'},
)
STUDY = OutputFolder(
    "study", ("study.json", "study.md", "study.png", "study.svg"), {"study.json": b'"variants"'}
)
DEMO = OutputFolder("demo", ("metrics.json", "report.html"), {"metrics.json": b'"pseudo_iou"'})
PLOTS = OutputFolder("report", ("plots",), {"report.html": REPORT.mark})
MODEL_CARD = OutputFile(b"library_name: boxpromptiml", (".md",))
