"""Messages of libraries that do not help users of `fit`: adverts, and advice already followed."""

import logging
import warnings

from boxpromptiml.io.progress import is_quiet

_MESSAGES = (  # beginnings of what Lightning logs
    "💡",
    "Loading `train_dataloader` to estimate",
    "TPU available",
    "`weights_only` was not set",
)
_WARNINGS = (  # regular expressions of whole beginnings
    ".*args parameter is intended to run from within Python",  # that is the point here
    ".*isinstance\\(treespec, LeafSpec\\)",
    ".*is smaller than the logging interval",
    ".*It is recommended to use `self.log\\(.*sync_dist=True",  # our scores are reduced already
    "Checkpoint directory .* exists and is not empty",  # nothing in it is lost
    ".*does not have many workers which may be a bottleneck",
    "You're resuming from a checkpoint that ended before the epoch ended",  # ours is resumable
    "No seed found, seed set to",  # Lightning logs the seed too
    ".*ckpt_path=.last.\\) is set, but there is no last checkpoint",  # the end of `fit` says it
)


def quiet() -> None:
    """Suppress these messages and warnings in the whole process."""
    for pattern in _WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_of_use)
    if is_quiet():
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGES)
