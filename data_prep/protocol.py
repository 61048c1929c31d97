"""`python -m data_prep protocol`: imported datasets to the manifests of a known protocol.

There is one manifest per dataset and split, not one for all of training: datasets have different
roots, and a common root would let a link in one archive lead into another; threshold, corrections
and teacher belong to one dataset; `data.train` accepts a list; and scores are reported by test set.
"""

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from boxpromptiml.errors import EXIT_OK, UserError
from boxpromptiml.io.options import Seed
from boxpromptiml.manifests.manifest import Manifest, read_header, read_manifest
from boxpromptiml.records import Split
from data_prep.derive import derive, is_list_beside
from data_prep.protocols.dividing import Part, divide
from data_prep.protocols.published import PROTOCOLS, Protocol, ProtocolName

_logger = logging.getLogger(__name__)

_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def write_protocol(
    protocol: ProtocolName,
    manifest: list[Path],
    out: Path,
    seed: Seed = 0,
    val_fraction: float = 0.0,
) -> int:
    """Write the training, validation and test manifests of a known evaluation protocol.

    Each is named after its split and dataset, such as test_casia_v1.jsonl, so that every test set
    gets its own score. The header says what was published, what was written, and what is our
    choice. Images that are also in a test set, by group or by file, are left out of training and
    listed in train_<dataset>.errors.jsonl; the exit status is then 3. Missing datasets are named in
    a warning.

    Args:
        protocol: boxpromptiml (the paper's), benco (IMDLBenCo's Protocol-MVSS) or cat-net.
        manifest: Manifests of `import`, or folders of them; their headers name the datasets.
        out: Folder to write.
        seed: Seed of the draw of groups for each split, where no list is published.
        val_fraction: Fraction of every training set to use for validation instead, in whole groups.
            The papers name no validation images, but `fit` needs some, and they must not be test
            images: 0.1 is sensible.

    Raises:
        UserError: If an option is out of range, or the manifests do not suffice for the protocol.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(f"--val_fraction must be 0 or more and below 1, got {val_fraction}")
    plan = PROTOCOLS[protocol]
    found = _by_dataset(manifest)
    missing = _missing(plan, found)
    samples = {dataset: manifest.samples for dataset, manifest in found.items()}
    parts = {
        out / f"{part.portion.split}_{part.portion.dataset}.jsonl": part
        for part in divide(plan.portions, samples, seed, val_fraction)
        if part.samples or part.left_out
    }
    if not any(part.samples for part in parts.values() if part.portion.split == "train"):
        raise UserError("nothing is left to train on: all images are in test sets")
    _refuse_earlier(out, parts.keys())
    status = EXIT_OK
    for path, part in parts.items():
        source = found[part.portion.dataset]
        notes = {"protocol": _notes(protocol, part, source, missing)}
        status = max(status, derive(source, path, part.samples, part.left_out, notes))
        sys.stdout.write(f"{path}: {_in_words(part)}\n")
    _say_settings(parts)
    return status


def _by_dataset(paths: Sequence[Path]) -> dict[str, Manifest]:
    """The imported manifests by the name of their dataset.

    Raises:
        UserError: If there is none, or two of one dataset.
    """
    found: dict[str, Manifest] = {}
    for path in _files(paths):
        manifest = read_manifest(path)
        dataset = manifest.header.notes.get("dataset")
        if not isinstance(dataset, str) or "protocol" in manifest.header.notes:
            _logger.warning("%s: not used, its header is not one of `import`", path)
        elif dataset in found:
            raise UserError(
                f"{path}: another manifest of {dataset} is {found[dataset].path}; name one of them"
            )
        else:
            found[dataset] = manifest
    return found


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the given manifests, and those in given folders."""
    for path in paths:
        if path.is_dir():
            jsonl = sorted(path.glob("*.jsonl"))
            yield from (file for file in jsonl if not is_list_beside(file))
        else:
            yield path


def _missing(plan: Protocol, found: Mapping[str, Manifest]) -> list[str]:
    """Missing datasets of the protocol; warns of them and of unused ones.

    Raises:
        UserError: If there is nothing to train on.
    """
    if unused := sorted(found.keys() - {portion.dataset for portion in plan.portions}):
        _logger.warning("not in this protocol: %s", ", ".join(unused))
    trained = sorted({portion.dataset for portion in plan.portions if portion.split == "train"})
    if not found.keys() & set(trained):
        raise UserError(
            "--manifest: none is of a training set of this protocol "
            f"({', '.join(trained)}); write them with `python -m data_prep import`"
        )
    missing = sorted({portion.dataset for portion in plan.portions} - found.keys())
    if missing:
        _logger.warning("missing datasets, the protocol is incomplete: %s", ", ".join(missing))
    return missing


def _refuse_earlier(out: Path, written: Collection[Path]) -> None:
    """Refuse manifests of an earlier run: its validation could overlap with the new training.

    Refuse to replace those that are of no earlier run, too, such as the imported ones.
    """
    datasets = {portion.dataset for plan in PROTOCOLS.values() for portion in plan.portions}
    could_be = [out / f"{split}_{dataset}.jsonl" for split in _SPLITS for dataset in datasets]
    earlier = sorted(path for path in could_be if path not in written and path.exists())
    if earlier:
        names = ", ".join(path.name for path in earlier)
        raise UserError(
            f"--out {out}: remove {names} of an earlier run first, or name a new folder"
        )
    there = (path for path in written if path.exists())
    foreign = (path for path in there if "protocol" not in read_header(path).notes)
    if path := next(foreign, None):
        raise UserError(f"{path}: is there, and not of an earlier run; name another --out")


def _notes(
    protocol: ProtocolName, part: Part, manifest: Manifest, missing: Sequence[str]
) -> dict[str, Any]:
    return {
        "name": protocol,
        "chosen": part.chosen,
        "published": _published(part),
        "written": _written(part),
        "imported": len(manifest.samples),
        "left_out": len(part.left_out),
        "missing_datasets": list(missing),
        "notes": list(PROTOCOLS[protocol].notes),
    }


def _published(part: Part) -> dict[str, int | None]:
    return {"manipulated": part.portion.manipulated, "authentic": part.portion.authentic}


def _written(part: Part) -> dict[str, int]:
    labels = Counter(sample.label for sample in part.samples)
    return {"manipulated": labels[1], "authentic": labels[0]}


def _in_words(part: Part) -> str:
    """Text: written and published number of each label, and what was left out."""
    published = _published(part)
    words = [
        f"{count} {label}" + (f" ({published[label]} published)" if published[label] else "")
        for label, count in _written(part).items()
    ]
    if part.left_out:
        words.append(f"{len(part.left_out)} left out, see its .errors.jsonl")
    return ", ".join(words)


def _say_settings(parts: Mapping[Path, Part]) -> None:
    """Print the settings for an experiment, and the next step."""
    for split in _SPLITS:
        paths = [str(path) for path, part in parts.items() if part.portion.split == split]
        if paths:
            sys.stdout.write(f"data.{split}: [{', '.join(paths)}]\n")
        elif split == "val":
            sys.stdout.write("data.val: none, but `fit` needs some: add --val_fraction 0.1\n")
    names = shlex.join(str(path) for path in parts)
    sys.stdout.write(
        "To find images that two splits share: python -m data_prep check "
        f"--manifest {names} --out CHECK\n"
    )
