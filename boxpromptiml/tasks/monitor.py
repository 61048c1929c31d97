"""Which scores can choose a checkpoint, given the validation images."""

from collections.abc import Iterable

import torch

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.sources import Source
from boxpromptiml.metrics.pixel import LocalizationMetrics
from boxpromptiml.tasks.numeric import all_scores

_ALTERNATIVES = ("pixel_f1", "image_auc", "false_alarm_pixels")  # in the order of preference
_LOWER_IS_BETTER = "false_alarm"
_PREFIXES = ("val/", "val/coarse_")


def refuse_uncomputable(monitor: str, sources: Iterable[Source], others: bool = True) -> None:
    """Check that the score that chooses the checkpoint can be computed.

    Args:
        monitor: Name of the score, such as `val/pixel_f1`.
        sources: The validation images.
        others: Whether the task may log scores beside ours; their names are accepted.

    Raises:
        UserError: If there is no such score, or it would be nan; it names one that can be computed.
    """
    name = next((monitor[len(p) :] for p in _PREFIXES[::-1] if monitor.startswith(p)), "")
    known = _computable({(0, False), (1, True)})
    if name not in known:
        if not others and monitor != "train/loss":
            raise UserError(
                f"checkpoint.monitor={monitor}: no such score; there are "
                + ", ".join(f"val/{one}" for one in sorted(known))
            )
        return
    kinds = [(source.sample.label, source.sample.mask is not None) for source in sources]
    computable = _computable(set(kinds))
    if name in computable:
        return
    masked, authentic = kinds.count((1, True)), sum(label == 0 for label, _ in kinds)
    found = (
        f"the {len(kinds)} validation images ({masked} manipulated with a mask, {authentic} "
        "authentic)"
    )
    better = next((name for name in _ALTERNATIVES if name in computable), None)
    if better is None:
        raise UserError(f"no score can be computed from {found}: add labels or masks to data.val")
    mode = " --checkpoint.mode=min" if better.startswith(_LOWER_IS_BETTER) else ""
    raise UserError(
        f"checkpoint.monitor={monitor} cannot be computed from {found}, so no checkpoint could be "
        f"chosen: add validation images, or set --checkpoint.monitor=val/{better}{mode}"
    )


def _computable(kinds: Iterable[tuple[int | None, bool]]) -> set[str]:
    """Names of the scores of a set with such images: (label, whether there is a mask)."""
    metrics = LocalizationMetrics()
    prob = torch.tensor([[0.9, 0.2], [0.1, 0.3]])
    for label, has_mask in kinds:
        truth = torch.tensor([[int(label != 0), 0], [0, 0]]) if has_mask or label == 0 else None
        known = torch.tensor([torch.nan if label is None else float(label)])
        metrics.update([prob], [truth], known, torch.tensor([0.5]))
    return {name for name, score in all_scores(metrics).items() if not score.isnan()}
