"""`boxpromptiml fit` of a tiny student, called in this process."""

from pathlib import Path

from boxpromptiml.cli import main

TINY = [
    "--data.supervision=mask", "--data.batch_size=2", "--data.input.size=[64,64]",
    "--model.student.backbone=mobilenetv3_small_050", "--model.student.fusion.width=16",
    "--model.student.fusion.prototypes=8", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
]  # fmt: skip


def fit_words(data: Path, run: Path, *more: str) -> list[str]:
    """The command line of a fit on `data`/train.jsonl and val.jsonl into the folder `run`."""
    splits = [f"--data.{split}=[{data}/{split}.jsonl]" for split in ("train", "val")]
    return ["fit", *TINY, *splits, f"--trainer.default_root_dir={run}", *more]


def fit(data: Path, run: Path, *more: str) -> int:
    """Run it; returns the exit status."""
    return main(fit_words(data, run, *more))
