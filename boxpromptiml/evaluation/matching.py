"""Which prediction file belongs to which row of a manifest. Nothing is guessed, nothing dropped.

A folder of predictions is what `localize` wrote (prob/NAME.png, and predictions.jsonl with `name`
and `path`), what `predict` wrote (with `name` and `id`), or PNG files of any other method. A file
belongs to the row that the first of these finds:

1. the `id` of its line in predictions.jsonl; nothing else is tried then
2. the `path` of its line is the row's image
3. its name is the row's id, or `safe_name` of the id
4. its name is the row's image path, without the ending
5. its last part is that of the row's image path

where it must be one row only, and no other file may belong to the same row.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import images
from boxpromptiml.io.strict_json import parse_json
from boxpromptiml.manifests.manifest import confined, safe_name
from boxpromptiml.manifests.sources import Source
from boxpromptiml.records import GreyArray

_SHOWN = 5
_GREY = ("1", "L", "LA")  # of equal channels by themselves


@dataclass(frozen=True, slots=True)
class PredictionFile:
    """A map on the disk, and what its line in predictions.jsonl says, if there is one.

    Attributes:
        name: Path below the folder of maps, without .png.
        path: The PNG.
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

    def levels(self) -> GreyArray:
        """The levels (H, W) of the map, 8 bits; grey also when it is stored as RGB.

        Raises:
            RejectedInput: If the file cannot be decoded, or is no grey 8-bit PNG.
        """
        rgb, info = images.read_image(self.path)
        if info.format != "PNG" or "16-bit scaled to 8" in info.notes:
            bits = "a 16-bit" if info.format == "PNG" else f"a {info.format}"
            message = f"is {bits} file; save maps as 8-bit PNG"
            raise RejectedInput(self.path, "unsupported_mode", message)
        if info.mode not in _GREY and (rgb != rgb[..., :1]).any():
            raise RejectedInput(self.path, "mask_colour", "has channels that differ; maps are grey")
        return np.ascontiguousarray(rgb[..., 0])


def match_predictions(
    folder: Path, known: Sequence[Source], wanted: Sequence[Source]
) -> list[PredictionFile]:
    """The prediction of every wanted row, in their order.

    Args:
        folder: As in the head of this module.
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
            ambiguous.append(f"{file.name}.png could be {ids[0]!r} or {ids[1]!r}")
        else:
            extra.append(f"{file.name}.png")
    for sample_id, found in of_row.items():
        if len(found) > 1:
            ambiguous.append(f"{found[0].name}.png and {found[1].name}.png are both {sample_id!r}")
    missing = [source.sample.id for source in wanted if source.sample.id not in of_row]
    complaints |= {
        "predictions are ambiguous (name them by the manifest's ids)": ambiguous,
        "images have no prediction": missing,
        "predictions belong to no row of the manifest": extra,
    }
    refuse(folder, complaints)
    return [of_row[source.sample.id][0] for source in wanted]


def have_scores(folder: Path, files: Sequence[PredictionFile]) -> bool:
    """Whether the predictions have image scores; UserError if only some of them do."""
    without = [file.name for file in files if file.score is None]
    if 0 < len(without) < len(files):
        raise UserError(
            f"{folder}: {len(without)} of {len(files)} lines of predictions.jsonl have no "
            f"image_score, for example {without[0]!r}: give it to every line or to none"
        )
    return not without


def refuse(folder: Path, complaints: dict[str, list[str]]) -> None:
    """UserError if there is any complaint, with the counts and the first five of each."""
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
        UserError: If there is no PNG, or a line of the table is not what it must be.
    """
    root = folder / "prob" if (folder / "prob").is_dir() else folder
    pngs = [path for path in sorted(root.rglob("*")) if path.suffix.lower() == ".png"]
    if not pngs:
        raise UserError(f"{root}: no PNG files; give a folder of probability maps")
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in pngs}
    if len(names) < len(pngs):
        raise UserError(f"{root}: names that differ only in the ending .png or .PNG")
    tables = sorted(folder.glob("predictions*.jsonl"))  # several processes write several
    if not tables:
        return [PredictionFile(name, path) for name, path in names.items()], {}
    listed = [_from_table(row, root, where) for path in tables for where, row in _lines(path)]
    counts = {file.name: 0 for file in listed}
    for file in listed:
        counts[file.name] += 1
    complaints = {
        "names are twice in predictions.jsonl": [name for name, n in counts.items() if n > 1],
        "lines of predictions.jsonl have no file": sorted(counts.keys() - names.keys()),
        "files have no line in predictions.jsonl": sorted(names.keys() - counts.keys()),
    }
    return [file for file in listed if file.name in names], complaints


def _lines(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            row = parse_json(line, f"{path}:{number}")
            if not isinstance(row, dict) or not isinstance(row.get("name"), str):
                raise UserError(f'{path}:{number}: must be an object with a text "name"')
            yield f"{path}:{number}", row


def _from_table(row: dict[str, Any], root: Path, where: str) -> PredictionFile:
    try:
        path = confined(root, row["name"] + ".png")
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    texts: dict[str, str | None] = {}
    for key in ("id", "path", "sha256"):
        texts[key] = row.get(key)
        if not isinstance(texts[key], str | None):
            raise UserError(f"{where}: {key} must be text")
    score = row.get("image_score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise UserError(f"{where}: image_score must be a number, got {score!r}")
    if score is not None and not 0 <= score <= 1:
        raise UserError(f"{where}: image_score must be in [0, 1], got {score}")
    name = PurePosixPath(row["name"]).as_posix()
    return PredictionFile(name, path, texts["id"], texts["path"], texts["sha256"], score)


class _Lookup:
    """Ids of rows by everything that may tell them."""

    def __init__(self, sources: Sequence[Source], by_image: bool) -> None:
        self.ids = {source.sample.id: source.sample.image_sha256 for source in sources}
        self.images: dict[str, list[str]] = defaultdict(list)
        names: list[dict[str, list[str]]] = [defaultdict(list) for _ in range(3)]
        for manifest, sample in sources:
            image = PurePosixPath(sample.image).with_suffix("")
            if by_image:  # follows links, which takes time
                self.images[os.path.realpath(manifest.image_path(sample))].append(sample.id)
            keys = ({sample.id, safe_name(sample.id)}, {image.as_posix()}, {image.name})
            for table, own in zip(names, keys, strict=True):
                for key in own:
                    table[key].append(sample.id)
        self.names = names

    def rows(self, file: PredictionFile) -> list[str]:
        """Ids of the rows that a prediction may belong to, by the first key that finds any."""
        if file.id is not None:
            return [file.id] if file.id in self.ids else []
        tries = [self.images.get(os.path.realpath(file.image), [])] if file.image else []
        tries += [table.get(file.name, []) for table in self.names[:2]]
        tries.append(self.names[2].get(PurePosixPath(file.name).name, []))
        for ids in tries:
            if same := [one for one in ids if self._may_be(one, file)]:
                return same
        return []

    def _may_be(self, sample_id: str, file: PredictionFile) -> bool:
        """Whether the image that was looked at can be the row's: another one of the same name."""
        return None in (file.sha256, self.ids[sample_id]) or file.sha256 == self.ids[sample_id]
