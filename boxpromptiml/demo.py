"""`boxpromptiml demo`: the whole path on photographs that ship with scikit-image.

Every stage is a command that a user could run, started as a separate process.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boxpromptiml import geometry
from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.io.files import write_json
from boxpromptiml.io.options import Seed
from boxpromptiml.io.outputs import DEMO
from boxpromptiml.io.processes import child_environment, python_command
from boxpromptiml.io.strict_json import parse_json
from boxpromptiml.manifests.manifest import read_manifest
from boxpromptiml.manifests.sources import Source, ground_truth
from boxpromptiml.metrics.results import read_evaluation
from boxpromptiml.records import Split
from boxpromptiml.synth.photos import write_crops

_CONFIG = Path(__file__).with_name("demo.yaml")
_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_SCORES = ("pixel_f1", "iou", "auc", "false_alarm_pixels")


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; the command line keeps the defaults.

    Attributes:
        seed: Decides everything random, in [0, 2**32).
        forgeries: Number of forgeries for train, val and test; half as many authentic images are
            added to each.
        side: Height and width of every image in pixels, at most 192.
        training: Options of `boxpromptiml fit` that replace those of demo.yaml.
        workers: Processes beside the main one that forge and make pseudo-masks.
    """

    seed: int = 0
    forgeries: tuple[int, int, int] = (400, 24, 60)
    side: int = 192
    training: tuple[str, ...] = ()
    workers: int = 2


def demo(out: Path = Path("runs/demo"), seed: Seed = 0) -> None:
    """The whole path on bundled photographs, without downloads or a GPU, in a few minutes.

    Forges crops of photographs and boxes the forgeries, makes pseudo-masks with the GrabCut
    teacher, trains a small student on them and tests it on forgeries of halves of the photographs
    that training never saw. Prints every command that it runs, so that you can repeat it. Writes
    one folder per stage and, at the end, metrics.json and report.html. A second run overwrites
    them. The scores show that the path works; they say little of other photographs and of forgeries
    by other hands.

    Args:
        out: Folder to write.
        seed: The same seed gives the same scores.

    Raises:
        UserError: If `out` is a file, the seed is out of range, or a stage fails.
    """
    metrics = run_demo(out, DemoSettings(seed=seed))
    sys.stdout.write(
        f"{out}/report.html: pixel F1 {metrics['pixel_f1']:.3f} on held-out forgeries "
        f"(flag everything: {metrics['full_f1']:.3f}), pseudo-mask IoU {metrics['pseudo_iou']:.3f} "
        f"(box: {metrics['box_iou']:.3f}), {metrics['minutes']:.1f} minutes\n"
    )


def run_demo(out: Path, settings: DemoSettings) -> dict[str, float]:
    """Run every stage into a folder.

    Args:
        out: Gets train/, val/ and test/ (images, masks, manifest), pseudo/ (pseudo-masks),
            student/ (checkpoints and scores), metrics.json and report.html.
        settings: The sizes.

    Returns:
        The content of metrics.json: `pixel_f1`, `iou`, `auc` and `false_alarm_pixels` of the
        student on the test images; `full_f1`, the pixel F1 of flagging everything; `pseudo_iou` and
        `box_iou`, the mean IoU of pseudo-masks and filled boxes with the truth of the training
        images; `minutes`; `peak_memory_gib`, of the largest process.

    Raises:
        UserError: If `out` is a file, the seed is out of range, or a stage fails.
    """
    if not 0 <= settings.seed < 2**32:
        raise UserError(f"--seed must be in [0, 2**32), got {settings.seed}")
    DEMO.mark(out)
    start = time.monotonic()
    for split, count in zip(_SPLITS, settings.forgeries, strict=True):
        _forge(out / split, split, count, settings)
    teacher = ["pseudo-masks", "--teacher=grabcut", f"--num_workers={settings.workers}"]
    for split in ("train", "test"):  # those of the test images are for the report
        paths = f"--manifest={out / split}/manifest.jsonl", f"--out={out / 'pseudo' / split}"
        _run("data_prep", *teacher, *paths)
    run = out / "student"
    _train(run, out, settings)
    config, best = f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"
    _run("boxpromptiml", "test", config, best)
    _run("boxpromptiml", "report", f"--run={run}", f"--out={out}/report.html")
    metrics = _student_scores(run) | _supervision_scores(out)
    metrics["minutes"] = (time.monotonic() - start) / 60
    metrics["peak_memory_gib"] = _peak_memory_gib()
    write_json(out / "metrics.json", metrics)
    return metrics


def _forge(out: Path, split: Split, count: int, settings: DemoSettings) -> None:
    """Forge crops of the photographs of a split; the crops of one area are a group."""
    rng = np.random.default_rng([settings.seed, _SPLITS.index(split)])
    with tempfile.TemporaryDirectory(prefix="boxpromptiml-demo-") as photos:
        write_crops(Path(photos), split, count, settings.side, rng)
        _run(
            *("data_prep", "forgeries", f"--images={photos}", f"--out={out}", "--name=bundled"),
            *(f"--split={split}", f"--count={count}", f"--authentic={count // 2}"),
            *(f"--seed={settings.seed}", "--group_by=folder", f"--num_workers={settings.workers}"),
        )


def _train(run: Path, out: Path, settings: DemoSettings) -> None:
    manifests = {"train": "pseudo/train", "val": "val", "test": "pseudo/test"}
    data = (
        f"--data.{split}={json.dumps([str(out / folder / 'manifest.jsonl')])}"
        for split, folder in manifests.items()
    )
    _run(
        *("boxpromptiml", "fit", f"--config={_CONFIG}", *data, f"--data.seed={settings.seed}"),
        *(f"--seed_everything={settings.seed}", f"--trainer.default_root_dir={run}"),
        *settings.training,
    )


def _run(program: str, verb: str, *options: str) -> None:
    """Run a command as a process, with its output on standard error.

    It uses one thread, so that sums do not depend on the number of cores. The child imports from
    the same place as this process, never from the working directory, and ends with it.

    Raises:
        UserError: If the command fails.
    """
    words = [program, verb, *options]
    sys.stderr.write(f"$ python -m {' '.join(words)}\n")
    sys.stderr.flush()
    ended = subprocess.run(  # noqa: S603 - our own programs, no shell
        python_command("-m", *words),
        stdout=2,
        env=child_environment() | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    if ended.returncode not in (EXIT_OK, EXIT_REJECTED):
        raise UserError(f"`{program} {verb}` failed with status {ended.returncode}, see above")


def _student_scores(run: Path) -> dict[str, float]:
    """Scores of the student on the test images, and the pixel F1 of flagging everything."""
    evaluation = read_evaluation(run / "evaluation" / "test" / "best")
    scores = {name: float(evaluation.metrics["scores"][name]["value"]) for name in _SCORES}
    regions = np.array([row.region for row in evaluation.rows if row.region > 0])
    return scores | {"full_f1": float(np.mean(2 * regions / (1 + regions)))}


def _supervision_scores(out: Path) -> dict[str, float]:
    """Mean IoU with the truth, over the forgeries of train: of pseudo-masks and of filled boxes."""
    summary = out / "pseudo" / "train" / "summary.json"
    audit = parse_json(summary.read_text(encoding="utf-8"), str(summary))["audit"]
    manifest = read_manifest(out / "train" / "manifest.jsonl")
    filled = []
    for sample in manifest.samples:
        if sample.label:
            truth = ground_truth(Source(manifest, sample))
            boxed = geometry.union_mask(geometry.as_array(sample.boxes or ()), sample.size)
            filled.append((boxed & truth).sum() / (boxed | truth).sum())
    return {"pseudo_iou": float(audit["iou"]), "box_iou": float(np.mean(filled))}


def _peak_memory_gib() -> float:
    """Largest resident memory of a process that this one started."""
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**30
