"""Imports of the miniature datasets, as a user makes them."""

import json
from pathlib import Path

from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.records import Sample
from data_prep.__main__ import main
from tests.helpers.trees import TREES

GOLDEN = Path(__file__).parents[1] / "data_prep" / "importers" / "golden"


def run(dataset: str, source: Path, out: Path, *more: str) -> int:
    """Exit status of one import."""
    return main(["import", "--dataset", dataset, "--source", str(source), "--out", str(out), *more])


def errors(out: Path) -> dict[str, str]:
    """Reason by path of the file beside a manifest."""
    path = out.with_name(f"{out.stem}.errors.jsonl")
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    assert len({row["path"] for row in rows}) == len(rows)  # each once
    return {row["path"]: row["reason"] for row in rows}


def imported(root: Path, dataset: str, *more: str) -> tuple[Manifest, dict[str, str]]:
    """The dataset of trees.py, imported; rejections by path below the source."""
    source, out = root / "raw" / dataset, root / "out" / f"{dataset}.jsonl"
    if not source.exists():
        TREES[dataset](source)
    status = run(dataset, source, out, *more)
    rejected = {path.removeprefix(f"{source}/"): why for path, why in errors(out).items()}
    assert status == (3 if rejected else 0)
    return read_manifest(out), rejected


def by_id(manifest: Manifest) -> dict[str, Sample]:
    """Samples by their id without the dataset's name."""
    return {sample.id.partition("/")[2]: sample for sample in manifest.samples}


def golden_text(root: Path, dataset: str) -> str:
    """Header, samples and rejections, but for hashes, which depend on the encoder's version."""
    manifest, rejected = imported(root, dataset)
    lines = []
    for line in manifest.path.read_text().splitlines():
        row = json.loads(line)
        row.pop("image_sha256", None)
        lines.append(json.dumps(row, ensure_ascii=False))
    lines += [json.dumps({path: reason}, ensure_ascii=False) for path, reason in rejected.items()]
    return "\n".join(lines) + "\n"
