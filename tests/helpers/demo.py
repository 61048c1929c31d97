"""The demo in miniature: the real commands, all in this process."""

from pathlib import Path

import pytest

from boxpromptiml import cli, demo
from data_prep import __main__ as data_prep

TINY = demo.DemoSettings(
    forgeries=(6, 2, 4),
    side=96,
    training=(
        "--trainer.max_epochs=1",
        "--trainer.check_val_every_n_epoch=1",
        "--data.input.size=[64,64]",
        "--data.batch_size=4",
        "--data.num_workers=0",
    ),
    workers=0,
)


def run_here(program: str, verb: str, *options: str) -> None:
    """Run a command in this process, which has torch imported: seconds instead of a minute."""
    main = {"boxpromptiml": cli.main, "data_prep": data_prep.main}[program]
    assert main([verb, *options]) in (0, 3)


def run_tiny_demo(out: Path) -> None:
    """What `boxpromptiml demo --out OUT` writes, from a dozen small images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_run", run_here)
        demo.run_demo(out, TINY)
