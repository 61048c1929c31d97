"""`python -m data_prep wandb-artifact`: a manifest and its pseudo-masks on Weights & Biases."""

import sys
from pathlib import Path
from typing import Any

from boxpromptiml.errors import UserError
from boxpromptiml.manifests.manifest import Manifest, read_manifest
from boxpromptiml.tasks.wandb import PatientWandbLogger


def wandb_artifact(manifest: Path, name: str, project: str = "boxpromptiml") -> None:
    """Send a manifest, and the pseudo-masks that it names, to Weights & Biases as an artifact.

    Images and ground truth are not sent: the manifest holds the SHA-256 of the images. Files lie in
    the artifact as they lie beside the manifest. Without a key or a server, and with
    WANDB_MODE=offline, the artifact waits in ./wandb for `wandb sync`.

    Args:
        manifest: For instance that of `pseudo-masks`.
        name: Of the artifact; an existing one gets a new version.
        project: Of Weights & Biases.

    Raises:
        UserError: If the manifest cannot be read, a pseudo-mask is missing or lies outside of the
            manifest's folder, or the name is not one that Weights & Biases accepts.
    """
    read = read_manifest(manifest)
    files = _files(read)
    import wandb  # noqa: PLC0415 - slow, and missing in some installations

    try:
        artifact = wandb.Artifact(name, "dataset", metadata=_metadata(read))
    except ValueError as error:
        raise UserError(f"--name {name}: {error}") from error
    run: Any = PatientWandbLogger(project=project, save_dir=".", job_type="dataset").experiment
    for path, inside in files.items():
        artifact.add_file(str(path), name=inside, policy="immutable")
    run.log_artifact(artifact)
    run.finish()
    sys.stdout.write(f"{name}: {len(files)} files; the run is in {Path(run.dir).parent}\n")


def _files(manifest: Manifest) -> dict[Path, str]:
    """The files of the artifact, and their names in it."""
    folder = manifest.path.parent.resolve()
    found = {manifest.path: manifest.path.name}
    masks = (manifest.pseudo_mask_path(sample) for sample in manifest.samples)
    for mask in filter(None, masks):
        for path in (mask, mask.with_suffix(".json")):
            if not path.is_file():
                raise UserError(f"{path}: is missing; run pseudo-masks again")
            if not path.resolve().is_relative_to(folder):
                raise UserError(f"{path}: lies outside of {folder}: give the manifest beside it")
            found[path] = str(path.resolve().relative_to(folder))
    return found


def _metadata(manifest: Manifest) -> dict[str, Any]:
    return {
        "rows": len(manifest.samples),
        "teacher_signature": manifest.header.teacher_signature,
        "schema_version": manifest.header.schema_version,
    }
