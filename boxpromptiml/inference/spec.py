"""The metadata in a model's file, from which a localizer is rebuilt.

Lightning's own hyperparameters are not used: rebuilding from them imports whatever class the file
names. Ours are plain values. The file may be untrusted: nothing is built before every value has
been checked against the types and limits of the records below.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import MaxLen, MinLen
from pydantic import ConfigDict, TypeAdapter
from pydantic_core import to_jsonable_python

from boxpromptiml.errors import UserError
from boxpromptiml.inference.calibration import Calibration, Threshold
from boxpromptiml.io.files import sha256_bytes
from boxpromptiml.io.strict_json import check_fields, parse_as, parse_json
from boxpromptiml.models.bayes import Prior
from boxpromptiml.models.configs import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    STRICT,
    CamConfig,
    OwnConfig,
    StudentConfig,
    WCBConfig,
)
from boxpromptiml.models.inputs import MAX_WHOLE_PIXELS, FloatArray, NetworkInput, sigmoid
from boxpromptiml.segmenters.config import SegmenterConfig

DESCRIPTION_KEY = "boxpromptiml"
OTHER_FILE = "location"  # the word by which an ONNX graph refers to a file beside it
SCHEMA_VERSION = 1

_MAX_TEXT = 2**16  # characters of a description as JSON; ours have about a thousand
_SEAL_KEY = "file_sha256"
SEAL = {_SEAL_KEY: "0" * 64}  # to be part of the description of a file that is to be sealed
_SEALED = re.compile(rb'file_sha256[\\":\s]{1,8}([0-9a-f]{64})')
_PATHS = ("weights", "cache")  # of a segmenter, on this machine; they stay out of files

Sha256 = Annotated[str, MinLen(64), MaxLen(64)]


def to_json(description: Mapping[str, Any]) -> str:
    """One line of JSON in which `OTHER_FILE` never occurs."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return text.replace(OTHER_FILE, f"\\u{ord(OTHER_FILE[0]):04x}{OTHER_FILE[1:]}")


def sealed(data: bytes) -> bytes:
    """A file whose description has the key `SEAL`, with the hash of all its bytes there.

    The hash is taken with zeros in its own place.

    Raises:
        RuntimeError: The description lacks the key.
    """
    found = _SEALED.search(data)
    if found is None:
        raise RuntimeError("the description has no place for the file's hash")
    start, end = found.span(1)
    return data[:start] + sha256_bytes(data).encode() + data[end:]


def check_seal(data: bytes, path: Path) -> None:
    """Compare the bytes of a file with the hash in it, if there is one: older files have none.

    Raises:
        UserError: A bit has changed since the file was written.
    """
    found = _SEALED.search(data)
    if found is None:
        return
    start, end = found.span(1)
    if sha256_bytes(data[:start] + SEAL[_SEAL_KEY].encode() + data[end:]) != found[1].decode():
        raise UserError(
            f"{path}: is damaged: its bytes are not those that were written; copy it again"
        )


def from_json(text: str | None, path: Path) -> dict[str, Any]:
    """Parse the text of `to_json`, found in the file `path`.

    Raises:
        UserError: If there is no text, or it is not a JSON object, or too long to be ours.
    """
    if text is None:
        raise UserError(
            f"{path}: has no boxpromptiml metadata; create it with `boxpromptiml export`"
        )
    where = f"{path}: its boxpromptiml metadata"
    if len(text) > _MAX_TEXT:
        raise UserError(f"{where}: longer than {_MAX_TEXT} characters")
    values = parse_json(text, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: not a JSON object")
    return values


@dataclass(frozen=True)
class Refinement:
    """How `localize` refines a map by regions.

    Attributes:
        segmenter: The segmenter; its paths are not stored in files.
        prior: See `models.bayes`.

    Raises:
        UserError: If a value has a wrong type.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    segmenter: SegmenterConfig
    prior: Prior = "image"

    def __post_init__(self) -> None:
        check_fields(self, "refinement")


@dataclass(frozen=True)
class ModelSpec:
    """Everything except the weights that is needed to localize.

    Attributes:
        network: Configuration of the student, of the WCBnet or of another network.
        input: How an image becomes the network's input.
        threshold: A pixel is flagged where its probability is strictly above.
        cam: How a WCBnet's map is computed; students have their own output.
        refinement: Refinement of the map by regions; None for none.
        trained_on: Names of the datasets; empty where they were not recorded.
        started_from: SHA-256 of the localizer whose weights training started from, if any.
        calibration: What its probabilities mean; None if they have not been calibrated.
        copy_move: Whether `Localizer` adds regions that were copied within the image.
        flips: Whether it averages over mirror images of those that it sees whole, see
            `maps.FlipMean`.

    Raises:
        UserError: If a value has a wrong type or is outside its limits.
    """

    network: StudentConfig | WCBConfig | OwnConfig
    input: NetworkInput
    threshold: Threshold
    cam: CamConfig = CamConfig()
    refinement: Refinement | None = None
    trained_on: tuple[str, ...] = ()
    started_from: Sha256 | None = None
    calibration: Calibration | None = None
    copy_move: bool = False
    flips: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "model")

    @property
    def kind(self) -> Literal["student", "wcbnet", "own"]:
        """Name of the network in a file: key of its configuration, prefix of its weights."""
        if isinstance(self.network, OwnConfig):
            return "own"
        return "student" if isinstance(self.network, StudentConfig) else "wcbnet"

    def reads_tiles(self, size: tuple[int, int]) -> bool:
        """Whether an image (H, W) is always read in tiles: whole it would take gigabytes."""
        return self.input.mode == "native" and size[0] * size[1] > MAX_WHOLE_PIXELS

    def with_maps(self, copy_move: bool | None = None, flips: bool | None = None) -> "ModelSpec":
        """The spec with other maps; None: as they are.

        A calibration is dropped if it was measured with other flips, or weighs copies that are no
        longer looked for.
        """
        copy_move = self.copy_move if copy_move is None else copy_move
        flips = self.flips if flips is None else flips
        weighs = self.calibration is not None and self.calibration.copy_weight is not None
        holds = flips == self.flips and (copy_move or not weighs)
        known = self.calibration if holds else None
        return replace(self, copy_move=copy_move, flips=flips, calibration=known)

    def image_scores(self, logits: FloatArray) -> FloatArray:
        """Probabilities (B,) of images without copies, calibrated if the file says how."""
        return sigmoid(
            logits if self.calibration is None else self.calibration.image_logits(logits)
        )

    def image_score(self, logits: FloatArray, copied: bool) -> float:
        """Probability that an image is manipulated.

        Ours: the odds of the image are the mean of the tiles' odds. That is Bayes' rule if a
        manipulated image is manipulated in one place, anywhere with equal probability. The highest
        tile would accuse every large photograph: of a thousand tiles one is always odd.

        Args:
            logits: Image logits (N,) of its tiles; of an image seen whole there is one.
            copied: Whether regions of it match another place; counts if the file weighs it.
        """
        known = logits if self.calibration is None else self.calibration.image_logits(logits)
        log_odds = np.logaddexp.reduce(known.astype(np.float64)) - np.log(len(known))
        if copied and self.calibration is not None:
            log_odds += self.calibration.copy_weight or 0.0
        return float(sigmoid(np.array([log_odds], np.float32))[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; omitted values take their defaults on reading."""
        values: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            self.kind: to_jsonable_python(self.network),
            "input": to_jsonable_python(self.input),
            "threshold": self.threshold,
            "copy_move": self.copy_move,
            "flips": self.flips,
        }
        if self.kind == "wcbnet":
            values["cam"] = to_jsonable_python(self.cam)
        if self.refinement is not None:
            values["refinement"] = to_jsonable_python(self.refinement)
            for path in _PATHS:
                del values["refinement"]["segmenter"][path]
        if self.trained_on:
            values["trained_on"] = list(self.trained_on)
        if self.started_from is not None:
            values["started_from"] = self.started_from
        if self.calibration is not None:
            values["calibration"] = self.calibration.to_dict()
        return values

    @classmethod
    def from_dict(cls, values: object, where: str = "the checkpoint") -> "ModelSpec":
        """The inverse of `to_dict`, for values of any origin.

        Args:
            values: Plain values, or anything else that an untrusted file may contain.
            where: Name of their source, for error messages.

        Raises:
            UserError: If they are not what `to_dict` gives in this or an earlier version.
        """
        where = f"{where}: its boxpromptiml metadata"
        stored = parse_as(_STORED, json.dumps(_current(_plain(values, where), where)), where)
        networks = [n for n in (stored.student, stored.wcbnet, stored.own) if n is not None]
        if len(networks) != 1:
            raise UserError(f"{where}: must describe either a student or a wcbnet")
        return cls(
            networks[0],
            stored.input,
            stored.threshold,
            stored.cam,
            stored.refinement,
            stored.trained_on,
            stored.started_from,
            stored.calibration,
            stored.copy_move,
            stored.flips,
        )


def _plain(values: object, where: str) -> dict[str, Any]:
    """A copy as JSON of limited size, since 2 kB of pickle can expand to gigabytes."""
    pieces, length = [], 0
    try:
        for piece in json.JSONEncoder(allow_nan=False).iterencode(values):
            pieces.append(piece)
            length += len(piece)
            if length > _MAX_TEXT:
                raise ValueError(f"longer than {_MAX_TEXT} characters")
        plain = json.loads("".join(pieces))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not plain values ({str(error)[:80]})") from error
    if not isinstance(plain, dict):
        raise UserError(f"{where}: not an object")
    return plain


def _current(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Values under current names, from a file that an earlier version may have written."""
    if (found := values.get("schema_version")) != SCHEMA_VERSION:
        raise UserError(
            f"{where}: checkpoint schema {str(found)[:20]}, this version reads {SCHEMA_VERSION}; "
            "update boxpromptiml or train again"
        )
    refinement = values.get("refinement")
    segmenter = refinement.get("segmenter") if isinstance(refinement, dict) else None
    if isinstance(segmenter, dict) and (paths := sorted(set(segmenter) & set(_PATHS))):
        raise UserError(f"{where}: refinement.segmenter: {paths} may not come from a file")
    for record, old, new in (
        (values.get("input"), "fit", "mode"),
        (segmenter, "min_share", "min_fraction"),
    ):
        if isinstance(record, dict) and old in record:
            record[new] = record.pop(old)
    network = values.get("student", values.get("wcbnet"))
    if isinstance(network, dict):  # earlier versions normalised RGB for every backbone alike
        network.setdefault("rgb_mean", list(IMAGENET_MEAN))
        network.setdefault("rgb_std", list(IMAGENET_STD))
    return values


@dataclass(frozen=True)
class _Stored:
    """The values that `to_dict` writes; others, such as `exported`, are for other programs."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT | ConfigDict(extra="ignore")

    schema_version: int
    input: NetworkInput
    threshold: Threshold
    student: StudentConfig | None = None
    wcbnet: WCBConfig | None = None
    own: OwnConfig | None = None
    cam: CamConfig = CamConfig()
    refinement: Refinement | None = None
    trained_on: tuple[str, ...] = ()
    started_from: Sha256 | None = None
    calibration: Calibration | None = None
    copy_move: bool = False
    flips: bool = False


_STORED = TypeAdapter(_Stored)
