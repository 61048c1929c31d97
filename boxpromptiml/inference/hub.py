"""Weights on the Hugging Face Hub: one `model.safetensors` that says all about itself, and a spec.

Saving and publishing go through the Hub's own mixin. Loading does not: the mixin would take the
arguments of a class from a stranger's config.json, and offline it fails where there is none.
"""

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
from boxpromptiml.inference.export import describe
from boxpromptiml.inference.formats import write_safetensors
from boxpromptiml.inference.maps import Network
from boxpromptiml.inference.spec import ModelSpec
from boxpromptiml.inference.torch_network import TorchNetwork
from boxpromptiml.io.files import require_local_file, write_text
from boxpromptiml.metrics.results import read_evaluation, score_table
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet

WEIGHTS = "model.safetensors"
_MESSAGE = "Weights and model card of boxpromptiml"

_REASONS: dict[type[Exception], str] = {  # the first that fits
    HFValidationError: "no repository on the Hub has such a name; it would be owner/name",
    LocalEntryNotFoundError: f"no {WEIGHTS} of that name is in the local cache, and the Hub was "
    "not reached (no connection, or HF_HUB_OFFLINE=1)",
    OfflineModeIsEnabled: "HF_HUB_OFFLINE=1 forbids to ask the Hub",
    RepositoryNotFoundError: "the Hub has none of this name, or it is private: hf auth login",
    RevisionNotFoundError: "it has no such revision on the Hub",
    EntryNotFoundError: f"it has no {WEIGHTS} on the Hub",
}


class _Repository(ModelHubMixin):
    """What the mixin saves and uploads.

    Args:
        write: Writes all files into a folder.
    """

    def __init__(self, write: Callable[[Path], None]) -> None:
        self._write = write

    def _save_pretrained(self, save_directory: Path) -> None:
        self._write(save_directory)


def fetch(name: str | Path, revision: str | None = None) -> Path:
    """The weights file of a folder, or of a repository on the Hub, where only this one is fetched.

    Args:
        name: A folder; if there is none of this name, a repository (owner/name).
        revision: Branch, tag or commit of the repository; the latest by default.

    Raises:
        UserError: If there is neither, or no weights in it.
    """
    if Path(name).is_dir():
        require_local_file(Path(name) / WEIGHTS)
        return Path(name) / WEIGHTS
    try:
        return Path(hf_hub_download(str(name), WEIGHTS, revision=revision))
    except Exception as error:  # the types of its HTTP client differ between releases
        raise UserError(f"{name}: is no folder here, and {_reason(error)}") from error


def save(
    network: Network,
    spec: ModelSpec,
    folder: str | Path,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> None:
    """Write the weights (`model.safetensors`) and a model card (README.md) into a folder.

    Args:
        network: Of a localizer from .ckpt or .safetensors.
        spec: What its file says about it.
        folder: Made if need be; older files of the two names are replaced.
        evaluation: Folder that `boxpromptiml evaluate` wrote, for the spec.
        licence: The Hub's identifier, such as `apache-2.0`, for the spec.

    Raises:
        UserError: If the network is of an .onnx file, or the evaluation cannot be read.
    """
    folder = Path(folder)
    name = folder.resolve().name
    _repository(network, spec, name, evaluation, licence).save_pretrained(folder)


def push(
    network: Network,
    spec: ModelSpec,
    repo_id: str,
    private: bool = True,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """Upload what `save` writes to the Hub, in one commit; `hf auth login` comes before.

    Args:
        network: As in `save`.
        spec: As in `save`.
        repo_id: owner/name; made if there is none.
        private: Of a repository that is made now; another stays as it is.
        evaluation: As in `save`.
        licence: As in `save`.

    Returns:
        Address of the commit.

    Raises:
        UserError: As in `save`, and if the Hub refuses or is not reached.
    """
    repository = _repository(network, spec, repo_id, evaluation, licence)
    try:
        return str(repository.push_to_hub(repo_id, private=private, commit_message=_MESSAGE))
    except Exception as error:  # the types of its HTTP client differ between releases
        raise UserError(f"{repo_id}: not uploaded: {_reason(error)}") from error


def _repository(
    network: Network, spec: ModelSpec, name: str, evaluation: str | Path | None, licence: str | None
) -> _Repository:
    module = network.module if isinstance(network, TorchNetwork) else network
    if not isinstance(module, (Student, WCBNet)):
        raise UserError("only PyTorch's weights can be published: load .ckpt or .safetensors")
    readme = model_card(module, spec, name, evaluation, licence)
    description = describe(module, spec)

    def write(folder: Path) -> None:
        write_safetensors(folder / WEIGHTS, module, description)
        write_text(folder / "README.md", readme)

    return _Repository(write)


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
    """Markdown below a YAML header: what the network is, how to use it, how good it is, its limits.

    Args:
        network: For its number of parameters.
        spec: What its file says about it.
        name: What `Localizer.from_pretrained` is to be called with: a repository or a folder.
        evaluation: Folder that `boxpromptiml evaluate` wrote; None: the card says that nothing is
            known.
        licence: The Hub's identifier, such as `apache-2.0`; None: the card names none.

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
        regions=None if refinement is None else _code(refinement.segmenter.name),
        trained_on=[_code(one) for one in spec.trained_on],
        scores=None if evaluation is None else _scores(Path(evaluation)),
        licence=licence,
    )
    return str(written)


def _scores(folder: Path) -> str:
    """The table of `evaluate` as a code block, which nothing inside can end."""
    try:
        table = score_table(read_evaluation(folder).metrics)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}/metrics.json: is damaged; run evaluate again") from error
    return textwrap.indent(table, "    ", lambda _: True)


def _code(text: str) -> str:
    """A name as inline code; it may come from a stranger's file."""
    one_line = re.sub(r"[`\s]+", " ", text).strip()
    return f"`{one_line}`"
