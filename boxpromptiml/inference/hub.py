"""Weights on the Hugging Face Hub: `model.safetensors` with its metadata, and a model card.

Publishing uses the Hub's own mixin. Saving does not, since the mixin deletes any config.json in the
folder. Loading does not: the mixin would take constructor arguments from an untrusted config.json,
and fails offline if there is none.
"""

import logging
import os
import re
import textwrap
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from boxpromptiml.errors import UserError
from boxpromptiml.inference.checkpoint import TorchNetwork
from boxpromptiml.inference.export import describe
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.maps import Network
from boxpromptiml.inference.shipped import FOLDER_WEIGHTS, weights_file
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.io.files import write_text
from boxpromptiml.io.outputs import EXPORTED, MODEL_CARD
from boxpromptiml.metrics.results import read_evaluation, score_table
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet

_logger = logging.getLogger(__name__)
_MESSAGE = "Weights and model card of boxpromptiml"

_REASONS: dict[type[Exception], str] = {  # the first that fits
    HFValidationError: "this is not a valid repository name on the Hub (owner/name)",
    LocalEntryNotFoundError: f"no {FOLDER_WEIGHTS} of that name is in the local cache, and the "
    "Hub was not reached (no connection, or HF_HUB_OFFLINE=1)",
    OfflineModeIsEnabled: "HF_HUB_OFFLINE=1 forbids access to the Hub",
    RepositoryNotFoundError: "the Hub has none of this name, or it is private: hf auth login",
    RevisionNotFoundError: "it has no such revision on the Hub",
    EntryNotFoundError: f"it has no {FOLDER_WEIGHTS} on the Hub",
}


class _Repository(ModelHubMixin):
    """The object that the mixin uploads.

    Args:
        write: Function that writes all files into a folder.
    """

    def __init__(self, write: Callable[[Path], None]) -> None:
        self._write = write

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory)


def fetch(name: str | Path, revision: str | None = None) -> Path:
    """Path of the weights file in a folder, or downloaded from a repository on the Hub.

    Args:
        name: A folder or, if no such folder exists, a repository (owner/name).
        revision: Branch, tag or commit of the repository; the latest by default.

    Raises:
        UserError: If neither exists, or it holds no weights.
    """
    if Path(name).is_dir():
        return weights_file(name)
    try:
        return Path(hf_hub_download(str(name), FOLDER_WEIGHTS, revision=revision))
    except Exception as error:  # the types of its HTTP client differ between releases
        raise UserError(f"{name}: no such folder, and {_reason(error)}") from error


def save(
    network: Network,
    spec: ModelSpec,
    folder: str | Path,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> None:
    """Write what `Localizer.save_pretrained` describes into a folder.

    Raises:
        UserError: If the network comes from an .onnx file, the evaluation cannot be read, or
            something of somebody else is in the way.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name another one")
    EXPORTED.require(folder / FOLDER_WEIGHTS)
    name = folder.resolve().name
    _writer(network, spec, name, evaluation, licence)(folder)


def push(
    network: Network,
    spec: ModelSpec,
    repo_id: str,
    private: bool = True,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """Upload what `Localizer.push_to_hub` describes, and return the URL of the commit.

    Raises:
        UserError: As in `save`, and if the Hub refuses or cannot be reached.
    """
    repository = _Repository(_writer(network, spec, repo_id, evaluation, licence))
    try:
        return str(repository.push_to_hub(repo_id, private=private, commit_message=_MESSAGE))
    except Exception as error:  # the types of its HTTP client differ between releases
        raise UserError(f"{repo_id}: not uploaded: {_reason(error)}") from error


def _writer(
    network: Network, spec: ModelSpec, name: str, evaluation: str | Path | None, licence: str | None
) -> Callable[[Path], None]:
    """A function that writes weights and model card into a folder."""
    module = network.module if isinstance(network, TorchNetwork) else network
    if not isinstance(module, (Student, WCBNet)):
        raise UserError("only PyTorch's weights can be published: load .ckpt or .safetensors")
    readme = model_card(module, spec, name, evaluation, licence)
    description = describe(module, spec)

    def write(folder: Path) -> None:
        write_safetensors(folder / FOLDER_WEIGHTS, module, description)
        try:
            MODEL_CARD.require(folder / "README.md")
        except UserError as error:  # of a repository that was made on the Hub
            _logger.warning("%s; the model card was not written", error)
        else:
            write_text(folder / "README.md", readme)

    return write


def _reason(error: Exception) -> str:
    known = (text for kind, text in _REASONS.items() if isinstance(error, kind))
    return next(known, str(error).strip().partition("\n")[0] or type(error).__name__)


_TAGS = ["image-forensics", "image-manipulation-localization", "weakly-supervised"]


def model_card(
    network: Student | WCBNet,
    spec: ModelSpec,
    name: str,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """The model card, Markdown with a YAML header: the network, its use, scores and limits.

    Args:
        network: The network, for its number of parameters.
        spec: The network's spec.
        name: Argument for `Localizer.from_pretrained`: a repository or a folder.
        evaluation: Folder written by `boxpromptiml evaluate`; None: the card says that no scores
            are known.
        licence: The Hub's identifier, such as `apache-2.0`; None: the card names no licence.

    Raises:
        UserError: If the evaluation cannot be read.
    """
    header = ModelCardData(
        library_name="boxpromptiml",
        pipeline_tag="image-segmentation",
        tags=_TAGS,
        license=licence,
        datasets=list(spec.trained_on) or None,
    )
    refinement = spec.refinement
    written = ModelCard.from_template(
        header,
        template_str=files(__package__).joinpath("model_card.jinja").read_text(encoding="utf-8"),
        name=name,
        kind=spec.kind,
        backbone=_code(spec.network.backbone),
        millions=sum(p.numel() for p in network.parameters()) / 1e6,
        input=spec.input,
        threshold=spec.threshold,
        copy_move=spec.copy_move,
        flips=spec.flips,
        regions=None if refinement is None else _code(refinement.segmenter.name),
        trained_on=[_code(one) for one in spec.trained_on],
        scores=None if evaluation is None else _scores(Path(evaluation)),
        licence=licence,
    )
    return str(written)


def _scores(folder: Path) -> str:
    """The table of `evaluate` as a code block whose fence cannot be closed by its content."""
    table = score_table(read_evaluation(folder).metrics)
    return textwrap.indent(table, "    ", lambda _: True)


def _code(text: str) -> str:
    """A name as inline code; it may come from an untrusted file."""
    one_line = re.sub(r"[`\s]+", " ", text).strip()
    return f"`{one_line}`"
