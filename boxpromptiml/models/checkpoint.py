"""What a checkpoint says of itself, so that a localizer is rebuilt from the file alone.

Lightning's own hyperparameters are not used: rebuilding from them imports whatever class the file
names. Ours are plain values, checked against a known shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from boxpromptiml.errors import UserError
from boxpromptiml.models.bayes import Prior
from boxpromptiml.models.cam import CamConfig
from boxpromptiml.models.exchange import DESCRIPTION_KEY, read_safetensors
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.models.student import Student, StudentConfig
from boxpromptiml.models.wcbnet import WCBConfig, WCBNet
from boxpromptiml.weights import load_into, load_weights

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
class Card:
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
    cam: CamConfig = CamConfig()  # noqa: RUF009 - frozen
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
    def from_dict(cls, values: dict[str, Any]) -> "Card":
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


def build_network(card: Card, pretrained: Path | None = None) -> Student | WCBNet:
    """The network of a card, its backbone with local weights or random ones.

    Raises:
        UserError: See `Backbone` and `WCBNet`.
    """
    qualities = len(card.input.error_levels)
    if isinstance(card.network, StudentConfig):
        return Student(card.network, qualities, pretrained)
    return WCBNet(card.network, qualities, pretrained, card.cam)


def load_localizer(path: Path) -> tuple[Student | WCBNet, Card]:
    """A trained network in evaluation mode, and its card.

    Args:
        path: A checkpoint of `boxpromptiml fit`, or `.safetensors` of `boxpromptiml export`.

    Raises:
        UserError: If the file is neither, or a damaged one.
    """
    if path.suffix.lower() == ".safetensors":
        state, values = read_safetensors(path)
        card = Card.from_dict(values)
    else:
        checkpoint = load_weights(path)
        if CHECKPOINT_KEY not in checkpoint or "state_dict" not in checkpoint:
            raise UserError(f"{path}: not a checkpoint of `boxpromptiml fit`")
        card = Card.from_dict(checkpoint[CHECKPOINT_KEY])
        prefix = f"{card.kind}."
        state = {
            name.removeprefix(prefix): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(prefix)
        }
    network = build_network(card)
    network.backbone.forget_cut(state, "backbone.")
    load_into(network, state, path)
    return network.eval(), card
