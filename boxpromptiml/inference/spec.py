"""What a checkpoint says of itself, so that a localizer is rebuilt from the file alone.

Lightning's own hyperparameters are not used: rebuilding from them imports whatever class the file
names. Ours are plain values, checked against a known shape.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from boxpromptiml.errors import UserError
from boxpromptiml.models.bayes import Prior
from boxpromptiml.models.configs import CamConfig, StudentConfig, WCBConfig
from boxpromptiml.models.inputs import NetworkInput

DESCRIPTION_KEY = "boxpromptiml"
OTHER_FILE = "location"  # the word by which an ONNX graph refers to a file beside it


def to_json(description: Mapping[str, Any]) -> str:
    """One line of JSON in which `OTHER_FILE` never occurs."""
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return text.replace(OTHER_FILE, f"\\u{ord(OTHER_FILE[0]):04x}{OTHER_FILE[1:]}")


def from_json(text: str | None, path: Path) -> dict[str, Any]:
    """The inverse of `to_json`, of a text found in `path`.

    Raises:
        UserError: There is none, or it is no JSON object.
    """
    if text is None:
        raise UserError(f"{path}: says nothing of itself; make it with `boxpromptiml export`")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its description is damaged: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: its description is damaged: not a JSON object")
    return values


CHECKPOINT_KEY = DESCRIPTION_KEY
CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class Refinement:
    """How `localize` refines a map by regions.

    Attributes:
        segmenter: What makes the regions: `SegmenterConfig.to_dict()`.
        prior: See `models.bayes`.
    """

    segmenter: dict[str, Any]
    prior: Prior = "image"

    def __post_init__(self) -> None:
        if self.prior not in get_args(Prior):
            raise UserError(f"prior must be one of {get_args(Prior)}, got {self.prior!r}")


@dataclass(frozen=True)
class ModelSpec:
    """Everything but the weights that localizing needs.

    Attributes:
        network: Configuration of the student or of the WCBnet.
        input: What the network is fed.
        threshold: A pixel is flagged where its probability is strictly above.
        cam: How the map is read off a WCBnet; a student has its own.
        refinement: None: the map stays as it is.
        trained_on: Names of the data sets; empty where they were not recorded.
    """

    network: StudentConfig | WCBConfig
    input: NetworkInput
    threshold: float
    cam: CamConfig = CamConfig()
    refinement: Refinement | None = None
    trained_on: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["student", "wcbnet"]:
        """Names the network in the file: key of its configuration, prefix of its weights."""
        return "student" if isinstance(self.network, StudentConfig) else "wcbnet"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = {
            "schema_version": CHECKPOINT_VERSION,
            self.kind: self.network.to_dict(),
            "input": self.input.to_dict(),
            "threshold": self.threshold,
        }
        if self.kind == "wcbnet":
            values["cam"] = self.cam.to_dict()
        if self.refinement is not None:
            values["refinement"] = {
                "segmenter": self.refinement.segmenter,
                "prior": self.refinement.prior,
            }
        if self.trained_on:
            values["trained_on"] = list(self.trained_on)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelSpec":
        """Inverse of `to_dict`; UserError for anything else."""
        if values.get("schema_version") != CHECKPOINT_VERSION:
            raise UserError(
                f"checkpoint schema {values.get('schema_version')}, this version reads "
                f"{CHECKPOINT_VERSION}; update boxpromptiml or train again"
            )
        try:
            return cls(
                _network_config(values),
                NetworkInput.from_dict(values["input"]),
                float(values["threshold"]),
                CamConfig(**values.get("cam", {})),
                Refinement(**values["refinement"]) if "refinement" in values else None,
                tuple(str(name) for name in values.get("trained_on", ())),
            )
        except UserError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the checkpoint's description is damaged: {error}") from error


def _network_config(values: dict[str, Any]) -> StudentConfig | WCBConfig:
    if "wcbnet" in values:
        return WCBConfig.from_dict(values["wcbnet"])
    return StudentConfig.from_dict(values["student"])
