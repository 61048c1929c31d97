"""Weights & Biases: a logger that survives an unreachable server, and a table of images."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from boxpromptiml.geometry import as_array, clip, rescale, resize_trimap, shrink
from boxpromptiml.io import images
from boxpromptiml.io.orientation import upright_box, upright_image
from boxpromptiml.manifests.sources import Source
from boxpromptiml.manifests.splits import nested_fraction
from boxpromptiml.metrics.pixel import f1, pixel_counts
from boxpromptiml.records import (
    AUTHENTIC,
    MANIPULATED,
    UNSURE,
    Batch,
    Box,
    BoxArray,
    ImageArray,
    MaskArray,
    Sample,
    TrimapArray,
)
from boxpromptiml.tasks.base import LocalizerTask

if TYPE_CHECKING:  # takes more than half a second, and most runs do not log there
    from wandb import Run
    from wandb.sdk.lib import RunDisabled

    Experiment = Run | RunDisabled

log = logging.getLogger(__name__)

# Seconds to wait for the server before a run and after it; what was not sent stays on disk.
_PATIENCE = {"WANDB_INIT_TIMEOUT": "20", "WANDB_FINISH_TIMEOUT": "120"}


class PatientWandbLogger(WandbLogger):
    """Lightning's WandbLogger, which goes offline with one warning if the server fails.

    Without a key, with a refused key or with an unreachable server, the run is kept on disk for
    `wandb sync`. It never prompts for a key. It waits for WANDB_INIT_TIMEOUT (default here: 20 s)
    and WANDB_FINISH_TIMEOUT (default here: 120 s). Media files of tables are written to the run's
    folder instead of the user's home, unless WANDB_DATA_DIR is set.

    Raises:
        ModuleNotFoundError: If wandb is not installed.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Repeats nothing: jsonargparse follows super() to every argument of wandb.init, but would
        # not find those behind an __init__ that is inherited.
        if find_spec("wandb") is None:
            raise ModuleNotFoundError("wandb is not installed: pip install wandb", name="wandb")
        super().__init__(**kwargs)

    @property
    def experiment(self) -> "Experiment":
        """The wandb run, started at the first access, on the first process only."""
        rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
        if self._experiment is not None or rank != 0:
            return self._start()
        for name, value in (_PATIENCE | {"WANDB_DATA_DIR": self._data_folder()}).items():
            os.environ.setdefault(name, value)
        import wandb  # noqa: PLC0415

        try:
            if self._is_online() and not wandb.login(prompt=False):
                return self._start_offline("no API key is set (`wandb login`)")
            return self._start()
        except (wandb.errors.Error, OSError) as error:
            return self._start_offline(str(error).strip().partition("\n")[0].rstrip("."))

    def _start(self) -> "Experiment":
        run: Experiment = super().experiment
        return run

    def _start_offline(self, reason: str) -> "Experiment":
        self._wandb_init["mode"] = "offline"
        run = self._start()
        log.warning(
            "Weights & Biases: %s; this run is kept in %s, `wandb sync` it later",
            reason,
            Path(run.dir).parent,
        )
        return run

    def _data_folder(self) -> str:
        return str((Path(self.save_dir or ".") / "wandb" / "data").absolute())

    def _is_online(self) -> bool:
        import wandb  # noqa: PLC0415

        mode = self._wandb_init.get("mode") or wandb.setup().settings.mode
        return not self._offline and mode in ("online", "run", "shared")


def sweep_folder(folder: str) -> str:
    """The folder of a run's files.

    Args:
        folder: The configured folder.

    Returns:
        `folder` itself, or for runs of a `wandb agent` a subfolder of it for every run.
    """
    run = os.environ.get("WANDB_RUN_ID")
    if not run or not os.environ.get("WANDB_SWEEP_ID"):
        return folder
    return str(Path(folder) / f"sweep_{os.environ['WANDB_SWEEP_ID']}" / run)


COLUMNS = ["id", "kind", "f1", "image_score", "image"]
_CLASSES = {0: "authentic", 1: "manipulated", 2: "unsure"}
_KEYS = np.zeros(256, np.uint8)  # of a trimap's values in _CLASSES
_KEYS[MANIPULATED], _KEYS[UNSURE] = 1, 2
_MAX_IMAGES = 32  # per validation
_MAX_SIDE = 512  # pixels


@dataclass(frozen=True, slots=True)
class _Row:
    """One image of the table, at the size at which it is shown."""

    sample: Sample
    f1: float | None
    image_score: float
    image: ImageArray  # (h, w, 3)
    boxes: BoxArray  # (N, 4) pixels of `image`, which is upright as the masks are
    masks: dict[str, npt.NDArray[np.uint8]]  # (h, w) keys of _CLASSES, by the name of the overlay


class WandbImages(Callback):
    """Logs the same up to 32 validation images after every validation, as the table `val/images`.

    Its columns are id, kind, f1 (empty without manipulated pixels), image_score, and the image, at
    most 512 pixels a side, with overlays that can be switched on and off: the masks `prediction`,
    `ground_truth` and `pseudo_mask`, and the boxes, where available. These images pass the network
    a second time. The callback does nothing unless the run logs to Weights & Biases; if anything
    fails it logs one warning and no more images, and the run goes on.

    With several processes, the images are chosen from those of the first process.
    """

    def __init__(self) -> None:
        self._chosen: dict[str, Source] = {}
        self._rows: list[_Row] = []
        self._failed = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the images; the choice depends on their ids only."""
        self._chosen, self._rows = {}, []
        if self._failed or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if _wandb_logger(trainer) is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        with self._never_failing():
            loader: Any = trainer.val_dataloaders  # LocalizationData's
            sources = {s.sample.id: s for s in (loader.dataset.sources[i] for i in loader.sampler)}
            fraction = min(_MAX_IMAGES / max(len(sources), 1), 1.0)
            chosen = nested_fraction(sources, fraction, seed=0)
            self._chosen = {name: sources[name] for name in chosen}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Localize the chosen images of a batch while the validated weights are loaded."""
        members = [i for i, name in enumerate(batch["id"]) if name in self._chosen]
        if not members or not isinstance(pl_module, LocalizerTask):
            return
        with self._never_failing(), trainer.precision_plugin.forward_context():
            part = _take(batch, members)
            maps, scores = pl_module.localize(part)
            for name, prob, truth, score in zip(
                part["id"], maps, part["truth"], scores.tolist(), strict=True
            ):
                row = _row(self._chosen[name], prob, truth, score, pl_module.spec.threshold)
                self._rows.append(row)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the table."""
        rows, self._rows, self._chosen = self._rows, [], {}
        logger = _wandb_logger(trainer)
        if not rows or logger is None:
            return
        with self._never_failing():
            cells = [_cells(row) for row in sorted(rows, key=lambda row: row.sample.id)]
            logger.log_table("val/images", columns=COLUMNS, data=cells, step=trainer.global_step)

    @contextmanager
    def _never_failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - pictures are not worth a run
            log.warning("Weights & Biases gets no more images: %s: %s", type(error).__name__, error)
            self._failed, self._chosen, self._rows = True, {}, []


def _wandb_logger(trainer: Trainer) -> WandbLogger | None:
    return next((one for one in trainer.loggers if isinstance(one, WandbLogger)), None)


def _take(batch: Batch, members: list[int]) -> Batch:
    """The evaluation batch of some members (indices) of a batch."""
    part = Batch(
        image=batch["image"][members],
        label=batch["label"][members],
        id=[batch["id"][i] for i in members],
        extent=[batch["extent"][i] for i in members],
        size=[batch["size"][i] for i in members],
        truth=[batch["truth"][i] for i in members],
    )
    if "regions" in batch:
        part["regions"] = [batch["regions"][i] for i in members]
    return part


def _row(
    source: Source, prob: torch.Tensor, truth: torch.Tensor | None, score: float, threshold: float
) -> _Row:
    manifest, sample = source
    array = prob.float().cpu().numpy()
    masks = {"prediction": _trimap(array > threshold)}
    value = None
    if truth is not None:
        mask = truth.cpu().numpy() != 0
        masks["ground_truth"] = _trimap(mask)
        value = f1(pixel_counts(array, mask, threshold)) if mask.any() else None
    pseudo_path = manifest.pseudo_mask_path(sample)
    if pseudo_path is not None:
        masks["pseudo_mask"] = images.read_trimap(pseudo_path)
    image, info = images.read_image(manifest.image_path(sample))
    image, turn = shrink(image, _MAX_SIDE), info.orientation
    shown = (image.shape[0], image.shape[1])
    boxes = rescale(clip(as_array(sample.boxes or ()), sample.size), sample.size, shown)
    boxes = as_array([upright_box(Box(*box), shown, turn) for box in boxes.tolist()])
    masks = {
        name: upright_image(_KEYS[resize_trimap(trimap, shown)], turn)
        for name, trimap in masks.items()
    }
    return _Row(sample, value, score, upright_image(image, turn), boxes, masks)


def _trimap(mask: MaskArray) -> TrimapArray:
    return np.where(mask, np.uint8(MANIPULATED), np.uint8(AUTHENTIC))


def _cells(row: _Row) -> list[Any]:
    """The cells of one row of the table, in the order of COLUMNS."""
    import wandb  # noqa: PLC0415 - takes more than half a second, and most runs need none of it

    masks = {
        name: {"mask_data": mask, "class_labels": _CLASSES} for name, mask in row.masks.items()
    }
    boxes = [
        {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), box, strict=True)),
            "domain": "pixel",
            "class_id": 1,
            "box_caption": row.sample.box_origin or "box",
        }
        for box in row.boxes.tolist()
    ]
    picture = wandb.Image(
        Image.fromarray(row.image),  # wandb would squeeze an array of one row or column
        masks=masks,
        boxes={"boxes": {"box_data": boxes, "class_labels": _CLASSES}} if boxes else None,
        file_type="jpg",  # a tenth of PNG, and offline every validation keeps a copy
    )
    kind = row.sample.kind or {0: "authentic", 1: "manipulated", None: "unknown"}[row.sample.label]
    return [row.sample.id, kind, row.f1, row.image_score, picture]
