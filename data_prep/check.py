"""`python -m data_prep check`: checks manifests and their files before training."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2

from boxpromptiml.errors import EXIT_OK, EXIT_REJECTED, UserError
from boxpromptiml.io.files import write_json, write_jsonl, write_text
from boxpromptiml.io.options import ProcessCount, needs
from boxpromptiml.io.outputs import CHECKED
from boxpromptiml.io.progress import parallel
from boxpromptiml.io.ray_engine import EngineName, chosen_engine
from boxpromptiml.manifests.manifest import Manifest, read_rows
from boxpromptiml.manifests.sources import Source
from data_prep.checks.between_images import (
    Inspected,
    duplicates,
    made_across_splits,
    shared_groups,
    twins,
)
from data_prep.checks.findings import Finding
from data_prep.checks.giveaways import leaks
from data_prep.checks.one_image import inspect_image
from data_prep.checks.report import CheckReport, as_html, as_json, as_text
from data_prep.checks.totals import balances, distributions
from data_prep.derive import is_list_beside

cv2.setNumThreads(0)  # the workers are the threads


@needs("address", "engine", "ray")
def check(
    manifest: list[Path],
    out: Path,
    verify: bool = False,
    num_workers: ProcessCount = 0,
    engine: EngineName = "processes",
    address: str | None = None,
    allow_remote: bool = False,
) -> int:
    """Check manifests and all their files, and that splits share neither images nor groups.

    Writes into `out`: report.html (to read), check.json (for programs) and errors.jsonl (what is
    rejected, with path and reason). Exit status 3 if anything is rejected: files that are missing,
    damaged or not those of the manifest, masks that cannot be used, stale pseudo-masks. Leaks,
    duplicates and odd annotations are warnings.

    Args:
        manifest: Manifests to check together, such as those of training and evaluation. Lists of
            rejections beside them are skipped, so that FOLDER/*.jsonl may be given.
        out: Folder to write.
        verify: Decode every pixel of images and masks: finds problems inside masks too. By default
            of a mask only the header is read, and a JPEG is decoded at a reduced size.
        num_workers: Worker processes.
        engine: ray runs the workers with Ray (extra `ray`), and as many as there is room for if
            --num_workers is 0.
        address: Of a running Ray cluster, such as auto; every node must see the same files. By
            default Ray is started on this machine for the job.
        allow_remote: Fetch images of manifests whose image_root is in an object store;
            docs/scale.md.

    Raises:
        UserError: If no manifest is given, or a named file does not exist.
    """
    manifest = [path for path in manifest if not is_list_beside(path)]
    if not manifest:
        raise UserError("--manifest: name at least one manifest")
    CHECKED.require(out)
    manifests, findings = _read(manifest, allow_remote)
    sources = [Source(_without_samples(one), sample) for one in manifests for sample in one.samples]
    work = partial(inspect_image, verify=verify)
    ray = chosen_engine(engine, address)
    inspections = parallel(work, sources, num_workers, "checking", chunk=16, ray=ray)
    inspected = [
        Inspected(source.sample, one) for source, one in zip(sources, inspections, strict=True)
    ]
    report = _report(manifest, inspected, findings, verify)
    rejected = [finding for finding in report.findings if finding.severity == "rejected"]
    rows = [{"path": f.path, "reason": f.reason, "message": f.message} for f in rejected]
    CHECKED.mark(out)
    write_json(out / "check.json", as_json(report))
    write_jsonl(out / "errors.jsonl", rows)
    write_text(out / "report.html", as_html(report))
    sys.stdout.write(f"{as_text(report)}{out / 'report.html'}\n")
    return EXIT_REJECTED if rejected else EXIT_OK


def _read(paths: Sequence[Path], allow_remote: bool) -> tuple[list[Manifest], list[Finding]]:
    """Manifests without their bad rows, and a rejection of each of these."""
    manifests: list[Manifest] = []
    findings: list[Finding] = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"--manifest {path}: no such file")
        try:
            header, rows, errors = read_rows(path, allow_remote)
        except UserError as error:
            findings.append(Finding("rejected", str(path), "bad_manifest", str(error)))
            continue
        manifests.append(Manifest(path, header, rows))
        bad = map(str, errors)
        findings += [Finding("rejected", _place(path, row), "bad_row", row) for row in bad]
        if not rows and not errors:
            findings.append(Finding("rejected", str(path), "empty_manifest", "holds no image"))
    return manifests, findings


def _place(path: Path, message: str) -> str:
    """`FILE:LINE`, with which the reader's messages begin."""
    return f"{path}:{message.removeprefix(f'{path}:').partition(':')[0]}"


def _without_samples(manifest: Manifest) -> Manifest:
    """A manifest without its rows, for workers, which need only the location of its files."""
    return replace(manifest, samples=manifest.samples[:0])


def _report(
    paths: Sequence[Path], inspected: Sequence[Inspected], findings: Sequence[Finding], verify: bool
) -> CheckReport:
    pairs = twins(inspected)
    found = [
        *findings,
        *(finding for one in inspected for finding in one.inspection.findings),
        *duplicates(inspected),
        *shared_groups(inspected),
        *made_across_splits(inspected),
        *(two.finding() for two in pairs),
    ]
    return CheckReport(
        manifests=tuple(str(path) for path in paths),
        images=len(inspected),
        verified=verify,
        findings=tuple(dict.fromkeys(found)),
        twins=tuple(pairs),
        balances=tuple(balances(one.sample for one in inspected)),
        distributions=tuple(distributions(inspected)),
        leaks=tuple(leaks(inspected)),
    )
