"""Finds a localizer's weights: a file, a folder, or the student that ships with the package."""

from importlib.resources import files
from pathlib import Path

from boxpromptiml.errors import UserError
from boxpromptiml.io.files import require_local_file

FOLDER_WEIGHTS = "model.safetensors"  # in a folder of `Localizer.save_pretrained`, and on the Hub


def shipped_student() -> Path:
    """Path of the trained student that is part of the package; `weights/README.md` describes it.

    Raises:
        UserError: If this installation lacks it.
    """
    path = Path(str(files("boxpromptiml"))) / "weights" / "student.safetensors"
    if not path.is_file():
        raise UserError(
            f"{path}: this installation lacks the student that ships with boxpromptiml: "
            "install it again, or name a localizer with --checkpoint"
        )
    return path


def weights_file(checkpoint: str | Path | None) -> Path:
    """The file that holds the weights of a localizer.

    Args:
        checkpoint: The file itself, a folder of `Localizer.save_pretrained`, or None for the
            student that ships with the package.

    Raises:
        UserError: If the folder has no `model.safetensors`, or as `shipped_student`.
    """
    if checkpoint is None:
        return shipped_student()
    path = Path(checkpoint)
    if not path.is_dir():
        return path
    require_local_file(path / FOLDER_WEIGHTS)
    return path / FOLDER_WEIGHTS
