"""What people said of photographs, in two files: COCO for other tools, a manifest for our jobs.

The COCO file is the truth. It holds more than COCO asks for, which other tools ignore: verdict,
annotator, time, and seconds spent. The manifest beside it is written anew from it.
"""

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import ConfigDict, TypeAdapter

from boxpromptiml.annotate.photographs import Photograph
from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io.files import sha256_file, write_json, write_jsonl
from boxpromptiml.io.outputs import REJECTIONS
from boxpromptiml.io.strict_json import read_as
from boxpromptiml.manifests.coco import to_coco
from boxpromptiml.manifests.manifest import (
    Header,
    problem_of,
    read_manifest,
    relative_root,
    write_manifest,
)
from boxpromptiml.records import Box, Sample, Split

Verdict = Literal["manipulated", "authentic", "skipped"]

DECIMALS = 2  # of a box's sides in stored pixels

_MADE_BY = "boxpromptiml annotate"
_LABELS: dict[Verdict | None, int] = {"manipulated": 1, "authentic": 0}


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a person said of one photograph.

    Attributes:
        verdict: `manipulated` if there are boxes; None if nobody has decided.
        boxes: In stored pixels.
        finished: Whether the person has gone on to the next photograph.
        seconds: Time spent on it, over all visits.
        annotator: Who decided last.
        annotated_at: When, ISO 8601 in UTC.
    """

    verdict: Verdict | None = None
    boxes: tuple[Box, ...] = ()
    finished: bool = False
    seconds: float = 0.0
    annotator: str | None = None
    annotated_at: str | None = None


_STRICT = ConfigDict(strict=True, allow_inf_nan=False)  # what other tools add is ignored


@dataclass(frozen=True, slots=True)
class _ImageRow:
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: int
    file_name: str
    height: int
    width: int
    sha256: str
    orientation: Annotated[int, Ge(1), Le(8)]
    verdict: Verdict | None
    finished: bool
    seconds: Annotated[float, Ge(0)]
    annotator: str | None
    annotated_at: str | None


@dataclass(frozen=True, slots=True)
class _BoxRow:
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    image_id: int
    bbox: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Content:
    info: dict[str, Any]
    images: list[_ImageRow]
    annotations: list[_BoxRow]


_CONTENT = TypeAdapter(_Content)


class Outdated(Exception):  # noqa: N818 - not an error of the program
    """Somebody else has changed an annotation in the meantime."""


@dataclass(frozen=True, slots=True)
class Saved:
    """The content of a COCO file.

    Attributes:
        photographs: By name.
        annotations: What was said of a photograph, by its name.
    """

    photographs: dict[str, Photograph] = field(default_factory=dict)
    annotations: dict[str, Annotation] = field(default_factory=dict)


def read_saved(path: Path) -> Saved:
    """Read a COCO file of `annotate`.

    Raises:
        UserError: If it is not one, or was damaged.
    """
    content = read_as(_CONTENT, path)
    if content.info.get("made_by") != _MADE_BY:
        raise UserError(f"{path}: was not written by `{_MADE_BY}`; name another file")
    boxes: dict[int, list[Box]] = {row.id: [] for row in content.images}
    for box in content.annotations:
        x, y, width, height = box.bbox
        if box.image_id not in boxes:
            raise UserError(f"{path}: a box is of image {box.image_id}, which is not listed")
        sides = (x, y, x + width, y + height)
        boxes[box.image_id].append(Box(*(round(side, DECIMALS) for side in sides)))
    saved = Saved()
    for row in content.images:
        name, size = row.file_name, (row.height, row.width)
        if (row.verdict == "manipulated") != bool(boxes[row.id]):
            raise UserError(
                f"{path}: {name} has {len(boxes[row.id])} boxes and the verdict {row.verdict!r}; "
                "what is manipulated has boxes, nothing else has"
            )
        saved.photographs[name] = Photograph(name, size, row.orientation, row.sha256)
        saved.annotations[name] = Annotation(
            row.verdict, tuple(boxes[row.id]), row.finished, row.seconds,
            row.annotator, row.annotated_at,
        )  # fmt: skip
    if len(saved.photographs) != len(content.images) or len(boxes) != len(content.images):
        raise UserError(f"{path}: two images share an id or a file_name")
    return saved


class Storage:
    """The annotations of a folder, saved after every change. Methods may be called by any thread.

    Args:
        out: The COCO file, `.json`; the manifest is written beside it, as `.jsonl`.
        folder: Folder of the photographs.
        photographs: All of them.
        saved: Content of the file at the start. Photographs that have left the folder are kept.
        dataset: Name of the dataset in the manifest.
        split: Split of all samples.

    Raises:
        UserError: If an annotation of the file is impossible; nothing is written.
    """

    def __init__(
        self,
        out: Path,
        folder: Path,
        photographs: Iterable[Photograph],
        saved: Saved,
        dataset: str,
        split: Split,
    ) -> None:
        self._out, self._dataset, self._split = out, dataset, split
        self._roots = [relative_root(path, folder) for path in (out, manifest_path(out))]
        self._photographs = saved.photographs | {one.name: one for one in photographs}
        self._annotations = dict(saved.annotations)
        self._revisions: Counter[str] = Counter()
        self._lock = Lock()
        self._written: dict[Path, str] = {}  # hashes of our two files as we left them
        for sample in self._samples():
            if problem := problem_of(sample):
                raise UserError(f"{out}: {sample.image}: {problem}")
        self._write()

    def get(self, name: str) -> tuple[Annotation, int]:
        """The annotation of a photograph, at first empty, and its revision, which saving raises."""
        with self._lock:
            return self._annotations.get(name, Annotation()), self._revisions[name]

    def put(self, name: str, annotation: Annotation, revision: int) -> int:
        """Save an annotation in both files and return its new revision.

        Args:
            name: The photograph.
            annotation: What to save.
            revision: That of the annotation which this one replaces.

        Raises:
            Outdated: If that is not the current one; nothing is saved.
            OSError: If the files cannot be written, or another program has changed one since it
                was; they are unchanged.
        """
        with self._lock:
            if revision != self._revisions[name]:
                raise Outdated
            before = self._annotations.get(name, Annotation())
            self._annotations[name] = annotation
            try:
                self._write()
            except BaseException:
                self._annotations[name] = before
                raise
            self._revisions[name] += 1
            return self._revisions[name]

    def annotations(self) -> dict[str, Annotation]:
        """What was said of every photograph, by name, in the order of the files."""
        with self._lock:
            return {
                name: self._annotations.get(name, Annotation())
                for name in sorted(self._photographs)
            }

    def _write(self) -> None:
        for path, left in self._written.items():
            if path.exists() and sha256_file(path) != left:
                message = f"{path} was changed by another program; move it, and this is saved"
                raise FileExistsError(errno.EEXIST, message, str(path))
        samples = list(self._samples())
        content = to_coco(samples)
        content["info"] |= {"made_by": _MADE_BY, "image_root": self._roots[0]}
        for row in content["images"]:
            photograph = self._photographs[row["file_name"]]
            annotation = self._annotations.get(photograph.name, Annotation())
            row.update(_as_row(photograph, annotation))
        write_json(self._out, content)
        self._written[self._out] = sha256_file(self._out)
        header = Header(image_root=self._roots[1], notes={"origin": "annotate"})
        beside = manifest_path(self._out)
        write_manifest(beside, header, samples)
        self._written[beside] = sha256_file(beside)

    def _samples(self) -> Iterator[Sample]:
        for name in sorted(self._photographs):
            photograph = self._photographs[name]
            annotation = self._annotations.get(name, Annotation())
            label = _LABELS.get(annotation.verdict)
            key = f"{self._dataset}/{name}"
            yield Sample(
                id=key,
                dataset=self._dataset,
                split=self._split,
                group=key,
                image=name,
                size=photograph.size,
                label=label,
                boxes=None if label is None else annotation.boxes,
                image_sha256=photograph.sha256,
                box_origin=None if label is None else "human",
            )


def _as_row(photograph: Photograph, annotation: Annotation) -> dict[str, Any]:
    """What an image's row holds more than COCO asks for."""
    return {
        "sha256": photograph.sha256,
        "orientation": photograph.orientation,
        "verdict": annotation.verdict,
        "finished": annotation.finished,
        "seconds": round(annotation.seconds, 2),
        "annotator": annotation.annotator,
        "annotated_at": annotation.annotated_at,
    }


def manifest_path(out: Path) -> Path:
    """The manifest beside a COCO file: boxes.json, boxes.jsonl."""
    return out.parent / f"{out.stem}.jsonl"


def errors_path(out: Path) -> Path:
    """The list of unreadable files beside a COCO file: boxes.json, boxes.errors.jsonl."""
    return out.parent / f"{out.stem}.errors.jsonl"


def open_out(out: Path) -> Saved:
    """What an earlier run has saved in `out`; nothing if the file does not exist.

    Raises:
        UserError: If `out`, or a file beside it, belongs to somebody else.
    """
    if out.suffix != ".json":
        raise UserError(f"--out {out}: must end in .json; a manifest .jsonl is written beside it")
    beside = manifest_path(out)
    if beside.exists() and read_manifest(beside).header.notes.get("origin") != "annotate":
        raise UserError(f"{beside}: was not written by `{_MADE_BY}`; choose another --out")
    REJECTIONS.require_ours(errors_path(out))
    return read_saved(out) if out.exists() else Saved()


def write_errors(out: Path, rejected: Sequence[RejectedInput]) -> None:
    """List unreadable files beside `out`; remove an earlier list if there are none."""
    if rejected:
        write_jsonl(errors_path(out), [one.as_row() for one in rejected])
    else:
        errors_path(out).unlink(missing_ok=True)


def in_same_folder(saved: Saved, photographs: Mapping[str, Photograph]) -> bool:
    """Whether a file's photographs are those of a folder, or it has none."""
    return not saved.photographs or bool(saved.photographs.keys() & photographs.keys())
