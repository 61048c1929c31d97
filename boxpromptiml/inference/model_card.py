"""The model card: the README.md that goes with published weights, for whoever finds them."""

import re
import textwrap
from importlib.resources import files
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from boxpromptiml.errors import UserError
from boxpromptiml.inference.spec import Card
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.metrics.score_table import score_table
from boxpromptiml.models.student import Student
from boxpromptiml.models.wcbnet import WCBNet

_TAGS = ["image-forensics", "image-manipulation-localization", "weakly-supervised"]


def model_card(
    network: Student | WCBNet,
    card: Card,
    name: str,
    evaluation: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """Markdown below a YAML header: what the network is, how to use it, how good it is, its limits.

    Args:
        network: For its number of parameters.
        card: What its file says of it.
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
        datasets=list(card.trained_on) or None,
    )
    refinement = card.refinement
    written = ModelCard.from_template(
        header,
        template_str=files(__package__).joinpath("model_card.jinja").read_text(encoding="utf-8"),
        name=name,
        kind=card.kind,
        backbone=_code(card.network.backbone),
        millions=sum(p.numel() for p in network.parameters()) / 1e6,
        input=card.input,
        threshold=card.threshold,
        regions=None if refinement is None else _code(str(refinement.segmenter.get("name"))),
        trained_on=[_code(one) for one in card.trained_on],
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
