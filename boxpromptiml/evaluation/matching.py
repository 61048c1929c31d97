"""Match prediction files to the rows of a manifest; nothing is guessed, nothing dropped.

A folder of predictions is what `localize` wrote (prob/NAME.png, and predictions.jsonl with `name`
and `path`), what `predict` wrote (with `name` and `id`), or the files of any other method, see
`map_files.read_map`. A file belongs to the row that the first of these finds:

1. the `id` of its line in predictions.jsonl; nothing else is tried then
2. the `path` of its line is the row's image
3. its name is the row's id, or `safe_name` of the id
4. its name is the row's image path, with or without the ending
5. its last part is that of the row's image path, with or without the ending; of several such rows,
   those with which the most of its folders agree, counted from the last

where it must be one row only, and no other file may belong to the same row. A file's name is its
path below the folder of predictions, without the ending of the map: `a.jpg` for a.jpg.png.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, TypeAdapter

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import read_text
from boxpromptiml.io.folders import files_below
from boxpromptiml.io.map_files import SUFFIXES
from boxpromptiml.io.strict_json import parse_as
from boxpromptiml.manifests.manifest import confined, safe_name
from boxpromptiml.manifests.sources import Source

_SHOWN = 5
_MAX_TABLE = 2**30  # bytes of predictions.jsonl


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """A map on the disk, and what its line in predictions.jsonl says, if there is one.

    Attributes:
        name: Path below the folder of maps, without the ending.
        path: The file.
        id: Of the sample.
        image: The image that was looked at.
        sha256: Of that image.
        score: Image score in [0, 1].
    """

    name: str
    path: Path
    id: str | None = None
    image: str | None = None
    sha256: str | None = None
    score: float | None = None

    @property
    def stored_name(self) -> str:
        """`name`, with the ending of the file unless that is .png."""
        suffix = self.path.suffix
        return self.name if suffix.lower() == ".png" else self.name + suffix


@dataclass(frozen=True)
class _Line:
    """One line of predictions.jsonl, as far as it matters here."""

    name: str
    id: str | None = None
    path: str | None = None
    sha256: str | None = None
    image_score: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None


_LINE = TypeAdapter(_Line)


def match_predictions(
    folder: Path, known: Sequence[Source], wanted: Sequence[Source]
) -> list[PredictionFile]:
    """The prediction of every wanted row, in their order.

    Args:
        folder: Predictions of `localize`, of `predict` or of another method; the head of this
            module says which file belongs to which row.
        known: Every row that a prediction may belong to; predictions of rows that are known and
            not wanted are left aside.
        wanted: The rows to score, some of the known ones.

    Raises:
        UserError: With counts and the first five of each: predictions of no row, of several rows,
            several of one row; rows without a prediction. Or a damaged predictions.jsonl.
    """
    files, complaints = find_predictions(folder)
    lookup = _Lookup(known, by_image=any(file.image is not None for file in files))
    of_row: dict[str, list[PredictionFile]] = defaultdict(list)
    extra: list[str] = []
    ambiguous: list[str] = []
    for file in files:
        ids = lookup.rows(file)
        if len(ids) == 1:
            of_row[ids[0]].append(file)
        elif ids:
            ambiguous.append(f"{file.name}{file.path.suffix} could be {ids[0]!r} or {ids[1]!r}")
        else:
            extra.append(file.name + file.path.suffix)
    for sample_id, found in of_row.items():
        if len(found) > 1:
            both = " and ".join(file.name + file.path.suffix for file in found[:2])
            ambiguous.append(f"{both} are both {sample_id!r}")
    missing = [source.sample.id for source in wanted if source.sample.id not in of_row]
    complaints |= {
        "predictions are ambiguous (name them by the manifest's ids)": ambiguous,
        "images have no prediction": missing,
        "predictions belong to no row of the manifest": extra,
    }
    refuse(folder, complaints)
    return [of_row[source.sample.id][0] for source in wanted]


def have_scores(folder: Path, files: Sequence[PredictionFile]) -> bool:
    """Whether the predictions have image scores.

    Raises:
        UserError: If only some of them do.
    """
    without = [file.name for file in files if file.score is None]
    if 0 < len(without) < len(files):
        raise UserError(
            f"{folder}: {len(without)} of {len(files)} lines of predictions.jsonl have no "
            f"image_score, for example {without[0]!r}: give it to every line or to none"
        )
    return not without


def refuse(folder: Path, complaints: dict[str, list[str]]) -> None:
    """Refuse predictions with complaints.

    Raises:
        UserError: If there is any, with counts and the first five of each.
    """
    lines = [
        f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"
        for what, found in complaints.items()
        if found
    ]
    if lines:
        raise UserError(f"{folder}: " + "; ".join(lines))


def find_predictions(folder: Path) -> tuple[list[PredictionFile], dict[str, list[str]]]:
    """The prediction files of a folder, and what is wrong between table and files, by complaint.

    Raises:
        UserError: If there is no map, or a line of the table is not what it must be.
    """
    root = folder / "prob" if (folder / "prob").is_dir() else folder
    maps = [path for path in files_below(root) if path.suffix.lower() in SUFFIXES]
    if not maps:
        raise UserError(
            f"{root}: no maps ({', '.join(SUFFIXES)}); give a folder of probability maps"
        )
    names: dict[str, Path] = {}
    for path in maps:
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in names:
            both = f"{names[name].name} and {path.name}"
            raise UserError(f"{path.parent}: {both} differ only in the ending; keep one of them")
        names[name] = path
    table = folder / "predictions.jsonl"
    if not table.exists():
        return [PredictionFile(name, path) for name, path in names.items()], {}
    listed = list(_lines(table, root))
    counts = Counter(PurePosixPath(line.name).as_posix() for line in listed)
    complaints = {
        "names are twice in predictions.jsonl": [name for name, n in counts.items() if n > 1],
        "lines of predictions.jsonl have no file": sorted(counts.keys() - names.keys()),
        "files have no line in predictions.jsonl": sorted(names.keys() - counts.keys()),
    }
    files = [
        PredictionFile(name, names[name], line.id, line.path, line.sha256, line.image_score)
        for line in listed
        if (name := PurePosixPath(line.name).as_posix()) in names
    ]
    return files, complaints


def _lines(path: Path, root: Path) -> Iterator[_Line]:
    for number, text in enumerate(read_text(path, _MAX_TABLE).split("\n"), start=1):
        if text.strip():
            where = f"{path}:{number}"
            line = parse_as(_LINE, text, where, file_names=True)
            try:
                confined(root, f"{line.name}.png")
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            yield line


class _Lookup:
    """Ids of rows by everything that may tell them."""

    def __init__(self, sources: Sequence[Source], by_image: bool) -> None:
        self.hashes = {source.sample.id: source.sample.image_sha256 for source in sources}
        self.images: dict[str, list[str]] = defaultdict(list)
        self.names: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
        self.last_parts: dict[str, list[tuple[str, PurePosixPath]]] = defaultdict(list)
        for manifest, sample in sources:
            image = PurePosixPath(sample.image)
            if by_image:  # follows links, which takes time
                self.images[os.path.realpath(manifest.image_path(sample))].append(sample.id)
            bare = image.with_suffix("")
            keys = ({sample.id, safe_name(sample.id)}, {image.as_posix(), bare.as_posix()})
            for table, own in zip(self.names, keys, strict=True):
                for key in own:
                    table[key].append(sample.id)
            for part in {image.name, bare.name}:
                self.last_parts[part].append((sample.id, image.parent))

    def rows(self, file: PredictionFile) -> list[str]:
        """Ids of the rows that a prediction may belong to, by the first key that finds any."""
        if file.id is not None:
            return [file.id] if file.id in self.hashes else []
        tries = [self.images.get(_real_path(file.image), [])] if file.image else []
        tries += [table.get(file.name, []) for table in self.names]
        tries.append(self._by_last_parts(PurePosixPath(file.name)))
        for ids in tries:
            if same := [one for one in ids if self._may_be(one, file)]:
                return same
        return []

    def _by_last_parts(self, name: PurePosixPath) -> list[str]:
        found = self.last_parts.get(name.name, [])
        common = [_common_end(name.parent.parts, folder.parts) for _, folder in found]
        return [one for (one, _), n in zip(found, common, strict=True) if n == max(common)]

    def _may_be(self, sample_id: str, file: PredictionFile) -> bool:
        """Whether the image that was looked at can be the row's: another one of the same name."""
        expected = self.hashes[sample_id]
        return None in (file.sha256, expected) or file.sha256 == expected


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # NUL: of no file
        return path


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
