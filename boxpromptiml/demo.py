"""`boxpromptiml demo`: the whole path on photographs that scikit-image brings along.

Forge, draw coarse boxes, turn them into pseudo-masks with the GrabCut teacher, train a small
student on those, test it on forgeries of areas that training never saw, write a report.
"""

import logging
import platform
import resource
import sys
import time
import warnings
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import cv2
import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, RichProgressBar
from rich.console import Console
from rich.progress import track

from boxpromptiml.data.datamodule import LocalizationData
from boxpromptiml.data.transforms import Augmentation
from boxpromptiml.errors import UserError
from boxpromptiml.io import images
from boxpromptiml.io.files import sha256_bytes, sha256_file, write_bytes, write_json
from boxpromptiml.manifests.manifest import Header, Manifest, read_manifest, write_manifest
from boxpromptiml.models.configs import FusionConfig, StudentConfig
from boxpromptiml.models.inputs import NetworkInput
from boxpromptiml.records import Sample, Split
from boxpromptiml.report.held_out import HeldOut, score_split, supervision_scores
from boxpromptiml.report.page import Report, write_report
from boxpromptiml.report.plots import threshold_plot
from boxpromptiml.report.stored_views import worst_pseudo_masks
from boxpromptiml.report.text import plain, verdict
from boxpromptiml.report.training import read_audit
from boxpromptiml.synth.forge import coarse_box
from boxpromptiml.synth.photos import SPLIT_AREAS, forge_photo
from boxpromptiml.tasks.callbacks import GuardedCheckpoint, LocalCheckpointIO
from boxpromptiml.tasks.distill import DistillTask
from boxpromptiml.teachers.consensus import Consensus
from boxpromptiml.teachers.grabcut import GrabCutTeacher
from boxpromptiml.teachers.pseudo_masks import run_job

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_PACKAGES = ("boxpromptiml", "torch", "lightning", "timm", "opencv-python-headless", "scikit-image")
_STUDENT = StudentConfig(
    backbone="test_resnet",  # timm's smallest: dense convolutions learn fastest from nothing
    residuals="srm",
    stages=(1, 2, 3, 4),
    fusion=FusionConfig(width=32, prototypes=32),
)


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; the command line keeps the defaults.

    Attributes:
        seed: Decides everything random.
        forgeries: Manipulated images of train, val and test.
        authentic: Share of them whose untouched crop is kept too, as an authentic image.
        side: Of every image in pixels.
        crop: Side of a training crop.
        quality: Least and greatest JPEG quality, of forged and authentic images alike.
        student: The network.
        epochs: Fixed, so that the result does not depend on the machine's speed.
        validate_every: Epochs between validations.
        batch_size: Training crops a step.
        lr: Peak learning rate.
        workers: Processes of the pseudo-mask job and of the training data.
    """

    seed: int = 0
    forgeries: tuple[int, int, int] = (400, 24, 60)
    authentic: float = 0.5
    side: int = 192
    crop: int = 160
    quality: tuple[int, int] = (75, 98)
    student: StudentConfig = _STUDENT
    epochs: int = 24
    validate_every: int = 4
    batch_size: int = 8
    lr: float = 4e-3
    workers: int = 1


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """The whole path on bundled photographs, without downloads or a GPU, in a few minutes.

    Forges crops of photographs, draws coarse boxes, makes pseudo-masks with the GrabCut teacher,
    trains a small student on them and tests it on forgeries of areas that training never saw.
    Writes photos/, masks/, manifest.jsonl, pseudo/, checkpoints/ and, at the end, student.ckpt,
    metrics.json and report.html. A second run overwrites them.

    Args:
        out: Folder to write.
        seed: The same seed gives the same numbers.
    """
    metrics = run_demo(out, DemoSettings(seed=seed))
    sys.stdout.write(
        f"{out}/report.html: pixel F1 {metrics['pixel_f1']:.3f} on held-out forgeries "
        f"(flag everything: {metrics['full_f1']:.3f}), pseudo-mask IoU {metrics['pseudo_iou']:.3f} "
        f"(box: {metrics['box_iou']:.3f}), {metrics['minutes']:.1f} minutes\n"
    )


def run_demo(out: Path, settings: DemoSettings) -> dict[str, float]:
    """Run every stage into the folder `out` and return the content of metrics.json."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a folder")
    if not 0 <= settings.seed < 2**32:
        raise UserError(f"--seed must be in [0, 2**32), got {settings.seed}")
    console, start = Console(stderr=True), time.monotonic()
    _prepare_process(settings.seed)

    def stage(number: int, text: str) -> None:
        console.print(f"[bold]{number}/5[/bold] {text} ({time.monotonic() - start:.0f} s)")

    stage(1, f"forging {sum(settings.forgeries)} crops of photographs in scikit-image")
    manifest = make_forgeries(out, settings)
    stage(2, "boxes to pseudo-masks with GrabCut")
    taught = make_pseudo_masks(manifest, out, settings)
    stage(3, f"training for {settings.epochs} epochs on the pseudo-masks")
    best = train(taught, out, settings)
    stage(4, "testing on areas that training never saw")
    found = score_split(taught, best, "test")
    stage(5, "writing the report")
    metrics = found.scores | supervision_scores(taught, "train")
    metrics["minutes"] = (time.monotonic() - start) / 60
    metrics["peak_memory_gib"] = _peak_memory_gib()
    write_bytes(out / "student.ckpt", best.read_bytes())
    write_json(out / "metrics.json", metrics)
    write_report(_report(metrics, found, settings, out), out / "report.html")
    return metrics


def _prepare_process(seed: int) -> None:
    """Fix the generators, and one thread, so that sums do not depend on the number of cores."""
    lightning.seed_everything(seed, verbose=False)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty.*")


def _peak_memory_gib() -> float:
    """Most memory of this process and of its largest child at once, at worst."""
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) * unit / 2**30


def make_forgeries(out: Path, settings: DemoSettings) -> Manifest:
    """Write photos/, masks/ and manifest.jsonl: forgeries with coarse boxes, authentic crops."""
    samples: list[Sample] = []
    jobs = [
        (split, number)
        for split, count in zip(_SPLITS, settings.forgeries, strict=True)
        for number in range(count)
    ]
    for split, number in track(jobs, "forging", console=Console(stderr=True), transient=True):
        samples += _forge_one(out, settings, split, number)
    notes = {"areas": {split: [a.name for a in areas] for split, areas in SPLIT_AREAS.items()}}
    return write_manifest(out / "manifest.jsonl", Header(notes=notes), samples)


def _forge_one(out: Path, settings: DemoSettings, split: Split, number: int) -> list[Sample]:
    """One forgery and, for a share of them, the untouched crop compressed alike."""
    rng = np.random.default_rng([settings.seed, _SPLITS.index(split), number])
    forged = forge_photo(split, settings.side, rng)
    quality = int(rng.integers(settings.quality[0], settings.quality[1] + 1))
    name = f"{split}_{number:04d}"
    mask = forged.forgery.mask
    images.write_png(out / "masks" / f"{name}.png", mask.astype(np.uint8) * 255)
    sample = Sample(
        id=name,
        dataset="bundled",
        split=split,
        group=forged.host.name,
        image=f"photos/{name}.jpg",
        size=(settings.side, settings.side),
        label=1,
        boxes=tuple(coarse_box(mask, rng)),
        kind=forged.forgery.kind,
        mask=f"masks/{name}.png",
    )
    data = images.encode_jpeg(forged.forgery.image, quality)
    write_bytes(out / sample.image, data)
    written = [replace(sample, image_sha256=sha256_bytes(data))]
    if rng.random() < settings.authentic:
        data = images.encode_jpeg(np.ascontiguousarray(forged.untouched), quality)
        image = f"photos/{name}_authentic.jpg"
        write_bytes(out / image, data)
        untouched = replace(sample, id=f"{name}_authentic", image=image, label=0, boxes=())
        written.append(replace(untouched, kind=None, mask=None, image_sha256=sha256_bytes(data)))
    return written


def make_pseudo_masks(manifest: Manifest, out: Path, settings: DemoSettings) -> Manifest:
    """Answer the boxes of all images with GrabCut, into pseudo/; the manifest to train on."""
    run_job(manifest, out / "pseudo", GrabCutTeacher(), Consensus(), settings.workers)
    return read_manifest(out / "pseudo" / "manifest.jsonl")


def train(taught: Manifest, out: Path, settings: DemoSettings) -> Path:
    """Train on the pseudo-masks; the checkpoint that was best on the validation images."""
    network_input = NetworkInput("native", (settings.crop, settings.crop))
    data = LocalizationData(
        train=[taught.path],
        val=[taught.path],
        input=network_input,
        augmentation=Augmentation(vertical_flip=0.5, rotate90=0.5),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        seed=settings.seed,
    )
    task = DistillTask(settings.student, network_input, dice_weight=1.0, lr=settings.lr)
    keeper = GuardedCheckpoint()
    keeper.dirpath = str(out / "checkpoints")
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=settings.epochs,
        check_val_every_n_epoch=settings.validate_every,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        deterministic=True,
        logger=False,
        enable_model_summary=False,
        default_root_dir=out,
        plugins=LocalCheckpointIO(),
        callbacks=[
            EMAWeightAveraging(decay=0.99),
            keeper,
            RichProgressBar(console_kwargs={"stderr": True}),
            _Lines(),
        ],
    )
    trainer.fit(task, data)
    return Path(keeper.best_model_path)


class _Lines(Callback):
    """One line a validation, for logs and terminals without a progress bar."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After every validation."""
        scores = trainer.callback_metrics
        sys.stderr.write(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: "
            f"loss {float(scores['train/loss']):.3f}, "
            f"validation F1 {float(scores['val/pixel_f1']):.3f}\n"
        )


def _report(metrics: dict[str, float], found: HeldOut, settings: DemoSettings, out: Path) -> Report:
    halved = ", ".join(Path(area.photo).stem for area in SPLIT_AREAS["test"])
    trained = (
        f"A {settings.student.backbone} student learnt from GrabCut pseudo-masks of "
        f"{settings.forgeries[0]} made-up forgeries (splices, copy-moves, removals) of the left "
        f"halves of scikit-image's photographs {halved}."
    )
    scored = (
        f"On {settings.forgeries[2]} forgeries of their right halves, which served neither as host "
        "nor as donor in training."
    )
    sure = (
        "Scenes and generator are those of the training, so these scores say little of other "
        "photographs and nothing of forgeries by other hands. Intervals: see `evaluate`."
    )
    scores = plain(metrics)
    answers = (
        ("Trained", trained),
        ("Scored", scored),
        ("How good", verdict(scores)),
        ("How sure", sure),
        ("Where it fails", found.gallery.failures),
    )
    taught = read_manifest(out / "pseudo" / "manifest.jsonl")
    audit = read_audit(taught.path)
    return Report(
        title="boxpromptiml demo",
        summary=answers,
        scores=scores,
        groups="Not measured: `boxpromptiml evaluate` does, on the demo's maps.",
        plots=(threshold_plot({"F1": found.curve}, metrics["full_f1"], out / "plots"),),
        gallery=found.gallery,
        audits=(audit,) if audit else "Not measured.",
        worst_pseudo_masks=worst_pseudo_masks(taught, audit.worst) if audit else (),
        settings=asdict(settings),
        versions={"python": platform.python_version()} | {n: version(n) for n in _PACKAGES},
        checksums={name: sha256_file(out / name) for name in ("student.ckpt", "manifest.jsonl")},
    )
