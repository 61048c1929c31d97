"""Scores a run's folder: maps of one split by its checkpoint, and their evaluation."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from boxpromptiml.errors import RejectedInput, UserError
from boxpromptiml.evaluation.evaluate import SCORED, EvaluateSettings, evaluate_predictions
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import (
    fingerprint,
    sha256_file,
    write_bytes,
    write_json,
    write_jsonl,
)
from boxpromptiml.io.folders import files_below, make_folder
from boxpromptiml.io.map_files import encode_map
from boxpromptiml.io.old_names import renamed
from boxpromptiml.io.progress import note, track
from boxpromptiml.io.strict_json import read_json
from boxpromptiml.io.strict_yaml import read_yaml
from boxpromptiml.manifests.manifest import safe_name
from boxpromptiml.manifests.sources import Source, read_sources, stored_image
from boxpromptiml.metrics.results import SCHEMA_VERSION, read_evaluation, write_evaluation
from boxpromptiml.records import Split

Which = Literal["best", "last"]


@dataclass(frozen=True)
class Run:
    """A run folder of `boxpromptiml fit`.

    Attributes:
        folder: `trainer.default_root_dir` of the run.
        config: Content of its config.yaml.
    """

    folder: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run's folder.

        Raises:
            UserError: If it contains no config.yaml of `fit`.
        """
        path = folder / "config.yaml"
        try:
            config = renamed(read_yaml(path))
        except UserError as error:
            raise UserError(f"not a run's folder: {error}") from error
        if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
            raise UserError(f"{path}: not the config.yaml of `boxpromptiml fit`")
        for split in get_args(Split):
            named = config["data"].get(split) or []
            if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
                raise UserError(f"{path}: data.{split} must be a list of paths")
        return cls(folder, config)

    def manifests(self, split: Split) -> list[Path]:
        """The manifests of a split, as named in the configuration.

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

    def evaluation(self, split: Split, which: Which) -> Path:
        """Folder of the evaluation of a split by a checkpoint."""
        return self.folder / "evaluation" / split / which


def score_run(
    folder: Path, split: Split = "test", which: Which = "best", device: str = "cpu"
) -> Path:
    """Localize a split with a run's checkpoint and evaluate the maps, unless that is up to date.

    Earlier scores are kept until the new ones are complete, and are used if the checkpoint, a
    manifest, an image or a mask no longer exists.

    Args:
        folder: The run's folder.
        split: Split of the run's manifests to score.
        which: The checkpoint: best (on validation) or last.
        device: Where the network runs, such as `cpu` or `cuda`.

    Returns:
        The evaluation's folder, RUN/evaluation/SPLIT/WHICH; the maps lie in its predictions/.

    Raises:
        UserError: If the run, its checkpoint or a manifest is missing, or an image has changed.
    """
    run = Run.open(folder)
    out, checkpoint = run.evaluation(split, which), run.checkpoint(which)
    manifests = run.manifests(split)
    before = read_state(out)
    if before is not None and (gone := _missing([checkpoint, *manifests])):
        return _earlier(out, gone)
    if not checkpoint.is_file():
        raise UserError(
            f"{checkpoint} does not exist: has the training finished an epoch? There may be "
            "another in the folder: --checkpoint best or last"
        )
    sources = read_sources(manifests, split)
    try:
        files = [path for source in sources for path in _files(source)]
        gone = _missing(files)
    except RejectedInput as error:  # in an object store that is out of reach
        files, gone = [], Path(error.path)
    if before is not None and gone:
        return _earlier(out, gone)
    state = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": {"name": checkpoint.name, "sha256": sha256_file(checkpoint)},
        "manifests": [sha256_file(path) for path in manifests],
        "images_and_masks": fingerprint([sha256_file(path) for path in files if path.is_file()]),
    }
    if before is not None and before.items() >= state.items():
        return out
    localizer = Localizer.load(checkpoint, device)
    settings = EvaluateSettings(threshold=localizer.spec.threshold, split=split)
    with _replacing(out) as fresh:
        predict(localizer, sources, fresh / "predictions")
        found = evaluate_predictions(fresh / "predictions", manifests, settings)
        found.metrics["predictions"] = str(out / "predictions")
        write_evaluation(fresh, found)
        write_json(fresh / SCORED, state | {"scores": _hashes(fresh)})
    return out


def _files(source: Source) -> Iterator[Path]:
    """The image, and the mask if there is one."""
    yield source.manifest.image_path(source.sample)
    if mask := source.manifest.mask_path(source.sample):
        yield mask


def _missing(paths: Sequence[Path]) -> Path | None:
    return next((path for path in paths if not path.is_file()), None)


def _earlier(out: Path, gone: Path) -> Path:
    note(f"{gone} is not there: {out} keeps its scores, which may be of earlier files")
    return out


def read_state(folder: Path) -> dict[str, Any] | None:
    """What a complete evaluation folder was made from; None if it is incomplete or was edited."""
    try:
        state = read_json(folder / SCORED)
        read_evaluation(folder)
    except UserError:
        return None
    if not isinstance(state, dict) or state.get("scores", _hashes(folder)) != _hashes(folder):
        return None
    return state


def _hashes(folder: Path) -> list[str]:
    return [sha256_file(folder / name) for name in ("metrics.json", "per_image.csv")]


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that replaces `folder` if the block ends without an exception."""
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link, which would be replaced; remove it")
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{n}") for n in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        earlier = _maps_of(old)
        for path in files_below(old, hidden=True) if old.exists() else ():
            inside = path.relative_to(old)
            if inside.as_posix() not in earlier and not os.path.lexists(folder / inside):
                make_folder((folder / inside).parent)
                path.rename(folder / inside)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _maps_of(folder: Path) -> set[str]:
    """The maps that scoring wrote into an evaluation's folder, as far as its rows tell."""
    with suppress(UserError):
        rows = read_evaluation(folder).rows
        return {f"predictions/prob/{row.name}.png" for row in rows}
    return set()


def predict(localizer: Localizer, sources: Sequence[Source], out: Path) -> None:
    """Write prob/NAME.png of every image and predictions.jsonl into `out`, as `predict` does.

    Raises:
        RejectedInput: If an image is missing, damaged or not the one in the manifest.
    """
    rows = []
    known = track(sources, "localizing", len(sources))
    pixels = ((source, stored_image(source)) for source in known)
    for source, _, found in localizer.localize_each(pixels):
        name = safe_name(source.sample.id)
        write_bytes(out / "prob" / f"{name}.png", encode_map(found.prob))
        rows.append({"id": source.sample.id, "name": name, "image_score": round(found.score, 6)})
    write_jsonl(out / "predictions.jsonl", rows)
