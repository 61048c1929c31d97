"""Manifests: which images exist, what is known about them, and where their files are.

A manifest is a JSON Lines file. The first line is a header, every other line one `Sample`. Paths
are relative to the header's roots and never leave them; check the roots of an untrusted manifest.
Reading checks every row; an error names the file and the line. Rows stay in the file and are parsed
at each access.
"""

import errno
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.io import files
from boxpromptiml.io.files import (
    PositionalFile,
    bounded_lines,
    json_line,
    open_regular,
    sha256_bytes,
)
from boxpromptiml.io.images import DEFAULT_LIMITS
from boxpromptiml.io.strict_json import parse_as
from boxpromptiml.manifests.remote import check_root, fetched, is_remote, require_package
from boxpromptiml.manifests.rows import Places, Rows, repeated
from boxpromptiml.records import Sample

SCHEMA_VERSION = 1

T = TypeVar("T")

_WRITTEN = (".png", ".jpg", ".json")  # endings of the files of a sample


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a manifest.

    Attributes:
        schema_version: Version of this format.
        image_root: Folder of images and masks, relative to the manifest's folder; or an address in
            an object store, such as s3://bucket/folder.
        pseudo_root: Folder of the pseudo-masks, relative to the manifest's folder.
        teacher_signature: Hash of the teacher and settings that made the pseudo-masks.
        notes: Anything worth knowing about how the manifest was made.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    schema_version: int = SCHEMA_VERSION
    image_root: str = "."
    pseudo_root: str = "."
    teacher_signature: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The samples of one manifest file.

    Attributes:
        path: The file; the roots in its header are relative to its folder.
        header: Its first line.
        samples: In the order of its lines; read from the file when they are used.
    """

    path: Path
    header: Header
    samples: Rows[Sample]

    def image_path(self, sample: Sample) -> Path:
        """Path of the image; of one in an object store, its copy on this machine.

        Raises:
            RejectedInput: If it would lie outside the manifest's root (`bad_path`), or cannot be
                fetched.
        """
        return self._below_root(sample.image, sample.image_sha256)

    def mask_path(self, sample: Sample) -> Path | None:
        """Path of the ground-truth mask, None without one; as `image_path`.

        Raises:
            RejectedInput: As `image_path`.
        """
        return None if sample.mask is None else self._below_root(sample.mask, None)

    def pseudo_mask_path(self, sample: Sample) -> Path | None:
        """Path of the pseudo-mask, None without one.

        Raises:
            RejectedInput: If it would lie outside the manifest's root.
        """
        if sample.pseudo_mask is None:
            return None
        return path_of_row(self.path.parent / self.header.pseudo_root, sample.pseudo_mask)

    def _below_root(self, relative: str, sha256: str | None) -> Path:
        root = self.header.image_root
        if is_remote(root):
            check_relative(relative)
            return fetched(root, relative, sha256)
        return path_of_row(self.path.parent / root, relative)

    def image_root_from(self, other: Path) -> str:
        """How the header of a manifest at `other` names this one's images."""
        root = self.header.image_root
        return root if is_remote(root) else relative_root(other, self.path.parent / root)


def path_of_row(root: Path, relative: str) -> Path:
    """As `confined`, but a bad path costs one row, as a bad file does.

    Raises:
        RejectedInput: `bad_path`, where `confined` raises an error.
    """
    try:
        return confined(root, relative)
    except UserError as error:
        raise RejectedInput(relative, "bad_path", str(error)) from error


def confined(root: Path, relative: str) -> Path:
    """The path `root / relative`, which must stay below `root`.

    Raises:
        UserError: As `check_relative`, and for links that lead out.
    """
    check_relative(relative)
    path = root / relative
    try:
        inside = _followed(path).is_relative_to(_followed(root))
    except OSError as error:
        reason = error.strerror
        raise UserError(f"path {relative!r} below {root} cannot be followed: {reason}") from error
    if not inside:
        raise UserError(f"path {relative!r} leads out of {root} through a link")
    return path


def _followed(path: Path) -> Path:
    """Where links lead; `Path.resolve` raises for a circle or not, depending on Python's version.

    Raises:
        OSError: If links form a circle.
    """
    real = Path(os.path.realpath(path))
    try:
        real.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise
    return real


def check_relative(relative: str) -> None:
    """Check the text of a path without accessing the disk.

    Raises:
        UserError: For empty and absolute paths, `..`, drives, backslashes, NUL.
    """
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if (
        not parts
        or relative.startswith("/")
        or ".." in parts
        or "\\" in relative
        or "\0" in relative
        or ":" in parts[0]
    ):
        raise UserError(f"path {relative!r} must be relative, with forward slashes, without '..'")


_SAMPLE_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Sample.__pydantic_config__ = _SAMPLE_CONFIG  # type: ignore[attr-defined]
_HEADER = TypeAdapter(Header)
_SAMPLE = TypeAdapter(Sample)


def read_manifest(path: str | Path, allow_remote: bool = False) -> Manifest:
    """Read and check a manifest.

    Args:
        path: The file.
        allow_remote: Accept an `image_root` in an object store.

    Raises:
        UserError: Naming file and line, for anything that is not a valid manifest: not JSON,
            unknown or missing keys, wrong types, non-finite numbers, duplicate ids, boxes that are
            empty, inverted or outside the image, a box origin without boxes, paths that leave
            their root, a newer schema.
    """
    header, rows, errors = read_rows(Path(path), allow_remote)
    if errors:
        raise errors[0]
    return Manifest(Path(path), header, rows)


def read_rows(
    path: Path, allow_remote: bool = False
) -> tuple[Header, Rows[Sample], list[UserError]]:
    """The header of a manifest, its valid rows, and an error for each of the others.

    The errors name file and line, in the order of the lines. Arguments: as `read_manifest`.

    Raises:
        UserError: If the file cannot be read, or its header is wrong.
    """
    try:
        with open_regular(path) as stream:
            lines = bounded_lines(stream, path)
            return _header(lines, path, allow_remote), *_rows(lines, stream, path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the manifest: {error}") from error


def read_header(path: Path, allow_remote: bool = False) -> Header:
    """The header of a manifest alone. Arguments: as `read_manifest`.

    Raises:
        UserError: If the file cannot be read, or its header is wrong.
    """
    try:
        with open_regular(path) as stream:
            return _header(bounded_lines(stream, path), path, allow_remote)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the manifest: {error}") from error


def _header(lines: Iterator[bytes], path: Path, allow_remote: bool) -> Header:
    line = next(lines, b"")
    if not line:
        raise UserError(
            f"{path}: the manifest is empty; write one with `python -m data_prep import`"
        )
    header = parse_as(_HEADER, _text(line), f"{path}:1")
    if "\0" in header.image_root + header.pseudo_root:
        raise UserError(f"{path}:1: image_root and pseudo_root must not hold NUL")
    if is_remote(header.pseudo_root):
        raise UserError(f"{path}:1: pseudo_root must be a folder, not {header.pseudo_root!r}")
    if is_remote(header.image_root):
        _check_remote(header.image_root, path, allow_remote)
    if header.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: manifest schema {header.schema_version}, this version reads "
            f"{SCHEMA_VERSION}; update boxpromptiml or import the data again"
        )
    return header


def _check_remote(root: str, path: Path, allow_remote: bool) -> None:
    try:
        check_root(root)
    except UserError as error:
        raise UserError(f"{path}:1: image_root {error}") from None
    if not allow_remote:
        raise UserError(
            f"{path}:1: its images are in {root}; `pseudo-masks` and `check` read them with "
            "--allow_remote, for other commands copy them to a folder and set image_root"
        )
    require_package(root)


def _rows(
    lines: Iterator[bytes], stream: IO[bytes], path: Path
) -> tuple[Rows[Sample], list[UserError]]:
    """The valid rows after the header, and the errors of the others."""
    places, numbers, hashes = Places(), array("q"), array("q")
    errors: dict[int, UserError] = {}
    start = stream.tell()
    for number, line in enumerate(lines, start=2):
        if line.strip():
            try:
                sample = parse_as(_SAMPLE, _text(line), where := f"{path}:{number}")
                if problem := problem_of(sample):
                    raise UserError(f"{where}: {problem}")
            except UserError as error:
                errors[number] = error
            else:
                places.add(start, line)
                numbers.append(number)
                hashes.append(hash(sample.id))
        start += len(line)
    rows = Rows(PositionalFile(path, stream), places.as_array(), _parsed)
    first: dict[str, int] = {}
    unique = np.ones(len(rows), bool)
    for position in repeated(np.array(hashes)).tolist():  # equal hashes, not yet equal ids
        name, number = rows[position].id, numbers[position]
        if first.setdefault(name, number) != number:
            unique[position] = False
            message = f"{path}:{number}: duplicate id {name!r}, first on line {first[name]}"
            errors[number] = UserError(message)
    return rows.where(unique), [errors[number] for number in sorted(errors)]


def _parsed(line: bytes) -> Sample:
    """Parse a row that was checked when the manifest was read."""
    return _SAMPLE.validate_json(line)


def _text(line: bytes) -> str:
    return line.decode("utf-8").removesuffix("\n")


def problem_of(sample: Sample) -> str | None:
    """What is wrong with a sample of the right types; None if it is valid."""
    height, width = sample.size
    if not (sample.id and height > 0 and width > 0):
        return "id must not be empty and size must be positive"
    most = DEFAULT_LIMITS.max_pixels
    if height * width > most:  # arrays of that size might not fit into memory, either
        return f"size is {width} x {height}, above the {most} pixels that an image may have"
    if sample.label not in (0, 1, None):
        return f"label must be 0, 1 or null, got {sample.label}"
    for box in sample.boxes or ():
        if not (0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height):
            return f"box {list(box)} is empty, inverted or outside the image of {width} x {height}"
    if sample.box_origin is not None and sample.boxes is None:
        return f"box_origin {sample.box_origin!r} without boxes"
    return _problem_of_paths(sample)


def _problem_of_paths(sample: Sample) -> str | None:
    for relative in (sample.image, sample.mask, sample.pseudo_mask):
        if relative is not None:
            try:
                check_relative(relative)
            except UserError as error:
                return str(error)
    return None


def write_manifest(path: Path, header: Header, samples: Iterable[Sample]) -> Manifest:
    """Write a manifest atomically, row by row, and return it. Keys that are None are left out.

    Raises:
        UserError: If a sample is invalid; the file is then unchanged.
    """
    places = Places()
    with files.atomic_writer(path) as stream:
        start = stream.write(json_line(_HEADER.dump_python(header, mode="json")))
        for sample in samples:
            if problem := problem_of(sample):
                raise UserError(f"{path}: sample {sample.id!r}: {problem}")
            line = json_line(_SAMPLE.dump_python(sample, mode="json", exclude_defaults=True))
            places.add(start, line)
            start += stream.write(line)
    return Manifest(path, header, Rows(PositionalFile(path), places.as_array(), _parsed))


def safe_name(sample_id: str) -> str:
    """A relative path, without its ending, for the files of a sample: its id, or a hash of it.

    Different ids have different files, also where one is a folder by its name: the files of `a`,
    a.png among them, would keep those of `a.png/b` from being written.
    """
    sound = (
        all(c.isalnum() or c in "-_./ " for c in sample_id)
        and len(sample_id.encode(errors="surrogatepass")) < 200
        and not any(part.lower().endswith(_WRITTEN) for part in sample_id.split("/")[:-1])
    )
    if sound and all(part.strip(". ") for part in sample_id.split("/")):
        return sample_id
    return sha256_bytes(sample_id.encode(errors="surrogatepass"))[:32]


def relative_root(manifest_path: Path, root: Path) -> str:
    """How a header at `manifest_path` names the folder `root`."""
    return Path(os.path.relpath(root.resolve(), manifest_path.parent.resolve())).as_posix()


def join_by_key(
    left: Mapping[str, T], right: Mapping[str, T]
) -> tuple[dict[str, tuple[T, T]], list[str], list[str]]:
    """Pair two collections by key, never by position.

    Returns:
        The pairs, the keys only on the left, the keys only on the right, each in sorted order.

    Example:
        >>> join_by_key({"a": 1, "b": 2}, {"b": 3, "c": 4})
        ({'b': (2, 3)}, ['a'], ['c'])
    """
    pairs = {key: (left[key], right[key]) for key in sorted(left.keys() & right.keys())}
    return pairs, sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
