"""A1: bad files among good ones, through every command that reads images."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED
from boxpromptiml.io import images
from boxpromptiml.manifests.manifest import safe_name
from tests.helpers.commands import Ended, run
from tests.reliability.figures import Figure, judged
from tests.reliability.hostile import Planted, Reasons, fill
from tests.reliability.material import (
    make_checkpoint,
    read_jsonl,
    row,
    sound_images,
    write_coco,
    write_mask,
    write_rows,
)

_SECONDS = 300  # for a command; then it hangs
_FOLDER = "tampered"

Expected = Mapping[Path, Reasons]  # what is wrong with a file; () for one that must be taken


def survives_bad_input(work: Path, good: int, times: int) -> Figure:
    """Run `localize`, `import`, `pseudo-masks` and `check`, once clean and once among bad files.

    Args:
        work: An empty folder.
        good: Number of sound images.
        times: How often every kind of bad file is there.
    """
    began = time.monotonic()
    clean, mixed = work / "clean", work / "mixed"
    for root in (clean, mixed):
        sound_images(root / _FOLDER, good)
    planted = fill(mixed / _FOLDER, times=times)
    make_checkpoint(work / "tiny.ckpt")
    bad = [one for one in planted if one.decoder != ()]
    odd = [one.path for one in planted if one.decoder == ()]
    for path in odd:  # odd names and sound oddities belong to both runs, so that batches are equal
        os.link(path, clean / _FOLDER / path.name)
    faults: list[str] = []
    for check in (_localize, _import, _pseudo_masks, _check):
        faults += check(work, clean, mixed, planted)
    kinds = len({one.kind for one in bad})
    reached = (
        f"{len(bad)} bad files of {kinds} kinds among {good} good and {len(odd)} odd ones, 4 "
        f"commands: {len(faults)} faults, {time.monotonic() - began:.0f} s"
    )
    demand = "bad files: no crash, no hang, each listed once with a reason, good outputs identical"
    return judged("A1", demand, reached, faults)


def _localize(work: Path, clean: Path, mixed: Path, planted: Sequence[Planted]) -> list[str]:
    def command(root: Path) -> Ended:
        return run(
            ["boxpromptiml", "localize", f"--checkpoint={work / 'tiny.ckpt'}", "--overlays=false",
             "--images", str(root / _FOLDER), f"--out={root / 'localized'}"],
            seconds=_SECONDS,
        )  # fmt: skip

    def outputs(root: Path) -> dict[str, bytes]:
        rows = read_jsonl(root / "localized" / "predictions.jsonl")
        return {
            Path(row["path"]).name: (
                root / "localized" / "prob" / f"{row['name']}.png"
            ).read_bytes()
            for row in rows
        }

    faults = _statuses("localize", command(clean), command(mixed))
    expected = {one.path: one.decoder for one in planted if one.decoder is not None}
    faults += _listed("localize", mixed / "localized" / "errors.jsonl", mixed, expected)
    return faults + _identical("localize", outputs(clean), outputs(mixed))


def _import(work: Path, clean: Path, mixed: Path, planted: Sequence[Planted]) -> list[str]:
    listed = [one for one in planted if one.importer is not None]
    for root in (clean, mixed):
        names = [f"{_FOLDER}/{name}" for name in _names(root)]
        write_coco(root / "boxes.json", (n for n in names if n.isprintable() and "\\" not in n))
        for path in sorted((root / _FOLDER).glob("sound_*")):
            write_mask(root / "masks" / f"{path.stem}.png")

    def command(root: Path) -> Ended:
        return run(
            ["data_prep", "import", "--dataset=folder", f"--source={root}", "--name=made",
             f"--out={root / 'imported.jsonl'}", "--verify", "--view=stored"],
            seconds=_SECONDS,
        )  # fmt: skip

    def outputs(root: Path) -> dict[str, bytes]:
        return {row["id"]: repr(row).encode() for row in read_jsonl(root / "imported.jsonl")[1:]}

    faults = _statuses("import", command(clean), command(mixed), clean_too=False)
    expected = {one.path: one.importer for one in listed if one.importer is not None}
    faults += _listed("import", mixed / "imported.errors.jsonl", mixed, expected)
    return faults + _identical("import", outputs(clean), outputs(mixed))


def _names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / _FOLDER).iterdir())


def _manifests(clean: Path, mixed: Path, planted: Sequence[Planted]) -> None:
    """A manifest of each folder that names whatever can be named."""
    hidden = {one.path.name for one in planted if one.manifest is None}
    for root in (clean, mixed):
        rows = []
        for name in sorted(set(_names(root)) - hidden):
            known = images.probe(root / _FOLDER / name).sha256 if name.startswith("sound") else None
            rows.append(row(f"{_FOLDER}/{name}", image_sha256=known))
        write_rows(root / "manifest.jsonl", rows)


def _pseudo_masks(work: Path, clean: Path, mixed: Path, planted: Sequence[Planted]) -> list[str]:
    _manifests(clean, mixed, planted)

    def command(root: Path) -> Ended:
        words = [f"--manifest={root / 'manifest.jsonl'}", f"--out={root / 'pseudo'}"]
        return run(["data_prep", "pseudo-masks", *words], seconds=_SECONDS)

    def outputs(root: Path) -> dict[str, bytes]:
        rows = read_jsonl(root / "pseudo" / "manifest.jsonl")[1:]
        masks = {row["id"]: root / "pseudo" / f"masks/{safe_name(row['id'])}.png" for row in rows}
        return {
            name: path.read_bytes() + path.with_suffix(".json").read_bytes()
            for name, path in masks.items()
        }

    faults = _statuses("pseudo-masks", command(clean), command(mixed))
    expected = {one.path: one.manifest for one in planted if one.manifest is not None}
    faults += _listed("pseudo-masks", mixed / "pseudo" / "errors.jsonl", mixed, expected)
    return faults + _identical("pseudo-masks", outputs(clean), outputs(mixed))


def _check(work: Path, clean: Path, mixed: Path, planted: Sequence[Planted]) -> list[str]:
    def command(root: Path) -> Ended:
        words = [f"--manifest={root / 'manifest.jsonl'}", f"--out={root / 'checked'}", "--verify"]
        return run(["data_prep", "check", *words], seconds=_SECONDS)

    faults = _statuses("check", command(clean), command(mixed))
    expected = {one.path: one.manifest for one in planted if one.manifest is not None}
    return faults + _listed("check", mixed / "checked" / "errors.jsonl", mixed, expected)


def _statuses(what: str, clean: Ended, mixed: Ended, clean_too: bool = True) -> list[str]:
    faults = [
        f"{what}: {name}: {'hung' if ended.status is None else ended.said[-300:]}"
        for name, ended in (("clean", clean), ("mixed", mixed))
        if ended.crashed
    ]
    if clean_too and clean.status != EXIT_OK:
        faults.append(f"{what}: clean run ended with {clean.status}: {clean.said[-300:]}")
    if mixed.status != EXIT_REJECTED:
        faults.append(f"{what}: mixed run ended with {mixed.status}: {mixed.said[-300:]}")
    return faults


def _listed(what: str, errors: Path, root: Path, expected: Expected) -> list[str]:
    """Every bad file exactly once and for a reason of its own, no other file at all."""
    if not errors.exists():
        return [f"{what}: wrote no {errors.name}"]
    rows = [(_below(row["path"]), row["reason"]) for row in read_jsonl(errors)]
    counts = Counter(path for path, _ in rows)
    wanted = {_below(str(path)): reasons for path, reasons in expected.items()}
    faults = [
        f"{what}: {path!r} listed {counts[path]} times"
        for path, reasons in wanted.items()
        if counts[path] != bool(reasons)
    ]
    faults += [f"{what}: {path!r} is not bad, but listed" for path in counts.keys() - wanted.keys()]
    return faults + [
        f"{what}: {path!r} rejected as {reason}, not as one of {wanted[path]}"
        for path, reason in rows
        if wanted.get(path) and reason not in wanted[path]
    ]


def _below(path: str) -> str:
    """A path from the folder of images on, in which commands agree."""
    return path[path.rfind(f"{_FOLDER}/") :]


def _identical(what: str, clean: Mapping[str, bytes], mixed: Mapping[str, bytes]) -> list[str]:
    lost = [
        f"{what}: {name!r} has no output among bad files" for name in clean if name not in mixed
    ]
    extra = [f"{what}: {name!r} has an output" for name in mixed if name not in clean]
    return (
        lost
        + extra
        + [
            f"{what}: {name!r} has another output among bad files"
            for name in clean
            if name in mixed and clean[name] != mixed[name]
        ]
    )
