"""A12: one bit flipped in each of many files, found by `check --verify`."""

from pathlib import Path

import numpy as np

from boxpromptiml.manifests.manifest import read_manifest
from tests.helpers.commands import run
from tests.reliability.figures import Figure, judged
from tests.reliability.material import make_manifest, read_jsonl


def every_flipped_bit_is_found(work: Path, images: int, flipped: int, seed: int = 0) -> Figure:
    """Flip one random bit in `flipped` of `images` files: images and pseudo-masks."""
    dice = np.random.default_rng(seed)
    run(["data_prep", "pseudo-masks", f"--manifest={make_manifest(work / 'data', images)}",
         f"--out={work / 'pseudo'}"])  # fmt: skip
    manifest = read_manifest(work / "pseudo" / "manifest.jsonl")
    command = ["data_prep", "check", f"--manifest={manifest.path}", "--verify"]
    clean = run([*command, f"--out={work / 'clean'}"])
    alarms = len(read_jsonl(work / "clean" / "errors.jsonl"))
    chosen = dice.permutation(images)[:flipped]
    wanted: set[str] = set()
    for number, index in enumerate(chosen):
        sample = manifest.samples[index]
        path = manifest.pseudo_mask_path(sample) if number % 2 else manifest.image_path(sample)
        if path is None:
            raise ValueError(f"{sample.id} has no pseudo-mask")
        data = bytearray(path.read_bytes())
        data[int(dice.integers(len(data)))] ^= 1 << int(dice.integers(8))
        path.write_bytes(data)
        wanted.add(path.name)
    rotten = run([*command, f"--out={work / 'rotten'}"])
    rows = read_jsonl(work / "rotten" / "errors.jsonl")
    found = {Path(row["path"]).name for row in rows}
    # A flipped image makes its pseudo-mask stale: the sidecar no longer describes the file.
    stems = {Path(name).stem for name in wanted}
    faults = [f"{name} was not found" for name in sorted(wanted - found)]
    faults += [f"{name} is sound" for name in sorted(found) if Path(name).stem not in stems]
    faults += [f"{alarms} false alarms before any flip"] if alarms else []
    faults += [end.said[-300:] for end in (clean, rotten) if end.crashed]
    if (clean.status, rotten.status) != (0, 3):
        faults.append(f"exit statuses {clean.status} and {rotten.status}: {clean.said[-300:]}")
    reached = f"{len(wanted & found)} of {len(wanted)} found, {alarms} false alarms of {images}"
    return judged("A12", "bit rot: every flipped bit found, no false alarm", reached, faults)
