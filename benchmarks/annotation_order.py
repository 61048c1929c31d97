"""Is it worth while to annotate the photographs first on which student and teacher disagree?

Simulates `annotate --order` on images whose boxes are all known, as pseudo-masks made of them:

    python -m data_prep pseudo-masks --manifest train.jsonl --out pseudo
    python -m benchmarks.annotation_order --pool pseudo/manifest.jsonl --val val.jsonl --out order

A random 5 % of the pool are annotated first and train a student. The rest follow in random order,
or in the page's `useful` order by that student, until 10 and 20 % are annotated; each of these
trains another student, from ImageNet weights, by the cheap protocol of experiments/studies and
with the same number of steps. Results are lines of OUT/results.jsonl, and are never measured
twice: the same command goes on after an interruption. Some 14 minutes of processor time a seed.
"""

import argparse
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from boxpromptiml.annotate.order import most_useful_first
from boxpromptiml.annotate.photographs import Album, Photograph
from boxpromptiml.evaluation.runs import score_run
from boxpromptiml.inference.localizer import Localizer
from boxpromptiml.io.files import json_line, sha256_file
from boxpromptiml.io.processes import child_environment, python_command
from boxpromptiml.io.sandbox import IsolatedDecoder
from boxpromptiml.manifests.manifest import (
    Header,
    Manifest,
    read_manifest,
    relative_root,
    write_manifest,
)
from boxpromptiml.studies.table import StudyTable, VariantScores
from boxpromptiml.teachers.grabcut import GrabCutTeacher

START, LATER = 0.05, (0.1, 0.2)
SETTINGS = {
    "model.init_args.pretrained": "imagenet",
    "data.input.size": "[128, 192]",
    "data.batch_size": "8",
    "trainer.max_epochs": "-1",
    "trainer.limit_val_batches": "0",
    "trainer.enable_progress_bar": "false",
    "trainer.callbacks": '[{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", '
    '"init_args": {"decay": 0.99}}]',
}


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing and print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=375)
    options = parser.parse_args(words)
    pool, results = read_manifest(options.pool), options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    known = {json.loads(line)["run"] for line in lines}
    for seed in options.seeds:
        for run, places in annotated(pool, seed, options.out):
            if run.relative_to(options.out).as_posix() in known:
                continue
            train(pool, places, options.val, run, seed, options.steps)
            metrics = json.loads((score_run(run, "val", "last") / "metrics.json").read_text())
            row = {"run": run.relative_to(options.out).as_posix(), "images": len(places)}
            with results.open("ab") as stream:
                stream.write(json_line(row | {"pixel_f1": metrics["scores"]["pixel_f1"]}))
    print(comparison(options.out, options.seeds))


def annotated(pool: Manifest, seed: int, out: Path) -> Iterator[tuple[Path, list[int]]]:
    """Folders of runs, and the positions of the images that each is trained on.

    The first run of a seed must be finished before the next one is asked for.
    """
    number = len(pool.samples)
    shuffled = np.random.default_rng(seed).permutation(number).tolist()
    start, rest = shuffled[: round(START * number)], shuffled[round(START * number) :]
    first = out / f"start_{round(100 * START)}/seed_{seed}"
    yield first, start
    for name, order in (("random", rest), ("useful", useful(pool, rest, first))):
        for fraction in LATER:
            more = order[: round(fraction * number) - len(start)]
            yield out / f"{name}_{round(100 * fraction)}/seed_{seed}", [*start, *more]


def useful(pool: Manifest, places: Sequence[int], run: Path) -> list[int]:
    """Positions in the order in which the page would show the images, by the student of a run."""
    checkpoint, root = run / "checkpoints/last.ckpt", pool.path.parent / pool.header.image_root
    by_name = {pool.samples[place].image: place for place in places}
    photographs = [
        Photograph(name, pool.samples[place].size, 1, sha256_file(root / name))
        for name, place in by_name.items()
    ]
    with IsolatedDecoder() as decode:
        found = most_useful_first(
            Album(root, photographs, decode),
            Localizer.load(checkpoint, "cpu"),
            sha256_file(checkpoint),
            GrabCutTeacher(),
            run / "order.json",
        )
    return [by_name[one.name] for one in found]


def train(
    pool: Manifest, places: Sequence[int], val: Path, run: Path, seed: int, steps: int
) -> None:
    """Train on these images of the pool, from the last checkpoint of an interrupted training."""
    path, folder, header = run / "train.jsonl", pool.path.parent, pool.header
    header = Header(
        image_root=relative_root(path, folder / header.image_root),
        pseudo_root=relative_root(path, folder / header.pseudo_root),
        teacher_signature=header.teacher_signature,
    )
    write_manifest(path, header, (pool.samples[place] for place in sorted(places)))
    settings = SETTINGS | {
        "data.train": f"[{path}]", "data.val": f"[{val}]", "data.test": "[]",
        "trainer.max_steps": str(steps), "trainer.default_root_dir": str(run),
        "seed_everything": str(seed), "data.seed": str(seed),
    }  # fmt: skip
    flags = [f"--{key}={value}" for key, value in settings.items()]
    if (last := run / "checkpoints/last.ckpt").exists():
        flags.append(f"--ckpt_path={last}")
    command = python_command("-m", "boxpromptiml", "fit", "--config=experiments/native.yaml")
    with (run / "fit.log").open("ab") as log:
        subprocess.run(
            [*command, *flags], stdout=log, stderr=log, env=child_environment(), check=True
        )


def comparison(out: Path, seeds: Sequence[int]) -> str:
    """Tables of F1 with intervals, one a fraction, against random order."""
    runs: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    for folder in sorted(out.glob("*/seed_*/evaluation/val/last")):
        seed = int(folder.parents[2].name.removeprefix("seed_"))
        if seed in seeds:
            runs[folder.parents[3].name][seed] = folder
    read = {name: VariantScores.read(name, name, folders) for name, folders in runs.items()}
    tables = []
    for percent in (round(100 * fraction) for fraction in LATER):
        names = (f"start_{round(100 * START)}", f"random_{percent}", f"useful_{percent}")
        title = f"Annotated: {percent} % of the images"
        tables.append(StudyTable(title, names[1], "val", tuple(map(read.__getitem__, names))))
    return "\n".join(table.markdown() for table in tables)


if __name__ == "__main__":
    main()
