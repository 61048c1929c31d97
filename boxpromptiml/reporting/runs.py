"""A run's folder, scored: its checkpoint's maps of one split, and the evaluation of these maps."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console
from rich.progress import track

from boxpromptiml.data.dataset import stored_image
from boxpromptiml.data.supervision import Source
from boxpromptiml.errors import UserError
from boxpromptiml.manifest import read_manifest, safe_name
from boxpromptiml.provenance import sha256_file, write_bytes, write_json, write_jsonl
from boxpromptiml.records import Split
from boxpromptiml.reporting.evaluate import EvaluateSettings, evaluate_predictions
from boxpromptiml.reporting.evaluation import write_evaluation
from boxpromptiml.reporting.localize import Localizer
from boxpromptiml.reporting.predictions import prob_to_png

Which = Literal["best", "last"]
_SCORED = "scored.json"
_BATCH = 8


@dataclass(frozen=True)
class Run:
    """What `boxpromptiml fit` left in a folder.

    Attributes:
        folder: `trainer.default_root_dir` of the run.
        config: The content of its config.yaml.
    """

    folder: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run's folder.

        Raises:
            UserError: If it holds no config.yaml of a `fit`.
        """
        path = folder / "config.yaml"
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: not a run's folder: {error}") from error
        if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
            raise UserError(f"{path}: not the config.yaml of `boxpromptiml fit`")
        return cls(folder, config)

    def manifests(self, split: Split) -> list[Path]:
        """The manifests of a split, as the configuration names them.

        Raises:
            UserError: If it names none.
        """
        paths = [Path(path) for path in self.config["data"].get(split) or []]
        if not paths:
            raise UserError(f"{self.folder}/config.yaml: data.{split} names no manifest")
        return paths

    def checkpoint(self, which: Which) -> Path:
        """The checkpoint that was best on validation, or that of the last epoch."""
        return self.folder / "checkpoints" / f"{which}.ckpt"

    def evaluation(self, split: Split) -> Path:
        """Folder of the scores of a split."""
        return self.folder / "evaluation" / split


def score_run(
    folder: Path, split: Split = "test", which: Which = "best", device: str = "cpu"
) -> Path:
    """Localize a split with a run's checkpoint and evaluate the maps, unless that is up to date.

    Returns:
        The evaluation's folder, RUN/evaluation/SPLIT; the maps lie in its predictions/.

    Raises:
        UserError: If the run, its checkpoint or a manifest is missing, or an image has changed.
    """
    run = Run.open(folder)
    out, checkpoint, manifests = run.evaluation(split), run.checkpoint(which), run.manifests(split)
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint} does not exist: has the training finished an epoch?")
    state = {
        "checkpoint": {"name": checkpoint.name, "sha256": sha256_file(checkpoint)},
        "manifests": [sha256_file(path) for path in manifests if path.is_file()],
    }
    done = out / _SCORED
    if done.is_file() and json.loads(done.read_text(encoding="utf-8")) == state:
        return out
    done.unlink(missing_ok=True)
    shutil.rmtree(out / "predictions", ignore_errors=True)  # maps of other weights or images
    localizer = Localizer.load(checkpoint, device)
    predict(localizer, list(_sources(manifests, split)), out / "predictions")
    settings = EvaluateSettings(threshold=localizer.card.threshold, split=split)
    write_evaluation(out, evaluate_predictions(out / "predictions", manifests, settings))
    write_json(done, state)
    return out


def _sources(manifests: list[Path], split: Split) -> Iterator[Source]:
    for path in manifests:
        manifest = read_manifest(path)
        yield from (Source(manifest, s) for s in manifest.samples if s.split == split)


def predict(localizer: Localizer, sources: list[Source], out: Path) -> None:
    """Write prob/NAME.png of every image and predictions.jsonl, as `boxpromptiml predict` does.

    Raises:
        RejectedInput: If an image is missing, damaged or not the manifest's.
    """
    rows = []
    starts = range(0, len(sources), _BATCH)
    for start in track(starts, "localizing", console=Console(stderr=True), transient=True):
        batch = sources[start : start + _BATCH]
        found = localizer.localize([stored_image(source) for source in batch])
        for source, (prob, score) in zip(batch, found, strict=True):
            name = safe_name(source.sample.id)
            write_bytes(out / "prob" / f"{name}.png", prob_to_png(prob))
            rows.append({"id": source.sample.id, "name": name, "image_score": round(score, 6)})
    write_jsonl(out / "predictions.jsonl", rows)
